#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

/// Weight files as named views on mapped memory. Nothing is copied, nothing is executed, and all sizes are
/// checked against the file before a view is handed out.
namespace llava {

// clang-format off
enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool,
                   kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K,
                   kU64, kU32, kU16, kF8_E4M3, kF8_E5M2 /* listed and sized; no arithmetic on float8 */ };
// clang-format on
inline constexpr std::size_t kMaxTensors = 1'000'000;  ///< in one file; more is refused
const char* to_string(DType dtype);  ///< "F32", "BF16", "I64", "Q4_K"…
bool is_block_type(DType dtype);     ///< GGUF quantised blocks
/// Elements of one block: 32 or 256 for block types, else 1.
std::int64_t block_elements(DType dtype);
/// Bytes of one block (of one element for the other types).
std::size_t block_bytes(DType dtype);
/// Bytes of `count` elements (for block types count must be a multiple of the block). Error{kFormat} on
/// overflow.
std::size_t byte_size(DType dtype, std::int64_t count);

struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;    ///< row-major, outermost first (GGUF's order is reversed on reading)
  std::vector<std::int64_t> strides;  ///< in elements; empty: contiguous (only pickles have others)
  std::span<const std::byte> bytes;   ///< from the first element; lives as long as the TensorFile
  std::int64_t num_elements() const;
};

class TensorFile {
 public:
  virtual ~TensorFile() = default;
  virtual const std::filesystem::path& path() const = 0;
  virtual const std::vector<TensorView>& tensors() const = 0;  ///< in file order
  /// safetensors' __metadata__; GGUF's key/values (big arrays included); {} for pickles.
  virtual const Json& metadata() const = 0;
  const TensorView* find(std::string_view name) const;
};

/// Each throws Error{kInput|kFormat|kUnsupported|kResource} naming the file and, where known, the tensor.
std::unique_ptr<TensorFile> open_safetensors(const std::filesystem::path& path);
/// torch.save's zip format and its older one of plain pickles: a dict of tensors, possibly nested one level
/// (under "state_dict", "model"… it is looked into; under other keys the tensors are called "key.name").
std::unique_ptr<TensorFile> open_torch_pickle(const std::filesystem::path& path);
std::unique_ptr<TensorFile> open_gguf(const std::filesystem::path& path);
/// By content (magic), not by file name.
std::unique_ptr<TensorFile> open_tensor_file(const std::filesystem::path& path);

/// Dequantises / converts `view` to float32, `out` has num_elements() entries, row-major. Bit-equal to
/// gguf-py's numpy reference. One thread; for several, split it by to_float32_rows. Error{kUnsupported} for
/// float8.
void to_float32(const TensorView& view, std::span<float> out);
/// Rows [begin, end) only: a row is the last dimension, so there are num_elements() / shape.back() of them.
void to_float32_rows(const TensorView& view, std::int64_t begin, std::int64_t end, std::span<float> out);

/// Writes safetensors atomically, byte for byte as the Python package does (wider dtypes first, then by
/// name, so every tensor is aligned; header padded to 8 bytes). Data is streamed from the spans, which must
/// live until then.
class SafetensorsWriter {
 public:
  /// Error{kInternal} if the bytes are not shape x dtype or the name is taken, {kUnsupported} for block
  /// types.
  void add(std::string name, DType dtype, std::vector<std::int64_t> shape,
           std::span<const std::byte> bytes);
  void set_metadata(std::map<std::string, std::string> metadata);
  void write(const std::filesystem::path& path) const;

 private:
  std::vector<TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// A tensor that is still to be made.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
};

/// Writes safetensors as SafetensorsWriter does, but asks for each tensor's bytes only when they are written:
/// `make(i, sink)` hands those of specs[i] to `sink`, once. So one tensor is in memory at a time.
void stream_safetensors(
    const std::filesystem::path& path, const std::vector<TensorSpec>& specs,
    const std::map<std::string, std::string>& metadata,
    const std::function<void(std::size_t index, const std::function<void(std::span<const std::byte>)>& sink)>& make);

}  // namespace llava
