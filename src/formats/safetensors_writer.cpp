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

std::string make_header(const std::vector<TensorSpec>& order,
                        const std::map<std::string, std::string>& metadata) {
  std::string header = "{";
  if (!metadata.empty()) header += "\"__metadata__\":" + Json(metadata).dump();
  std::size_t offset = 0;
  for (const TensorSpec& tensor : order) {
    const std::size_t size = byte_size(tensor.dtype, *checked_elements(tensor.shape));
    if (header.size() > 1) header += ',';
    header += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          quoted(tensor.name), to_string(tensor.dtype), fmt::join(tensor.shape, ","), offset,
                          offset + size);
    offset += size;
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

void check_spec(const TensorSpec& spec) {
  if (is_block_type(spec.dtype))
    fail(ErrorKind::kUnsupported, "tensor \"{}\": safetensors has no dtype {}", spec.name, to_string(spec.dtype));
  if (!checked_elements(spec.shape))
    fail(ErrorKind::kInternal, "tensor \"{}\": the shape {} overflows", spec.name, shape_text(spec.shape));
  if (spec.name.empty() || spec.name == "__metadata__" || !is_utf8(spec.name))
    fail(ErrorKind::kInternal, "\"{}\" cannot be the name of a tensor", printable(spec.name));
}

void write_all(std::FILE* file, const void* data, std::size_t size, const std::filesystem::path& path) {
  if (size > 0 && std::fwrite(data, 1, size, file) != size)
    fail(ErrorKind::kResource, "cannot write {}: {}", path.string(), std::strerror(errno));
}

}  // namespace

void SafetensorsWriter::add(std::string name, DType dtype, std::vector<std::int64_t> shape,
                            std::span<const std::byte> bytes) {
  check_spec({name, dtype, shape});
  if (byte_size(dtype, *checked_elements(shape)) != bytes.size())
    fail(ErrorKind::kInternal, "tensor \"{}\": {} bytes are not {} of {}", name, bytes.size(),
         shape_text(shape), to_string(dtype));
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
  std::vector<TensorSpec> specs;
  for (const TensorView& tensor : tensors_) specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  stream_safetensors(path, specs, metadata_,
                     [&](std::size_t index, const auto& sink) { sink(tensors_[index].bytes); });
}

void stream_safetensors(
    const std::filesystem::path& path, const std::vector<TensorSpec>& specs,
    const std::map<std::string, std::string>& metadata,
    const std::function<void(std::size_t, const std::function<void(std::span<const std::byte>)>&)>& make) {
  std::vector<std::size_t> order(specs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const int rank_a = dtype_rank(specs[a].dtype), rank_b = dtype_rank(specs[b].dtype);
    return rank_a != rank_b ? rank_a > rank_b : specs[a].name < specs[b].name;
  });
  std::vector<TensorSpec> ordered;
  for (const std::size_t i : order) {
    check_spec(specs[i]);
    if (!ordered.empty() && ordered.back().name == specs[i].name)
      fail(ErrorKind::kInternal, "tensor \"{}\" is written twice", specs[i].name);
    ordered.push_back(specs[i]);
  }
  const std::string header = make_header(ordered, metadata);
  write_file_atomic(path, [&](const std::filesystem::path& temporary) {
    struct Close {
      void operator()(std::FILE* open) const { std::fclose(open); }
    };
    const std::unique_ptr<std::FILE, Close> file(std::fopen(temporary.c_str(), "wb"));
    if (!file) fail(ErrorKind::kResource, "cannot create {}: {}", temporary.string(), std::strerror(errno));
    const std::uint64_t size = header.size();
    write_all(file.get(), &size, sizeof(size), path);
    write_all(file.get(), header.data(), header.size(), path);
    for (std::size_t i = 0; i < order.size(); ++i) {
      std::size_t written = 0;
      const std::size_t wanted = byte_size(ordered[i].dtype, *checked_elements(ordered[i].shape));
      make(order[i], [&](std::span<const std::byte> bytes) {
        write_all(file.get(), bytes.data(), bytes.size(), path);
        written += bytes.size();
      });
      if (written != wanted)
        fail(ErrorKind::kInternal, "tensor \"{}\": {} bytes were made, {} are needed", ordered[i].name, written,
             wanted);
    }
    if (std::fflush(file.get()) != 0)
      fail(ErrorKind::kResource, "cannot write {}: {}", path.string(), std::strerror(errno));
  });
}

}  // namespace llava
