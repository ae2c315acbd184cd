#include "formats/tensor_file.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"
#include "base/files.h"
#include "formats/byte_reader.h"
#include "formats/mapped_tensor_file.h"

namespace llava {

namespace {

struct DTypeInfo {
  const char* name;
  std::int64_t elements;
  std::size_t bytes;
};

/// Indexed by DType; block sizes are ggml's.
constexpr std::array<DTypeInfo, 25> kDTypes = {{
    {"F64", 1, 8},     {"F32", 1, 4},      {"F16", 1, 2},      {"BF16", 1, 2},     {"I64", 1, 8},
    {"I32", 1, 4},     {"I16", 1, 2},      {"I8", 1, 1},       {"U8", 1, 1},       {"BOOL", 1, 1},
    {"Q4_0", 32, 18},  {"Q4_1", 32, 20},   {"Q5_0", 32, 22},   {"Q5_1", 32, 24},   {"Q8_0", 32, 34},
    {"Q2_K", 256, 84}, {"Q3_K", 256, 110}, {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210},
    {"U64", 1, 8},     {"U32", 1, 4},      {"U16", 1, 2},      {"F8_E4M3", 1, 1},  {"F8_E5M2", 1, 1},
}};

const DTypeInfo& info(DType dtype) { return kDTypes.at(static_cast<std::size_t>(dtype)); }

bool starts_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

bool looks_like_safetensors(std::span<const std::byte> bytes) {
  if (bytes.size() < 9 || bytes[8] != std::byte{'{'}) return false;
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  return header <= bytes.size() - 8;
}

}  // namespace

const char* to_string(DType dtype) { return info(dtype).name; }
bool is_block_type(DType dtype) { return info(dtype).elements > 1; }
std::int64_t block_elements(DType dtype) { return info(dtype).elements; }
std::size_t block_bytes(DType dtype) { return info(dtype).bytes; }

std::size_t byte_size(DType dtype, std::int64_t count) {
  const DTypeInfo& type = info(dtype);
  if (count < 0 || count % type.elements != 0)
    fail(ErrorKind::kFormat, "{} elements are not whole {} blocks of {}", count, type.name, type.elements);
  const std::optional<std::int64_t> bytes =
      checked_product(count / type.elements, static_cast<std::int64_t>(type.bytes));
  if (!bytes) fail(ErrorKind::kFormat, "{} elements of {} are too many", count, type.name);
  return static_cast<std::size_t>(*bytes);
}

std::int64_t TensorView::num_elements() const {
  const std::optional<std::int64_t> count = checked_elements(shape);
  LLAVA_ASSERT(count.has_value(), "a view's shape was checked when it was made");
  return *count;
}

const TensorView* TensorFile::find(std::string_view name) const {
  const auto& all = tensors();
  const auto it =
      std::find_if(all.begin(), all.end(), [&](const TensorView& view) { return view.name == name; });
  return it == all.end() ? nullptr : &*it;
}

std::unique_ptr<TensorFile> open_tensor_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (starts_with(bytes, "GGUF")) return open_gguf(path);
  // before pickles: a header of 640 bytes begins as they do
  if (looks_like_safetensors(bytes)) return open_safetensors(path);
  if (starts_with(bytes, std::string_view("PK\3\4", 4)) || starts_with(bytes, "\x80\x02")) {
    return open_torch_pickle(path);
  }
  throw Error(
      ErrorKind::kFormat,
      fmt::format("{}: not a weight file: neither safetensors, nor GGUF, nor torch.save", path.string()),
      starts_with(bytes, "version https://git-lfs")
          ? "this is a Git LFS pointer, not the file itself: download it with `git lfs pull`"
          : "the file may be truncated or still downloading");
}

std::optional<std::int64_t> checked_elements(const std::vector<std::int64_t>& shape) {
  // A zero anywhere makes the tensor empty, but the other sizes must be sane all the same.
  std::int64_t count = 1;
  bool empty = false;
  for (const std::int64_t size : shape) {
    if (size == 0) empty = true;
    const std::optional<std::int64_t> next = checked_product(count, std::max<std::int64_t>(size, 1));
    if (size < 0 || !next) return std::nullopt;
    count = *next;
  }
  return empty ? 0 : count;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

bool is_utf8(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t more = lead < 0x80   ? 0
                             : lead < 0xC2 ? 9
                             : lead < 0xE0 ? 1
                             : lead < 0xF0 ? 2
                             : lead < 0xF5 ? 3
                                           : 9;
    if (more > 3 || text.size() - i <= more) return false;
    for (std::size_t k = 1; k <= more; ++k)
      if ((static_cast<unsigned char>(text[i + k]) & 0xC0) != 0x80) return false;
    const auto second = more > 0 ? static_cast<unsigned char>(text[i + 1]) : 0;
    const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
    const bool surrogate = lead == 0xED && second >= 0xA0;
    if (overlong || surrogate || (lead == 0xF4 && second >= 0x90)) return false;
    i += more + 1;
  }
  return true;
}

std::string printable(std::string_view text) {
  const std::string_view head = text.substr(0, 80);
  std::string out;
  const bool readable = is_utf8(head);
  for (const char c : head) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7F && (byte < 0x80 || readable))
      out += c;
    else
      out += fmt::format("\\x{:02x}", byte);
  }
  return head.size() < text.size() ? out + "…" : out;
}

}  // namespace llava
