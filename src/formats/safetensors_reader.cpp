#include <algorithm>
#include <limits>
#include <unordered_set>

#include "base/error.h"
#include "formats/byte_reader.h"
#include "formats/mapped_tensor_file.h"

/// Reader of safetensors: u64 header length, JSON header, data.   Source:
/// https://github.com/huggingface/safetensors#format
namespace llava {

namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

struct Record {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::uint64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

/// Reads the header as a stream of events, so that a hostile header costs no more memory than its tensors
/// and duplicate keys, which a DOM would merge, are seen.
class HeaderHandler : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderHandler(std::string what) : what_(std::move(what)) {}

  std::vector<Record> records;
  Json metadata = Json::object();

  bool start_object(std::size_t) override {
    if (level_ == Level::kStart) return enter(Level::kTop);
    if (level_ != Level::kTop || key_.empty()) bad("an object where none belongs");
    if (key_ == "__metadata__") return enter(Level::kMetadata);
    if (!names_.insert(key_).second) bad("the tensor name occurs twice");
    if (records.size() >= kMaxTensors) bad("more than a million tensors");
    records.emplace_back().name = key_;
    return enter(Level::kTensor);
  }
  bool end_object() override {
    if (level_ == Level::kTensor) {
      const Record& r = records.back();
      key_ = r.name;
      if (!r.has_dtype || !r.has_shape || !r.has_offsets) bad("dtype, shape or data_offsets is missing");
    }
    return enter(level_ == Level::kTop ? Level::kEnd : Level::kTop);
  }
  bool key(std::string& text) override {
    if (text.size() > kMaxNameBytes) bad("a name is longer than 4096 bytes");
    if (level_ == Level::kTop) {
      if (text.empty()) bad("a tensor without a name");
      if (text == "__metadata__" && std::exchange(seen_metadata_, true)) bad("__metadata__ occurs twice");
      key_ = text;
    }
    field_ = text;
    return true;
  }
  bool string(std::string& text) override {
    if (level_ == Level::kMetadata) {
      if (metadata.contains(field_)) bad("a metadata key occurs twice");
      metadata[field_] = text;
      return true;
    }
    if (level_ != Level::kTensor || field_ != "dtype") bad("a text where none belongs");
    set_once(records.back().has_dtype);
    records.back().dtype = text;
    return true;
  }
  bool start_array(std::size_t) override {
    if (level_ != Level::kTensor) bad("an array where none belongs");
    if (field_ == "shape") {
      set_once(records.back().has_shape);
      return enter(Level::kShape);
    }
    if (field_ != "data_offsets") bad("an unknown array");
    set_once(records.back().has_offsets);
    return enter(Level::kOffsets);
  }
  bool end_array() override {
    if (level_ == Level::kOffsets && records.back().offsets.size() != 2)
      bad("data_offsets must hold two numbers");
    return enter(Level::kTensor);
  }
  bool number_unsigned(std::uint64_t value) override {
    if (value > std::uint64_t(std::numeric_limits<std::int64_t>::max())) bad("a number is out of range");
    if (level_ == Level::kShape) {
      if (records.back().shape.size() >= kMaxRank) bad("more than 16 dimensions");
      records.back().shape.push_back(static_cast<std::int64_t>(value));
    } else if (level_ == Level::kOffsets) {
      if (records.back().offsets.size() >= 2) bad("data_offsets must hold two numbers");
      records.back().offsets.push_back(value);
    } else {
      bad("a number where none belongs");
    }
    return true;
  }
  bool null() override { bad("a null where none belongs"); }
  bool boolean(bool) override { bad("a boolean where none belongs"); }
  bool number_integer(std::int64_t) override { bad("a negative number"); }
  bool number_float(double, const std::string&) override { bad("a fraction where a whole number belongs"); }
  bool binary(binary_t&) override { bad("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail(ErrorKind::kFormat, "{}: the safetensors header is not valid JSON at byte {}", what_,
         position + 8);
  }

 private:
  enum class Level { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  bool enter(Level level) {
    level_ = level;
    return true;
  }
  void set_once(bool& seen) {
    if (std::exchange(seen, true)) bad("a field occurs twice");
  }
  [[noreturn]] void bad(std::string_view why) const {
    fail(ErrorKind::kFormat, "{}: bad safetensors header at \"{}\": {}", what_, printable(key_), why);
  }

  std::string what_;
  Level level_ = Level::kStart;
  std::string key_, field_;
  bool seen_metadata_ = false;
  std::unordered_set<std::string> names_;
};

DType dtype_named(const std::string& name, std::string_view what, const std::string& tensor) {
  // clang-format off
  static constexpr DType kStored[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32,
                                      DType::kI16, DType::kI8, DType::kU8, DType::kBool, DType::kU64, DType::kU32,
                                      DType::kU16, DType::kF8_E4M3, DType::kF8_E5M2};
  // clang-format on
  for (const DType dtype : kStored)
    if (name == to_string(dtype)) return dtype;
  fail(ErrorKind::kUnsupported, "{}: tensor \"{}\" has the unknown dtype \"{}\"", what, tensor,
       printable(name));
}

TensorView make_view(const Record& record, std::span<const std::byte> data, const std::string& what) {
  const std::uint64_t begin = record.offsets[0], end = record.offsets[1];
  const auto bad = [&](std::string_view why) {
    fail(ErrorKind::kFormat, "{}: tensor \"{}\": {} (data_offsets {}..{}, data of {} bytes)", what,
         printable(record.name), why, begin, end, data.size());
  };
  if (begin > end) bad("its end lies before its begin");
  if (end > data.size()) bad("it reaches past the end of the file");
  TensorView view;
  view.name = record.name;
  view.dtype = dtype_named(record.dtype, what, record.name);
  view.shape = record.shape;
  const std::optional<std::int64_t> count = checked_elements(record.shape);
  if (!count) bad("its shape overflows");
  if (byte_size(view.dtype, *count) != end - begin) bad("its shape and dtype do not give its size");
  view.bytes = data.subspan(begin, end - begin);
  return view;
}

}  // namespace

std::unique_ptr<TensorFile> open_safetensors(const std::filesystem::path& path) {
  MappedFile file(path);
  const std::string what = path.string();
  ByteReader reader(file.bytes(), what);
  const auto header_bytes = reader.read<std::uint64_t>();
  if (header_bytes > kMaxHeaderBytes || header_bytes > reader.remaining())
    fail(ErrorKind::kFormat, "{}: the safetensors header claims {} bytes, the file has {}", what,
         header_bytes, file.size());
  const std::string_view header = reader.text(header_bytes);
  if (!header.starts_with('{'))
    fail(ErrorKind::kFormat, "{}: the safetensors header is not a JSON object", what);
  HeaderHandler handler(what);
  Json::sax_parse(header, &handler);

  std::stable_sort(handler.records.begin(), handler.records.end(),
                   [](const Record& a, const Record& b) { return a.offsets < b.offsets; });
  const auto data = file.bytes().subspan(reader.position());
  std::vector<TensorView> tensors;
  tensors.reserve(handler.records.size());
  std::uint64_t covered = 0;
  for (const Record& record : handler.records) {
    if (record.offsets[0] != covered)
      fail(ErrorKind::kFormat, "{}: tensor \"{}\" begins at {}, but the one before it ends at {}", what,
           printable(record.name), record.offsets[0], covered);
    tensors.push_back(make_view(record, data, what));
    covered = record.offsets[1];
  }
  if (covered != data.size())
    fail(ErrorKind::kFormat, "{}: its tensors end at byte {} of the data, which has {}", what, covered,
         data.size());
  return std::make_unique<MappedTensorFile>(path, std::move(file), std::move(tensors),
                                            std::move(handler.metadata));
}

}  // namespace llava
