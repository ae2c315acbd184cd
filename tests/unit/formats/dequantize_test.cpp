#include "formats/dequantize.h"

#include <cmath>

#include "formats_test_support.h"

namespace llava {
namespace {

TEST(HalfToFloat, IsExactForEveryBitPattern) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = (bits >> 10) & 31;
    const int mantissa = bits & 1023;
    const float sign = (bits & 0x8000) != 0 ? -1.0F : 1.0F;
    const float actual = f16_to_float(static_cast<std::uint16_t>(bits));
    if (exponent == 31 && mantissa != 0) {
      EXPECT_TRUE(std::isnan(actual)) << bits;
      EXPECT_EQ((std::bit_cast<std::uint32_t>(actual) >> 13) & 1023, std::uint32_t(mantissa)) << "payload";
      continue;
    }
    const float magnitude = exponent == 31  ? INFINITY
                            : exponent == 0 ? std::ldexp(float(mantissa), -24)
                                            : std::ldexp(float(1024 + mantissa), exponent - 25);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(actual), std::bit_cast<std::uint32_t>(sign * magnitude)) << bits;
  }
}

TEST(BrainToFloat, ShiftsTheBits) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits)
    ASSERT_EQ(std::bit_cast<std::uint32_t>(bf16_to_float(static_cast<std::uint16_t>(bits))), bits << 16);
}

TEST(Dequantize, EqualsNumpyReferenceBitForBit) {
  LLAVA_GOLDEN_OR_SKIP(model, "gguf/types.gguf");
  LLAVA_GOLDEN_OR_SKIP(reference, "gguf/types_expected.safetensors");
  const auto file = open_gguf(model);
  const auto expected = open_safetensors(reference);
  ASSERT_EQ(file->tensors().size(), 19U);
  ASSERT_EQ(expected->tensors().size(), 19U);
  for (const TensorView& view : file->tensors()) {
    const TensorView* other = expected->find(view.name);
    ASSERT_NE(other, nullptr) << view.name;
    test::expect_same_floats(view, *other);
  }
}

TEST(Dequantize, RowsEqualTheWhole) {
  LLAVA_GOLDEN_OR_SKIP(model, "gguf/types.gguf");
  const auto file = open_gguf(model);
  for (const TensorView& view : file->tensors()) {
    const std::vector<float> whole = test::floats(view);
    const std::int64_t columns = view.shape.back(), rows = view.num_elements() / columns;
    std::vector<float> parts;
    for (std::int64_t row = 0; row < rows; ++row) {
      std::vector<float> part(static_cast<std::size_t>(columns));
      to_float32_rows(view, row, row + 1, part);
      parts.insert(parts.end(), part.begin(), part.end());
    }
    EXPECT_TRUE(test::same_bits(parts, whole)) << view.name;
  }
}

TEST(Dequantize, RefusesWrongRangesAndOutputs) {
  const std::vector<float> values(6);
  const TensorView view{"w", DType::kF32, {2, 3}, {}, test::bytes_of(values)};
  std::vector<float> out(6);
  test::expect_error(ErrorKind::kInternal, {"rows out of range"},
                     [&] { to_float32_rows(view, 1, 3, out); });
  test::expect_error(ErrorKind::kInternal, {"another size"}, [&] { to_float32_rows(view, 0, 1, out); });
}

TEST(Dequantize, NamesTensorsWithoutArithmetic) {
  const std::vector<std::uint8_t> values(4);
  const TensorView view{"w8", DType::kF8_E4M3, {4}, {}, test::bytes_of(values)};
  std::vector<float> out(4);
  test::expect_error(ErrorKind::kUnsupported, {"w8", "F8_E4M3"}, [&] { to_float32(view, out); });
}

TEST(ByteSize, ChecksBlocksAndOverflow) {
  EXPECT_EQ(byte_size(DType::kBF16, 7), 14U);
  EXPECT_EQ(byte_size(DType::kQ6_K, 512), 420U);
  test::expect_error(ErrorKind::kFormat, {"33", "Q4_0"}, [] { byte_size(DType::kQ4_0, 33); });
  test::expect_error(ErrorKind::kFormat, {"too many"},
                     [] { byte_size(DType::kF64, std::int64_t{1} << 61); });
}

}  // namespace
}  // namespace llava
