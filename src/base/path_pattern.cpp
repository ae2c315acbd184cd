#include "base/path_pattern.h"

#include <glob.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/error.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMostNames = 1000000;

std::optional<std::uint32_t> number_of(const std::string& text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// What stands between a pair of braces, as a list.
std::vector<std::string> choices(const std::string& inner) {
  std::vector<std::string> list;
  if (const std::size_t dots = inner.find(".."); dots != std::string::npos) {
    const std::string from = inner.substr(0, dots), to = inner.substr(dots + 2);
    const auto first = number_of(from), last = number_of(to);
    if (first && last && *first <= *last) {
      if (*last - *first >= kMostNames)
        fail(ErrorKind::kInput, "{{{}}}: more than {} names", inner, kMostNames);
      for (std::uint32_t n = *first; n <= *last; ++n) list.push_back(fmt::format("{:0{}}", n, from.size()));
      return list;
    }
  }
  std::size_t begin = 0;
  for (std::size_t comma = inner.find(','); comma != std::string::npos; comma = inner.find(',', begin)) {
    list.push_back(inner.substr(begin, comma - begin));
    begin = comma + 1;
  }
  list.push_back(inner.substr(begin));
  if (list.size() == 1) list.front() = "{" + inner + "}";  // neither a range nor a list: as written
  return list;
}

void expand_braces(const std::string& done, const std::string& rest, std::vector<std::string>& names) {
  const std::size_t open = rest.find('{'), close = rest.find('}', open == std::string::npos ? 0 : open);
  if (open == std::string::npos || close == std::string::npos) {
    names.push_back(done + rest);
    if (names.size() > kMostNames)
      fail(ErrorKind::kInput, "the braces of a path make more than {} names", kMostNames);
    return;
  }
  for (const std::string& choice : choices(rest.substr(open + 1, close - open - 1)))
    expand_braces(done + rest.substr(0, open) + choice, rest.substr(close + 1), names);
}

void find_files(const std::string& pattern, std::vector<fs::path>& files) {
  glob_t found{};
  const int code = ::glob(pattern.c_str(), 0, nullptr, &found);
  if (code == 0) files.insert(files.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  if (code != 0) fail(ErrorKind::kInput, "{}: finds no file", pattern);
}

}  // namespace

bool is_path_pattern(const std::string& path) { return path.find_first_of("{*?[") != std::string::npos; }

std::vector<fs::path> expand_path(const std::string& pattern) {
  std::error_code error;
  if (!is_path_pattern(pattern) || fs::exists(pattern, error)) return {pattern};
  std::vector<std::string> names;
  expand_braces("", pattern, names);
  std::vector<fs::path> files;
  for (const std::string& name : names) {
    if (name.find_first_of("*?[") != std::string::npos && !fs::exists(name, error)) {
      find_files(name, files);
    } else {
      files.emplace_back(name);
    }
  }
  return files;
}

bool path_exists(const std::string& pattern) {
  std::error_code error;
  const auto files = try_outcome([&] { return expand_path(pattern); });
  return files.ok() && std::any_of(files.value().begin(), files.value().end(),
                                   [&](const fs::path& file) { return fs::exists(file, error); });
}

}  // namespace llava
