#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>

#include "base/json.h"

namespace llava {

/// A file of JSON objects, one a line, each with a "step". Opening with `first_step` drops lines of that
/// step and later ones, written after the last checkpoint by a run that was cut off; a torn last line goes
/// too. The file is made with its first line.
class JsonLines {
 public:
  JsonLines(const std::filesystem::path& path, std::int64_t first_step);
  /// Written through at once. Error{kResource} when that fails.
  void write(const OrderedJson& line);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace llava
