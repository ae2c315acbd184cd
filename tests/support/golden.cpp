#include "support/golden.h"

#include <unistd.h>
#include <cstdlib>

namespace llava::test {

std::filesystem::path source_dir() { return LLAVA_SOURCE_DIR; }

std::optional<std::filesystem::path> find_golden(const std::string& relative) {
  const char* set = std::getenv("LLAVA_GOLDEN");
  const std::filesystem::path full =
      set != nullptr ? std::filesystem::path(set) : source_dir() / ".." / "shared" / "reference" / "golden";
  for (const std::filesystem::path& root : {full, source_dir() / "tests" / "golden"})
    if (std::filesystem::exists(root / relative)) return root / relative;
  return std::nullopt;
}

std::filesystem::path scratch_dir(const std::string& name) {
  struct Scratch {
    std::filesystem::path root =
        std::filesystem::temp_directory_path() / ("llava-test-" + std::to_string(::getpid()));
    ~Scratch() {
      std::error_code ignored;
      std::filesystem::remove_all(root, ignored);
    }
  };
  static const Scratch scratch;
  const std::filesystem::path folder = scratch.root / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

}  // namespace llava::test
