#include "data/record_file.h"

#include "base/error.h"

namespace llava {

namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::string_view as_text(const MappedFile& file) {
  std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.size());
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  return text;
}

}  // namespace

RecordFile::RecordFile(const std::filesystem::path& path)
    : path_(path), file_(path), text_(as_text(file_)) {
  const std::size_t first = text_.find_first_not_of(kSpace);
  if (first == std::string_view::npos) fail(ErrorKind::kFormat, "{}: the file is empty", path.string());
  if (text_[first] == '[') {
    find_list_items();
  } else if (text_[first] == '{') {
    find_lines();
  } else {
    fail(ErrorKind::kFormat, "{}: expected a JSON list of records or one JSON object a line",
         path.string());
  }
}

void RecordFile::find_list_items() {
  std::size_t depth = 0, begin = 0;
  bool in_string = false, in_item = false;
  for (std::size_t i = 0; i < text_.size(); ++i) {
    const char c = text_[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
      continue;
    }
    if (depth == 1 && !in_item && c != ',' && c != ']' && kSpace.find(c) == std::string_view::npos) {
      begin = i;
      in_item = true;
    }
    if (c == '"') in_string = true;
    if (depth == 1 && in_item && (c == ',' || c == ']')) {
      records_.push_back({begin, i});
      in_item = false;
    }
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && --depth == 0) {
      if (text_.find_first_not_of(kSpace, i + 1) != std::string_view::npos)
        fail(ErrorKind::kFormat, "{}: text after the list's end (byte {})", path_.string(), i + 1);
      return;
    }
  }
  fail(ErrorKind::kFormat, "{}: the list of records has no end; the file is cut off", path_.string());
}

void RecordFile::find_lines() {
  for (std::size_t begin = 0; begin < text_.size();) {
    std::size_t end = text_.find('\n', begin);
    if (end == std::string_view::npos) end = text_.size();
    if (text_.substr(begin, end - begin).find_first_not_of(kSpace) != std::string_view::npos)
      records_.push_back({begin, end});
    begin = end + 1;
  }
}

Json RecordFile::record(std::size_t index) const {
  LLAVA_ASSERT(index < records_.size(), "record out of range");
  const Span span = records_[index];
  Json json = parse_json(text_.substr(span.begin, span.end - span.begin), describe(index));
  if (!json.is_object()) fail(ErrorKind::kFormat, "{}: a record must be a JSON object", describe(index));
  return json;
}

std::string RecordFile::describe(std::size_t index) const {
  return fmt::format("{}: record {}", path_.string(), index);
}

}  // namespace llava
