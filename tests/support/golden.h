#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>

namespace llava::test {

/// The repository's root.
std::filesystem::path source_dir();

/// A golden file or folder: first in $LLAVA_GOLDEN or <root>/../shared/reference/golden (the full set),
/// then in the committed subset <root>/tests/golden. Empty where neither has it.
std::optional<std::filesystem::path> find_golden(const std::string& relative);

/// A scratch folder of this test, emptied first, removed at exit.
std::filesystem::path scratch_dir(const std::string& name);

}  // namespace llava::test

/// Defines `variable` as the golden's path; without it the test is skipped and says so.
#define LLAVA_GOLDEN_OR_SKIP(variable, relative)                                                    \
  const auto variable##_found = ::llava::test::find_golden(relative);                               \
  if (!variable##_found)                                                                            \
    GTEST_SKIP() << "golden " << (relative) << " is not here (neither ../shared nor tests/golden)"; \
  const std::filesystem::path variable = *variable##_found
