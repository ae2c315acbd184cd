#include "base/files.h"
#include "base/file_lock.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "base/error.h"
#include "support/golden.h"

namespace llava {
namespace {

namespace fs = std::filesystem;

std::size_t count_entries(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(Files, AtomicWriteReplacesTheContentAndLeavesNothingElse) {
  const fs::path folder = test::scratch_dir("atomic");
  write_file_atomic(folder / "a", std::string_view("one"));
  write_file_atomic(folder / "a", std::string_view("two"));
  EXPECT_EQ(read_file(folder / "a"), "two");
  EXPECT_EQ(count_entries(folder), 1u);
}

TEST(Files, FailedAtomicWriteKeepsTheOldFileAndRemovesTheTemporary) {
  const fs::path folder = test::scratch_dir("atomic-fail");
  write_file_atomic(folder / "a", std::string_view("old"));
  EXPECT_THROW(write_file_atomic(folder / "a",
                                 [](const fs::path& temporary) {
                                   std::ofstream(temporary) << "half";
                                   fail(ErrorKind::kResource, "disk full");
                                 }),
               Error);
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_EQ(count_entries(folder), 1u);
}

TEST(Files, WritingIntoAMissingFolderIsAnErrorThatNamesTheFile) {
  const fs::path folder = test::scratch_dir("missing");
  try {
    write_file_atomic(folder / "no" / "a", std::string_view("x"));
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kResource);
    EXPECT_NE(std::string(e.what()).find("/no/"), std::string::npos);
  }
}

TEST(Files, ReadRefusesMissingFilesFoldersFifosAndFilesOverTheLimit) {
  const fs::path folder = test::scratch_dir("read");
  EXPECT_THROW(read_file(folder / "missing"), Error);
  EXPECT_THROW(read_file(folder), Error);
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_THROW(read_file(folder / "fifo"), Error);
  write_file_atomic(folder / "a", std::string_view("12345"));
  EXPECT_THROW(read_file(folder / "a", 4), Error);
  EXPECT_EQ(read_file(folder / "a", 5), "12345");
}

TEST(Files, MappedFileShowsTheBytesAndAcceptsAnEmptyFile) {
  const fs::path folder = test::scratch_dir("map");
  write_file_atomic(folder / "a", std::string_view("abc"));
  write_file_atomic(folder / "empty", std::string_view(""));
  const MappedFile file(folder / "a");
  ASSERT_EQ(file.size(), 3u);
  EXPECT_EQ(static_cast<char>(file.bytes()[2]), 'c');
  EXPECT_EQ(MappedFile(folder / "empty").size(), 0u);
  EXPECT_THROW(MappedFile(folder / "none"), Error);
}

TEST(Files, AFolderIsLockedForOneWriterUntilItLetsGo) {
  const fs::path folder = test::scratch_dir("lock");
  {
    const FileLock first(folder);
    EXPECT_THROW(FileLock second(folder), Error);
  }
  const FileLock third(folder);
  EXPECT_THROW(FileLock nowhere(folder / "none"), Error);
}

}  // namespace
}  // namespace llava
