#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/files.h"
#include "formats/byte_reader.h"
#include "formats/mapped_tensor_file.h"

namespace llava {

namespace {

/// The order in which Python's package sorts dtypes, widest alignment last; it writes them from the end.
int dtype_rank(DType dtype) {
  // clang-format off
  static constexpr DType kOrder[] = {DType::kBool, DType::kU8, DType::kI8, DType::kF8_E5M2, DType::kF8_E4M3, DType::kI16,
                                     DType::kU16, DType::kF16, DType::kBF16, DType::kI32, DType::kU32, DType::kF32,
                                     DType::kF64, DType::kI64, DType::kU64};
  // clang-format on
  return static_cast<int>(std::find(std::begin(kOrder), std::end(kOrder), dtype) - std::begin(kOrder));
}

std::string quoted(const std::string& text) { return Json(text).dump(); }

std::string make_header(const std::vector<const TensorView*>& order,
                        const std::map<std::string, std::string>& metadata) {
  std::string header = "{";
  if (!metadata.empty()) header += "\"__metadata__\":" + Json(metadata).dump();
  std::size_t offset = 0;
  for (const TensorView* tensor : order) {
    if (header.size() > 1) header += ',';
    header += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          quoted(tensor->name), to_string(tensor->dtype), fmt::join(tensor->shape, ","),
                          offset, offset + tensor->bytes.size());
    offset += tensor->bytes.size();
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

void write_all(std::FILE* file, const void* data, std::size_t size, const std::filesystem::path& path) {
  if (size > 0 && std::fwrite(data, 1, size, file) != size)
    fail(ErrorKind::kResource, "cannot write {}: {}", path.string(), std::strerror(errno));
}

}  // namespace

void SafetensorsWriter::add(std::string name, DType dtype, std::vector<std::int64_t> shape,
                            std::span<const std::byte> bytes) {
  if (is_block_type(dtype))
    fail(ErrorKind::kUnsupported, "tensor \"{}\": safetensors has no dtype {}", name, to_string(dtype));
  const std::optional<std::int64_t> count = checked_elements(shape);
  if (!count || byte_size(dtype, *count) != bytes.size())
    fail(ErrorKind::kInternal, "tensor \"{}\": {} bytes are not {} of {}", name, bytes.size(),
         shape_text(shape), to_string(dtype));
  if (name.empty() || name == "__metadata__" || !is_utf8(name))
    fail(ErrorKind::kInternal, "\"{}\" cannot be the name of a tensor", printable(name));
  const auto same = [&](const TensorView& other) { return other.name == name; };
  if (std::any_of(tensors_.begin(), tensors_.end(), same))
    fail(ErrorKind::kInternal, "tensor \"{}\" was added twice", name);
  tensors_.push_back({std::move(name), dtype, std::move(shape), {}, bytes});
}

void SafetensorsWriter::set_metadata(std::map<std::string, std::string> metadata) {
  for (const auto& [key, value] : metadata)
    if (!is_utf8(key) || !is_utf8(value))
      fail(ErrorKind::kInternal, "metadata \"{}\" is not valid UTF-8", printable(key));
  metadata_ = std::move(metadata);
}

void SafetensorsWriter::write(const std::filesystem::path& path) const {
  std::vector<const TensorView*> order;
  for (const TensorView& tensor : tensors_) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    const int rank_a = dtype_rank(a->dtype), rank_b = dtype_rank(b->dtype);
    return rank_a != rank_b ? rank_a > rank_b : a->name < b->name;
  });
  const std::string header = make_header(order, metadata_);
  write_file_atomic(path, [&](const std::filesystem::path& temporary) {
    struct Close {
      void operator()(std::FILE* open) const { std::fclose(open); }
    };
    const std::unique_ptr<std::FILE, Close> file(std::fopen(temporary.c_str(), "wb"));
    if (!file) fail(ErrorKind::kResource, "cannot create {}: {}", temporary.string(), std::strerror(errno));
    const std::uint64_t size = header.size();
    write_all(file.get(), &size, sizeof(size), path);
    write_all(file.get(), header.data(), header.size(), path);
    for (const TensorView* tensor : order)
      write_all(file.get(), tensor->bytes.data(), tensor->bytes.size(), path);
    if (std::fflush(file.get()) != 0)
      fail(ErrorKind::kResource, "cannot write {}: {}", path.string(), std::strerror(errno));
  });
}

}  // namespace llava
