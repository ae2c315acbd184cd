#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "formats/byte_reader.h"
#include "formats/mapped_tensor_file.h"

/// Reader of GGUF versions 2 and 3, little-endian: magic, counts, key/values, tensor infos, padding,
/// aligned data. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
namespace llava {

namespace {

constexpr std::uint64_t kMaxKeys = 65'536;
constexpr std::uint64_t kMaxArrayElements = 16'000'000;  // of all arrays together: 256 MB as JSON values
constexpr int kMaxArrayDepth = 4;
constexpr std::uint32_t kMaxDimensions = 4;

// clang-format off
enum class ValueType : std::uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };
// clang-format on

struct GgmlType {
  std::uint32_t id;
  DType dtype;
};
constexpr GgmlType kGgmlTypes[] = {
    {0, DType::kF32},   {1, DType::kF16},   {2, DType::kQ4_0},  {3, DType::kQ4_1},  {6, DType::kQ5_0},
    {7, DType::kQ5_1},  {8, DType::kQ8_0},  {10, DType::kQ2_K}, {11, DType::kQ3_K}, {12, DType::kQ4_K},
    {13, DType::kQ5_K}, {14, DType::kQ6_K}, {24, DType::kI8},   {25, DType::kI16},  {26, DType::kI32},
    {27, DType::kI64},  {28, DType::kF64},  {30, DType::kBF16},
};

struct NamedId {
  std::uint32_t id;
  const char* name;
};
constexpr NamedId kUnsupportedTypes[] = {
    {4, "Q4_2"},     {5, "Q4_3"},   {9, "Q8_1"},    {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
    {29, "IQ1_M"},   {34, "TQ1_0"}, {35, "TQ2_0"},  {39, "MXFP4"}, {40, "NVFP4"},
};

class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, const std::string& what)
      : bytes_(bytes), reader_(bytes, what) {}

  Json metadata = Json::object();
  std::vector<TensorView> tensors;

  void read() {
    const auto [num_tensors, num_keys] = read_counts();
    for (std::uint64_t i = 0; i < num_keys; ++i) read_key_value();
    read_alignment();
    std::vector<std::uint64_t> offsets;
    for (std::uint64_t i = 0; i < num_tensors; ++i) offsets.push_back(read_tensor_info());
    place_tensors(offsets);
  }

 private:
  const std::string& what() const { return reader_.what(); }

  std::pair<std::uint64_t, std::uint64_t> read_counts() {
    if (reader_.remaining() < 4 || reader_.text(4) != "GGUF")
      fail(ErrorKind::kFormat, "{}: not a GGUF file", what());
    const auto version = reader_.read<std::uint32_t>();
    if ((version & 0xFFFF) == 0 && version != 0)
      fail(ErrorKind::kUnsupported, "{}: a big-endian GGUF file; convert it to little-endian", what());
    if (version != 2 && version != 3)
      fail(ErrorKind::kUnsupported, "{}: GGUF version {}; versions 2 and 3 are read", what(), version);
    const auto num_tensors = reader_.read<std::uint64_t>();
    const auto num_keys = reader_.read<std::uint64_t>();
    if (num_tensors > kMaxTensors || num_keys > kMaxKeys)
      fail(ErrorKind::kFormat, "{}: absurd counts: {} tensors, {} keys", what(), num_tensors, num_keys);
    return {num_tensors, num_keys};
  }

  std::string read_string(std::string_view where) {
    const auto size = reader_.read<std::uint64_t>();
    if (size > reader_.remaining())
      fail(ErrorKind::kFormat, "{}: a text at \"{}\" claims {} bytes, more than are left", what(),
           printable(where), size);
    const std::string_view text = reader_.text(size);
    if (!is_utf8(text))
      fail(ErrorKind::kFormat, "{}: a text at \"{}\" is not valid UTF-8", what(), printable(where));
    return std::string(text);
  }

  std::string read_name(std::string_view where) {
    std::string name = read_string(where);
    if (name.empty() || name.size() > kMaxNameBytes)
      fail(ErrorKind::kFormat, "{}: a name of {} bytes at {}", what(), name.size(), where);
    return name;
  }

  void read_key_value() {
    const std::string key = read_name("the metadata keys");
    const auto type = reader_.read<std::uint32_t>();
    if (metadata.contains(key))
      fail(ErrorKind::kFormat, "{}: metadata key \"{}\" occurs twice", what(), printable(key));
    metadata[key] = read_value(type, key, 0);
  }

  Json read_value(std::uint32_t type, const std::string& key, int depth) {
    switch (static_cast<ValueType>(type)) {
      case ValueType::kU8:
        return reader_.read<std::uint8_t>();
      case ValueType::kI8:
        return reader_.read<std::int8_t>();
      case ValueType::kU16:
        return reader_.read<std::uint16_t>();
      case ValueType::kI16:
        return reader_.read<std::int16_t>();
      case ValueType::kU32:
        return reader_.read<std::uint32_t>();
      case ValueType::kI32:
        return reader_.read<std::int32_t>();
      case ValueType::kF32:
        return reader_.read<float>();
      case ValueType::kBool:
        return reader_.read<std::uint8_t>() != 0;
      case ValueType::kString:
        return read_string(key);
      case ValueType::kArray:
        return read_array(key, depth);
      case ValueType::kU64:
        return reader_.read<std::uint64_t>();
      case ValueType::kI64:
        return reader_.read<std::int64_t>();
      case ValueType::kF64:
        return reader_.read<double>();
    }
    fail(ErrorKind::kFormat, "{}: metadata key \"{}\" has the unknown type {}", what(), printable(key),
         type);
  }

  Json read_array(const std::string& key, int depth) {
    const auto type = reader_.read<std::uint32_t>();
    const auto count = reader_.read<std::uint64_t>();
    // Every element takes at least a byte of the file, so `remaining` bounds the memory too.
    if (depth >= kMaxArrayDepth || count > reader_.remaining() || count > kMaxArrayElements - num_elements_)
      fail(ErrorKind::kFormat, "{}: metadata key \"{}\": an array of {} elements is too large or too deep",
           what(), printable(key), count);
    num_elements_ += count;
    Json::array_t values;
    values.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) values.push_back(read_value(type, key, depth + 1));
    return Json(std::move(values));
  }

  void read_alignment() {
    const auto it = metadata.find("general.alignment");
    if (it == metadata.end()) return;
    const std::uint64_t value = it->is_number_unsigned() ? it->get<std::uint64_t>() : 0;
    if (value == 0 || (value & (value - 1)) != 0 || value > (1U << 20))
      fail(ErrorKind::kFormat, "{}: general.alignment must be a power of two up to 2^20", what());
    alignment_ = value;
  }

  /// Reads name, shape and type; returns the offset into the data.
  std::uint64_t read_tensor_info() {
    TensorView view;
    view.name = read_name("the tensor names");
    if (!names_.insert(view.name).second)
      fail(ErrorKind::kFormat, "{}: tensor \"{}\" occurs twice", what(), printable(view.name));
    const auto rank = reader_.read<std::uint32_t>();
    if (rank > kMaxDimensions)
      fail(ErrorKind::kFormat, "{}: tensor \"{}\" has {} dimensions", what(), printable(view.name), rank);
    for (std::uint32_t i = 0; i < rank; ++i) {
      const auto size = reader_.read<std::uint64_t>();
      view.shape.push_back(static_cast<std::int64_t>(size));
    }
    std::reverse(view.shape.begin(), view.shape.end());
    view.dtype = dtype_of_id(reader_.read<std::uint32_t>(), view.name);
    const auto offset = reader_.read<std::uint64_t>();
    if (offset % alignment_ != 0)
      fail(ErrorKind::kFormat, "{}: tensor \"{}\": its offset {} is not aligned to {}", what(),
           printable(view.name), offset, alignment_);
    tensors.push_back(std::move(view));
    return offset;
  }

  DType dtype_of_id(std::uint32_t id, const std::string& name) const {
    for (const GgmlType& type : kGgmlTypes)
      if (type.id == id) return type.dtype;
    const auto known = std::find_if(std::begin(kUnsupportedTypes), std::end(kUnsupportedTypes),
                                    [&](const NamedId& type) { return type.id == id; });
    if (known == std::end(kUnsupportedTypes))
      fail(ErrorKind::kFormat, "{}: tensor \"{}\" has the unknown ggml type {}", what(), printable(name),
           id);
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: tensor \"{}\" has the ggml type {}, which is not read", what(),
                            printable(name), known->name),
                "use a file in F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 or Q2_K to Q6_K");
  }

  void place_tensors(const std::vector<std::uint64_t>& offsets) {
    const std::size_t begin = (reader_.position() + alignment_ - 1) / alignment_ * alignment_;
    const auto data = begin <= bytes_.size() ? bytes_.subspan(begin) : std::span<const std::byte>();
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      TensorView& view = tensors[i];
      const std::uint64_t size = data_size(view);
      if (offsets[i] > data.size() || size > data.size() - offsets[i])
        fail(ErrorKind::kFormat,
             "{}: tensor \"{}\" needs {} bytes at offset {}, the data has {} (truncated file?)", what(),
             printable(view.name), size, offsets[i], data.size());
      view.bytes = data.subspan(offsets[i], size);
      if (size > 0) ranges.emplace_back(offsets[i], offsets[i] + size);
    }
    std::sort(ranges.begin(), ranges.end());
    for (std::size_t i = 1; i < ranges.size(); ++i)
      if (ranges[i].first < ranges[i - 1].second)
        fail(ErrorKind::kFormat, "{}: two tensors overlap at offset {} of the data", what(),
             ranges[i].first);
  }

  std::uint64_t data_size(const TensorView& view) const {
    const std::optional<std::int64_t> count = checked_elements(view.shape);
    const std::int64_t row = view.shape.empty() ? 1 : view.shape.back();
    if (!count || row % block_elements(view.dtype) != 0)
      fail(ErrorKind::kFormat, "{}: tensor \"{}\": shape {} is impossible for {}", what(),
           printable(view.name), shape_text(view.shape), to_string(view.dtype));
    return byte_size(view.dtype, *count);
  }

  std::span<const std::byte> bytes_;
  ByteReader reader_;
  std::size_t alignment_ = 32;
  std::uint64_t num_elements_ = 0;
  std::unordered_set<std::string> names_;
};

}  // namespace

std::unique_ptr<TensorFile> open_gguf(const std::filesystem::path& path) {
  MappedFile file(path);
  GgufReader reader(file.bytes(), path.string());
  reader.read();
  return std::make_unique<MappedTensorFile>(path, std::move(file), std::move(reader.tensors),
                                            std::move(reader.metadata));
}

}  // namespace llava
