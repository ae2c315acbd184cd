#include <cstring>

#include "base/error.h"
#include "formats/dequantize.h"
#include "formats/mapped_tensor_file.h"

namespace llava {

namespace {

/// Reads elements of type T at any alignment; `convert` makes the float.
template <class T, class Convert>
void convert_run(const std::byte* data, std::int64_t count, std::int64_t stride, float* out,
                 Convert convert) {
  const auto step = static_cast<std::size_t>(stride) * sizeof(T);
  for (std::int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, data + static_cast<std::size_t>(i) * step, sizeof(T));
    out[i] = convert(value);
  }
}

template <class T, class Convert>
void convert_strided(const std::byte* data, std::int64_t count, std::int64_t stride, float* out,
                     Convert convert) {
  // A constant stride of one is what the compiler can vectorise.
  if (stride == 1)
    convert_run<T>(data, count, 1, out, convert);
  else
    convert_run<T>(data, count, stride, out, convert);
}

template <class T>
void cast_strided(const std::byte* data, std::int64_t count, std::int64_t stride, float* out) {
  convert_strided<T>(data, count, stride, out, [](T value) { return static_cast<float>(value); });
}

/// `count` elements of `dtype`, `stride` elements apart.
void convert_elements(const TensorView& view, const std::byte* data, std::int64_t count,
                      std::int64_t stride, float* out) {
  switch (view.dtype) {
    case DType::kF64:
      return cast_strided<double>(data, count, stride, out);
    case DType::kF32:
      return cast_strided<float>(data, count, stride, out);
    case DType::kF16:
      return convert_strided<std::uint16_t>(data, count, stride, out, f16_to_float);
    case DType::kBF16:
      return convert_strided<std::uint16_t>(data, count, stride, out, bf16_to_float);
    case DType::kI64:
      return cast_strided<std::int64_t>(data, count, stride, out);
    case DType::kI32:
      return cast_strided<std::int32_t>(data, count, stride, out);
    case DType::kI16:
      return cast_strided<std::int16_t>(data, count, stride, out);
    case DType::kI8:
      return cast_strided<std::int8_t>(data, count, stride, out);
    case DType::kU64:
      return cast_strided<std::uint64_t>(data, count, stride, out);
    case DType::kU32:
      return cast_strided<std::uint32_t>(data, count, stride, out);
    case DType::kU16:
      return cast_strided<std::uint16_t>(data, count, stride, out);
    case DType::kU8:
      return cast_strided<std::uint8_t>(data, count, stride, out);
    case DType::kBool:
      return convert_strided<std::uint8_t>(data, count, stride, out,
                                           [](std::uint8_t value) { return value != 0 ? 1.0F : 0.0F; });
    default:
      fail(ErrorKind::kUnsupported, "tensor \"{}\": {} cannot be converted to float32", view.name,
           to_string(view.dtype));
  }
}

/// Offset in elements of row `row` of a strided view, whose rows are counted row-major.
std::int64_t row_offset(const TensorView& view, std::int64_t row) {
  std::int64_t offset = 0;
  for (std::size_t axis = view.shape.size() - 1; axis-- > 0;) {
    offset += row % view.shape[axis] * view.strides[axis];
    row /= view.shape[axis];
  }
  return offset;
}

}  // namespace

void to_float32(const TensorView& view, std::span<float> out) {
  const std::int64_t columns = view.shape.empty() ? 1 : view.shape.back();
  to_float32_rows(view, 0, columns == 0 ? 0 : view.num_elements() / columns, out);
}

void to_float32_rows(const TensorView& view, std::int64_t begin, std::int64_t end, std::span<float> out) {
  const std::int64_t columns = view.shape.empty() ? 1 : view.shape.back();
  const std::int64_t rows = columns == 0 ? 0 : view.num_elements() / columns;
  LLAVA_ASSERT(0 <= begin && begin <= end && end <= rows, "rows out of range");
  LLAVA_ASSERT(out.size() == static_cast<std::size_t>((end - begin) * columns),
               "the output has another size");
  if (out.empty()) return;
  if (is_block_type(view.dtype)) {
    const auto row_blocks = static_cast<std::size_t>(columns / block_elements(view.dtype));
    const std::byte* data =
        view.bytes.data() + static_cast<std::size_t>(begin) * row_blocks * block_bytes(view.dtype);
    return dequantize_blocks(view.dtype, data, static_cast<std::size_t>(end - begin) * row_blocks,
                             out.data());
  }
  const std::size_t size = block_bytes(view.dtype);
  if (view.strides.empty()) {
    const std::byte* data = view.bytes.data() + static_cast<std::size_t>(begin * columns) * size;
    return convert_elements(view, data, (end - begin) * columns, 1, out.data());
  }
  for (std::int64_t row = begin; row < end; ++row) {
    const std::byte* data = view.bytes.data() + static_cast<std::size_t>(row_offset(view, row)) * size;
    convert_elements(view, data, columns, view.strides.back(), out.data() + (row - begin) * columns);
  }
}

}  // namespace llava
