#include "tensor/dynamic_map.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace llava {
namespace {

at::Tensor make_map(bool with_sign) {
  std::vector<float> values = {0.0F, 1.0F};
  for (int e = 0; e < 7; ++e) {
    const int bins = 1 << (with_sign ? e : e + 1);
    const at::Tensor borders = at::linspace(0.1, 1.0, bins + 1, at::kFloat);
    const at::Tensor centres = (borders.slice(0, 0, bins) + borders.slice(0, 1)) / 2.0;
    const at::Tensor scaled = centres * std::pow(10.0, e - 6);
    for (int i = 0; i < bins; ++i) {
      const float value = scaled[i].item<float>();
      values.push_back(value);
      if (with_sign) values.push_back(-value);
    }
  }
  std::sort(values.begin(), values.end());
  LLAVA_ASSERT(values.size() == 256, "a code for each byte");
  return at::tensor(values, at::kFloat);
}

at::Tensor in_blocks(const at::Tensor& x, std::int64_t block) {
  const std::int64_t rest = x.numel() % block;
  const at::Tensor whole = rest == 0 ? x : at::constant_pad_nd(x, {0, block - rest});
  return whole.view({-1, block});
}

}  // namespace

const at::Tensor& dynamic_map(bool with_sign) {
  static const at::Tensor maps[] = {make_map(false), make_map(true)};
  return maps[with_sign ? 1 : 0];
}

Blockwise8 quantise_blockwise8(const at::Tensor& x, bool with_sign, std::int64_t block) {
  const at::NoGradGuard no_grad;
  const at::Tensor& map = dynamic_map(with_sign);
  const at::Tensor borders = ((map.slice(0, 0, 255) + map.slice(0, 1)) / 2.0).to(x.device());
  const at::Tensor rows = in_blocks(x, block);
  const at::Tensor absmax = std::get<0>(rows.abs().max(1));
  const at::Tensor unit = rows / absmax.clamp_min(1e-38).unsqueeze(1);
  const at::Tensor codes = at::bucketize(unit, borders, /*out_int32=*/true).to(at::kByte);
  return {codes.flatten().slice(0, 0, x.numel()).contiguous(), absmax};
}

at::Tensor dequantise_blockwise8(const Blockwise8& q, bool with_sign, std::int64_t block) {
  const at::NoGradGuard no_grad;
  const at::Tensor map = dynamic_map(with_sign).to(q.codes.device());
  const at::Tensor unit = map.index_select(0, q.codes.to(at::kInt));
  return in_blocks(unit, block).mul(q.absmax.unsqueeze(1)).flatten().slice(0, 0, q.codes.numel());
}

}  // namespace llava
