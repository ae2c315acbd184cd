#include "tensor/convert.h"

#include <fmt/ranges.h>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>

#include "base/error.h"

namespace llava {

namespace {

bool is_aligned(const TensorView& view) {
  return reinterpret_cast<std::uintptr_t>(view.bytes.data()) % block_bytes(view.dtype) == 0;
}

at::Tensor empty_cpu(at::IntArrayRef shape, c10::ScalarType type) {
  return at::empty(shape, at::TensorOptions().dtype(type).device(c10::kCPU));
}

/// The file's own memory as a tensor; `owner` lives as long as its storage.
at::Tensor wrap(const TensorView& view, std::shared_ptr<const TensorFile> owner) {
  const auto options = at::TensorOptions().dtype(scalar_type(view.dtype)).device(c10::kCPU);
  void* data = const_cast<std::byte*>(view.bytes.data());
  auto release = [owner = std::move(owner)](void*) {};
  if (view.strides.empty()) return at::from_blob(data, view.shape, std::move(release), options);
  return at::from_blob(data, view.shape, view.strides, std::move(release), options);
}

/// For records that are not aligned to their elements, which LibTorch's kernels may not be given.
at::Tensor copy_bytes(const TensorView& view) {
  at::Tensor storage = empty_cpu({static_cast<std::int64_t>(view.bytes.size() / block_bytes(view.dtype))},
                                 scalar_type(view.dtype));
  std::memcpy(storage.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return view.strides.empty() ? storage.view(view.shape) : storage.as_strided(view.shape, view.strides);
}

/// Rows in parallel; each piece passes through a float32 buffer that stays in the cache, so no second copy
/// of the whole tensor is made.
at::Tensor dequantise(const TensorView& view, c10::ScalarType wanted) {
  const std::int64_t columns = view.shape.back();
  const std::int64_t rows = view.num_elements() / columns;
  at::Tensor out = empty_cpu({rows, columns}, wanted);
  const std::int64_t chunk = std::max<std::int64_t>(1, 16384 / columns);
  at::parallel_for(0, (rows + chunk - 1) / chunk, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t first = piece * chunk, last = std::min(rows, first + chunk);
      const auto count = static_cast<std::size_t>((last - first) * columns);
      if (wanted == c10::ScalarType::Float) {
        to_float32_rows(view, first, last, {out.mutable_data_ptr<float>() + first * columns, count});
        continue;
      }
      std::vector<float> buffer(count);
      to_float32_rows(view, first, last, buffer);
      out.narrow(0, first, last - first)
          .copy_(at::from_blob(buffer.data(), {last - first, columns}, at::kFloat));
    }
  });
  return out.view(view.shape);
}

}  // namespace

bool is_in_place(const TensorView& view, c10::ScalarType wanted) {
  return !is_block_type(view.dtype) && scalar_type(view.dtype) == wanted && view.strides.empty() &&
         is_aligned(view);
}

at::Tensor to_tensor(const TensorView& view, std::shared_ptr<const TensorFile> owner,
                     c10::ScalarType wanted) {
  return with_context(fmt::format("tensor \"{}\"", view.name), [&]() -> at::Tensor {
    if (view.num_elements() == 0) return empty_cpu(view.shape, wanted);
    if (is_block_type(view.dtype)) return dequantise(view, wanted);
    if (is_in_place(view, wanted)) return wrap(view, std::move(owner));
    const at::Tensor stored = is_aligned(view) ? wrap(view, std::move(owner)) : copy_bytes(view);
    return stored.to(wanted, /*non_blocking=*/false, /*copy=*/is_aligned(view)).contiguous();
  });
}

at::Tensor to_tensor(const TensorView& view, std::shared_ptr<const TensorFile> owner) {
  const auto stored =
      with_context(fmt::format("tensor \"{}\"", view.name), [&] { return scalar_type(view.dtype); });
  return to_tensor(view, std::move(owner), stored);
}

std::string shape_text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

void check_shape(const at::Tensor& tensor, at::IntArrayRef shape, std::string_view what) {
  bool same = tensor.defined() && tensor.dim() == static_cast<std::int64_t>(shape.size());
  for (std::size_t i = 0; same && i < shape.size(); ++i)
    same = shape[i] == -1 || tensor.sizes()[i] == shape[i];
  if (!same)
    fail(ErrorKind::kInternal, "{}: expected shape {}, got {}", what, shape_text(shape),
         tensor.defined() ? shape_text(tensor.sizes()) : "an undefined tensor");
}

}  // namespace llava
