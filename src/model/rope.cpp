#include "model/rope.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace llava {
namespace {

/// base^(2i/d) for the d/2 pairs; HF computes it in float32 from a double base.
at::Tensor powers(double base, std::int64_t dim) {
  return at::pow(at::Scalar(base), at::arange(0, dim, 2, at::kFloat) / static_cast<double>(dim));
}

RopeParameters linear_parameters(const DecoderConfig& c) {
  return {1.0 / powers(c.rope_theta, c.head_dim) / c.rope_scaling.factor, 1.0};
}

RopeParameters dynamic_parameters(const DecoderConfig& c, std::int64_t seq_len) {
  const auto trained = static_cast<double>(c.max_position_embeddings),
             dim = static_cast<double>(c.head_dim);
  const double len = std::max(static_cast<double>(seq_len), trained), factor = c.rope_scaling.factor;
  const double base = c.rope_theta * std::pow(factor * len / trained - (factor - 1), dim / (dim - 2));
  return {1.0 / powers(base, c.head_dim), 1.0};
}

double yarn_mscale(double scale, double mscale) {
  return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

double yarn_attention_factor(const RopeScaling& s) {
  if (s.attention_factor) return *s.attention_factor;
  if (s.mscale.value_or(0) != 0 && s.mscale_all_dim.value_or(0) != 0)
    return yarn_mscale(s.factor, *s.mscale) / yarn_mscale(s.factor, *s.mscale_all_dim);
  return yarn_mscale(s.factor, 1.0);
}

RopeParameters yarn_parameters(const DecoderConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  const auto dim = static_cast<double>(c.head_dim);
  const auto trained = static_cast<double>(
      s.original_max_position_embeddings ? s.original_max_position_embeddings : c.max_position_embeddings);
  // dimension at which the wave turns `rotations` times over the trained length
  const auto correction_dim = [&](double rotations) {
    return dim * std::log(trained / (rotations * 2 * std::numbers::pi)) / (2 * std::log(c.rope_theta));
  };
  double low = correction_dim(s.beta_fast), high = correction_dim(s.beta_slow);
  if (s.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  const at::Tensor ramp = ((at::arange(c.head_dim / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  const at::Tensor frequencies = powers(c.rope_theta, c.head_dim);
  const at::Tensor extrapolation = 1.0 / frequencies, interpolation = 1.0 / (s.factor * frequencies);
  const at::Tensor keep = 1 - ramp;
  return {interpolation * (1 - keep) + extrapolation * keep, yarn_attention_factor(s)};
}

RopeParameters llama3_parameters(const DecoderConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  const auto trained = static_cast<double>(
      s.original_max_position_embeddings ? s.original_max_position_embeddings : c.max_position_embeddings);
  const double low_wavelength = trained / s.low_freq_factor, high_wavelength = trained / s.high_freq_factor;
  const at::Tensor inv_freq = 1.0 / powers(c.rope_theta, c.head_dim);
  const at::Tensor wavelength = 2 * std::numbers::pi / inv_freq;
  at::Tensor scaled = at::where(wavelength > low_wavelength, inv_freq / s.factor, inv_freq);
  const at::Tensor smooth =
      (trained / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  const at::Tensor smoothed = (1 - smooth) * scaled / s.factor + smooth * scaled;
  const at::Tensor medium = (wavelength >= high_wavelength).logical_and(wavelength <= low_wavelength);
  return {at::where(medium, smoothed, scaled), 1.0};
}

}  // namespace

RopeParameters rope_parameters(const DecoderConfig& c, std::int64_t seq_len) {
  switch (c.rope_scaling.type) {
    case RopeType::kDefault:
      return {1.0 / powers(c.rope_theta, c.head_dim), 1.0};
    case RopeType::kLinear:
      return linear_parameters(c);
    case RopeType::kDynamic:
      return dynamic_parameters(c, seq_len);
    case RopeType::kYarn:
      return yarn_parameters(c);
    case RopeType::kLlama3:
      return llama3_parameters(c);
  }
  fail(ErrorKind::kInternal, "unknown rope type");
}

RopeTable Rope::table(const at::Tensor& positions, const at::Tensor& lengths) {
  const at::NoGradGuard no_grad;
  if (config_.rope_scaling.type == RopeType::kDynamic) return dynamic_table(positions, lengths);
  const std::int64_t needed = positions.max().item<std::int64_t>() + 1;
  LLAVA_ASSERT(positions.min().item<std::int64_t>() >= 0, "positions are not negative");
  if (!cos_.defined() || cos_.size(0) < needed || cos_.device() != positions.device())
    grow(needed, positions.device());
  const std::vector<std::int64_t> shape = {positions.size(0), positions.size(1), config_.head_dim / 2};
  const at::Tensor rows = positions.flatten();
  return {cos_.index_select(0, rows).view(shape), sin_.index_select(0, rows).view(shape)};
}

void Rope::grow(std::int64_t positions, const at::Device& device) {
  const c10::InferenceMode normal_tensors(false);
  std::int64_t size = 256;
  while (size < positions) size *= 2;
  const RopeParameters p = rope_parameters(config_, size);
  const at::Tensor angles = at::outer(at::arange(size, at::kFloat), p.inv_freq);
  cos_ = (angles.cos() * p.attention_scaling).to(device);
  sin_ = (angles.sin() * p.attention_scaling).to(device);
}

RopeTable Rope::dynamic_table(const at::Tensor& positions, const at::Tensor& lengths) const {
  const at::Tensor host = positions.cpu(), lens = lengths.defined() ? lengths.cpu() : at::Tensor();
  std::vector<at::Tensor> cos, sin;
  for (std::int64_t row = 0; row < host.size(0); ++row) {
    const std::int64_t real = lens.defined() ? lens[row].item<std::int64_t>() : host.size(1);
    const at::Tensor row_positions = host[row];
    const std::int64_t seq_len = row_positions.narrow(0, 0, real).max().item<std::int64_t>() + 1;
    const RopeParameters p = rope_parameters(config_, seq_len);
    const at::Tensor angles = at::outer(row_positions.to(at::kFloat), p.inv_freq);
    cos.push_back(angles.cos() * p.attention_scaling);
    sin.push_back(angles.sin() * p.attention_scaling);
  }
  return {at::stack(cos).to(positions.device()), at::stack(sin).to(positions.device())};
}

}  // namespace llava
