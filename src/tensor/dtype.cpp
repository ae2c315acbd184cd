#include <ATen/Context.h>

#include <charconv>

#include "base/error.h"
#include "tensor/convert.h"

namespace llava {

namespace {

struct DTypePair {
  DType stored;
  c10::ScalarType type;
};
// clang-format off
constexpr DTypePair kPairs[] = {
    {DType::kF64, c10::ScalarType::Double}, {DType::kF32, c10::ScalarType::Float}, {DType::kF16, c10::ScalarType::Half},
    {DType::kBF16, c10::ScalarType::BFloat16}, {DType::kI64, c10::ScalarType::Long}, {DType::kI32, c10::ScalarType::Int},
    {DType::kI16, c10::ScalarType::Short}, {DType::kI8, c10::ScalarType::Char}, {DType::kU8, c10::ScalarType::Byte},
    {DType::kBool, c10::ScalarType::Bool}, {DType::kU64, c10::ScalarType::UInt64}, {DType::kU32, c10::ScalarType::UInt32},
    {DType::kU16, c10::ScalarType::UInt16},
};

struct NamedType {
  std::string_view name;
  c10::ScalarType type;
};
/// The first name of a type is the one we print.
constexpr NamedType kNames[] = {
    {"float32", c10::ScalarType::Float}, {"fp32", c10::ScalarType::Float}, {"f32", c10::ScalarType::Float},
    {"float", c10::ScalarType::Float}, {"bfloat16", c10::ScalarType::BFloat16}, {"bf16", c10::ScalarType::BFloat16},
    {"float16", c10::ScalarType::Half}, {"fp16", c10::ScalarType::Half}, {"f16", c10::ScalarType::Half},
    {"half", c10::ScalarType::Half}, {"float64", c10::ScalarType::Double}, {"fp64", c10::ScalarType::Double},
    {"f64", c10::ScalarType::Double}, {"double", c10::ScalarType::Double},
};
// clang-format on

c10::Device cuda_device(std::string_view name, std::size_t index) {
  if (!at::hasCUDA())
    throw Error(
        ErrorKind::kInput,
        fmt::format("--device {}: there is no usable NVIDIA GPU, or this LibTorch was built without CUDA",
                    name),
        "use --device cpu, or build against a CUDA LibTorch on a machine whose driver works (nvidia-smi)");
  const std::size_t count = at::getNumGPUs();
  if (index >= count)
    fail(ErrorKind::kInput, "--device {}: there are {} CUDA devices, numbered from 0", name, count);
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

}  // namespace

c10::ScalarType scalar_type(DType dtype) {
  if (is_block_type(dtype)) return c10::ScalarType::Float;
  for (const DTypePair& pair : kPairs)
    if (pair.stored == dtype) return pair.type;
  fail(ErrorKind::kUnsupported, "dtype {} cannot be computed with", to_string(dtype));
}

DType dtype_of(c10::ScalarType type) {
  for (const DTypePair& pair : kPairs)
    if (pair.type == type) return pair.stored;
  fail(ErrorKind::kUnsupported, "a file cannot hold tensors of dtype {}", c10::toString(type));
}

c10::ScalarType dtype_from_string(std::string_view name) {
  std::string_view bare = name;
  if (bare.starts_with("torch.")) bare.remove_prefix(6);
  for (const NamedType& known : kNames)
    if (known.name == bare) return known.type;
  fail(ErrorKind::kUsage,
       "unknown dtype \"{}\"; known are float32 (fp32), bfloat16 (bf16), float16 (fp16), float64", name);
}

std::string dtype_name(c10::ScalarType type) {
  for (const NamedType& known : kNames)
    if (known.type == type) return std::string(known.name);
  return c10::toString(type);
}

c10::Device device_from_string(std::string_view name) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  if (name == "auto") return at::hasCUDA() ? c10::Device(c10::kCUDA, 0) : c10::Device(c10::kCPU);
  if (name == "cuda") return cuda_device(name, 0);
  if (name.starts_with("cuda:")) {
    const std::string_view digits = name.substr(5);
    unsigned index = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error == std::errc() && end == digits.data() + digits.size()) return cuda_device(name, index);
  }
  fail(ErrorKind::kUsage, "unknown device \"{}\"; known are cpu, cuda, cuda:N, auto", name);
}

}  // namespace llava
