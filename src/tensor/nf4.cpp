#include "tensor/nf4.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/json.h"
#include "tensor/convert.h"
#include "tensor/dynamic_map.h"
#include "tensor/nf4_kernels.h"

namespace llava {

namespace {

constexpr std::int64_t kNestedBlock = 256;

at::Tensor values_tensor(const float* values, std::int64_t count, c10::Device device) {
  return at::tensor(at::ArrayRef<float>(values, static_cast<std::size_t>(count)), at::kFloat).to(device);
}

/// The plain rule in tensor operations, for devices without our loops: codes and scales.
void quantise_by_ops(const at::Tensor& weight, Nf4Matrix& matrix) {
  const at::Tensor flat = weight.flatten().to(at::kFloat);
  const std::int64_t n = flat.numel(), block = matrix.blocksize, blocks = (n + block - 1) / block;
  const at::Tensor padded = at::constant_pad_nd(flat, {0, blocks * block - n}).view({blocks, block});
  const at::Tensor most = padded.abs().amax(1), guarded = most.clamp_min(1e-38);
  at::Tensor scaled = padded * guarded.reciprocal().unsqueeze(1);
  matrix.absmax = most;
  if (n % block != 0) {
    scaled[-1].copy_(padded[-1] / guarded[-1]);
    matrix.absmax[-1].copy_(guarded[-1]);
  }
  const at::Tensor values = values_tensor(nf4_values().data(), 16, weight.device());
  const at::Tensor bounds = values.slice(0, 0, 15).add(values.slice(0, 1)).div(2);
  at::Tensor codes = at::bucketize(scaled.flatten().slice(0, 0, n), bounds, true).to(at::kByte);
  if (n % 2 != 0) codes = at::constant_pad_nd(codes, {0, 1}, 7);
  const at::Tensor pairs = codes.view({-1, 2});
  matrix.packed = pairs.select(1, 0).mul(16).add(pairs.select(1, 1)).unsqueeze(1);
}

void quantise_on_cpu(const at::Tensor& weight, Nf4Matrix& matrix) {
  const at::Tensor flat = weight.to(at::kFloat).contiguous();
  const std::int64_t n = flat.numel();
  matrix.packed = at::empty({(n + 1) / 2, 1}, at::kByte);
  matrix.absmax = at::empty({(n + matrix.blocksize - 1) / matrix.blocksize}, at::kFloat);
  nf4::quantise(flat.const_data_ptr<float>(), n, matrix.blocksize, matrix.absmax.mutable_data_ptr<float>(),
                matrix.packed.mutable_data_ptr<std::uint8_t>());
}

/// Scales become codes; made on the CPU, they are few.
void nest_scales(Nf4Matrix& matrix) {
  const c10::Device device = matrix.absmax.device();
  matrix.offset = matrix.absmax.mean();
  const at::Tensor centred = (matrix.absmax - matrix.offset).cpu().contiguous();
  const std::int64_t n = centred.numel();
  at::Tensor nested = at::empty({(n + kNestedBlock - 1) / kNestedBlock}, at::kFloat);
  at::Tensor codes = at::empty({n}, at::kByte);
  nf4::quantise_scales(centred.const_data_ptr<float>(), n, nested.mutable_data_ptr<float>(),
                       codes.mutable_data_ptr<std::uint8_t>());
  matrix.nested_absmax = nested.to(device);
  matrix.absmax = codes.to(device);
}

at::Tensor float_scales(const Nf4Matrix& matrix) {
  if (!matrix.is_nested()) return matrix.absmax;
  const at::Tensor map = values_tensor(dynamic_map_values().data(), 256, matrix.absmax.device());
  const at::Tensor scale = matrix.nested_absmax.repeat_interleave(kNestedBlock);
  return map.index_select(0, matrix.absmax.to(at::kLong)) * scale.slice(0, 0, matrix.absmax.numel()) +
         matrix.offset;
}

std::uint16_t round_bfloat16(float x) { return c10::BFloat16(x).x; }
std::uint16_t round_float16(float x) { return c10::Half(x).x; }

at::Tensor dequantise_on_cpu(const Nf4Matrix& matrix) {
  at::Tensor out = at::empty(matrix.shape, matrix.dtype);
  const at::Tensor scales = float_scales(matrix).contiguous();
  const std::int64_t n = out.numel(), block = matrix.blocksize;
  const auto* packed = matrix.packed.const_data_ptr<std::uint8_t>();
  const auto* absmax = scales.const_data_ptr<float>();
  if (matrix.dtype == at::kFloat) {
    nf4::dequantise(packed, absmax, n, block, out.mutable_data_ptr<float>());
  } else {
    nf4::dequantise(packed, absmax, n, block,
                    matrix.dtype == at::kBFloat16 ? round_bfloat16 : round_float16,
                    static_cast<std::uint16_t*>(out.mutable_data_ptr()));
  }
  return out;
}

at::Tensor dequantise_by_ops(const Nf4Matrix& matrix) {
  const at::Tensor values = values_tensor(nf4_values().data(), 16, matrix.packed.device());
  const at::Tensor bytes = matrix.packed.flatten();
  const at::Tensor codes = at::stack({bytes.bitwise_right_shift(4), bytes.bitwise_and(15)}, 1).flatten();
  const std::int64_t n = matrix.num_elements(), blocks = matrix.absmax.numel();
  const at::Tensor numbers = values.index_select(0, codes.slice(0, 0, n).to(at::kInt));
  const at::Tensor padded = at::constant_pad_nd(numbers, {0, blocks * matrix.blocksize - n});
  const at::Tensor scaled = padded.view({blocks, matrix.blocksize}) * float_scales(matrix).unsqueeze(1);
  return scaled.flatten().slice(0, 0, n).view(matrix.shape).to(matrix.dtype);
}

at::Tensor text_tensor(const std::string& text) {
  at::Tensor bytes = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
  std::copy(text.begin(), text.end(), static_cast<char*>(bytes.mutable_data_ptr()));
  return bytes;
}

}  // namespace

std::int64_t Nf4Matrix::num_elements() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::size_t Nf4Matrix::num_bytes() const {
  return packed.nbytes() + absmax.nbytes() + (is_nested() ? nested_absmax.nbytes() + 4 : 0);
}

Nf4Matrix quantise_nf4(const at::Tensor& weight, bool double_quant, std::int64_t blocksize) {
  const at::NoGradGuard no_grad;
  LLAVA_ASSERT(weight.is_floating_point() && weight.numel() > 0, "4-bit codes are of floating-point matrices");
  LLAVA_ASSERT(blocksize >= 32 && blocksize <= 4096 && (blocksize & (blocksize - 1)) == 0,
               "blocks of 32 to 4096, a power of two");
  Nf4Matrix matrix;
  matrix.shape = weight.sizes().vec();
  matrix.dtype = weight.scalar_type();
  matrix.blocksize = blocksize;
  if (weight.is_cpu()) {
    quantise_on_cpu(weight, matrix);
  } else {
    quantise_by_ops(weight, matrix);
  }
  if (double_quant) nest_scales(matrix);
  return matrix;
}

at::Tensor dequantise_nf4(const Nf4Matrix& matrix, c10::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const bool here = matrix.packed.is_cpu();
  return (here ? dequantise_on_cpu(matrix) : dequantise_by_ops(matrix)).to(dtype);
}

std::vector<std::pair<std::string, at::Tensor>> nf4_state(const Nf4Matrix& matrix, const std::string& name) {
  OrderedJson facts = {{"quant_type", "nf4"},
                       {"blocksize", matrix.blocksize},
                       {"dtype", dtype_name(matrix.dtype)},
                       {"shape", matrix.shape}};
  std::vector<std::pair<std::string, at::Tensor>> state = {
      {name, matrix.packed},
      {name + ".absmax", matrix.absmax},
      {name + ".quant_map", values_tensor(nf4_values().data(), 16, c10::kCPU)}};
  if (matrix.is_nested()) {
    state.emplace_back(name + ".nested_absmax", matrix.nested_absmax);
    state.emplace_back(name + ".nested_quant_map", values_tensor(dynamic_map_values().data(), 256, c10::kCPU));
    facts["nested_blocksize"] = kNestedBlock;
    facts["nested_dtype"] = "float32";
    facts["nested_offset"] = static_cast<double>(matrix.offset.item<float>());
  }
  state.emplace_back(name + ".quant_state.bitsandbytes__nf4", text_tensor(facts.dump()));
  return state;
}

const std::array<float, 16>& nf4_values() {
  static constexpr std::array<float, 16> kValues = {
      -1.0F,
      -0.6961928009986877F,
      -0.5250730514526367F,
      -0.39491748809814453F,
      -0.28444138169288635F,
      -0.18477343022823334F,
      -0.09105003625154495F,
      0.0F,
      0.07958029955625534F,
      0.16093020141124725F,
      0.24611230194568634F,
      0.33791524171829224F,
      0.44070982933044434F,
      0.5626170039176941F,
      0.7229568362236023F,
      1.0F};
  return kValues;
}

const std::array<float, 256>& dynamic_map_values() {
  static const auto values = [] {
    std::array<float, 256> map{};
    const at::Tensor from = dynamic_map(true).contiguous();
    std::copy_n(from.const_data_ptr<float>(), map.size(), map.begin());
    return map;
  }();
  return values;
}

}  // namespace llava
