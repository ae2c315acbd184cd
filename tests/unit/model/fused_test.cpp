// One-pass operations against the plain formula in double precision, and 8-bit products.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"
#include "model/fused.h"
#include "model/ops.h"
#include "model_golden.h"
#include "toy_model.h"

namespace llava::test {
namespace {

at::Tensor normal(std::initializer_list<std::int64_t> shape, std::uint64_t seed, double scale = 1) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn(shape, generator) * scale;
}

/// Values and gradients of `found` on float32 inputs against `plain` on the same inputs in double
/// precision.
template <class F, class G>
void expect_same(std::vector<at::Tensor> inputs, const F& found, const G& plain, double tolerance) {
  std::vector<at::Tensor> wide;
  for (at::Tensor& x : inputs) {
    wide.push_back(x.to(at::kDouble).requires_grad_(true));
    x.requires_grad_(true);
  }
  const at::Tensor y = found(inputs), expected = plain(wide);
  EXPECT_LE(max_abs_diff(y, expected), tolerance * (1 + expected.abs().max().item<double>()));
  const at::Tensor direction = at::cos(at::arange(y.numel(), at::kDouble)).view(y.sizes());
  const auto gradients = torch::autograd::grad({(y * direction.to(at::kFloat)).sum()}, inputs);
  const auto wanted = torch::autograd::grad({(expected * direction).sum()}, wide);
  for (std::size_t i = 0; i < inputs.size(); ++i)
    EXPECT_LE(max_abs_diff(gradients[i], wanted[i]), tolerance * (1 + wanted[i].abs().max().item<double>()))
        << i;
}

TEST(Fused, RmsNormIsTheFormulaForAnyWidth) {
  for (const std::int64_t width : {1, 7, 16, 50, 576}) {
    const at::Tensor weight = normal({width}, 2);
    expect_same(
        {normal({3, 5, width}, 1, 3)}, [&](const auto& in) { return rms_norm(in[0], weight, 1e-5); },
        [&](const auto& in) {
          const at::Tensor& x = in[0];
          return x / (x.square().mean(-1, true) + 1e-5).sqrt() * weight;
        },
        1e-5);
  }
}

TEST(Fused, GatedSiluIsTheFormulaFarFromZeroToo) {
  at::Tensor gate = normal({4, 37}, 3, 4);
  gate[0].slice(0, 0, 6).copy_(at::tensor({-200.0F, -90.0F, -1e-30F, 0.0F, 90.0F, 1e4F}));
  expect_same(
      {gate, normal({4, 37}, 4)}, [](const auto& in) { return gated(in[0], in[1], Activation::kSilu); },
      [](const auto& in) { return in[0] * at::sigmoid(in[0]) * in[1]; }, 1e-6);
}

TEST(Fused, RotationIsTheFormulaAndItsGradientTurnsBack) {
  const at::Tensor angle = normal({2, 3, 4}, 5, 2), cos = angle.cos(), sin = angle.sin();
  expect_same(
      {normal({2, 3, 5, 8}, 6)}, [&](const auto& in) { return rotate(in[0], cos, sin); },
      [&](const auto& in) {
        const auto halves = in[0].chunk(2, -1);
        const at::Tensor c = cos.unsqueeze(2), s = sin.unsqueeze(2);
        return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1);
      },
      1e-6);
}

TEST(Fused, NotANumberStaysNotANumber) {
  at::Tensor x = normal({2, 20}, 7);
  x[0][3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(rms_norm(x, at::ones({20}), 1e-5)[0].isnan().all().item<bool>());
  EXPECT_TRUE(gated(x, x, Activation::kSilu)[0][3].isnan().item<bool>());
  EXPECT_FALSE(gated(x, x, Activation::kSilu)[1].isnan().any().item<bool>());
  const at::Tensor y = fused::int8_linear(x, fused::quantise(normal({16, 20}, 8)), {});
  EXPECT_TRUE(y[0].isnan().all().item<bool>());
  EXPECT_FALSE(y[1].isnan().any().item<bool>());
}

TEST(Int8, RoundsEachRowToTheNearestOf255Steps) {
  at::Tensor weight = normal({5, 33}, 9);
  weight[2].zero_();
  const Int8Matrix matrix = fused::quantise(weight);
  const at::Tensor back = matrix.values.to(at::kFloat) * matrix.scales.unsqueeze(1);
  EXPECT_TRUE((back - weight).abs().le(matrix.scales.unsqueeze(1) * 0.5001).all().item<bool>());
  EXPECT_EQ(matrix.values.abs().amax(1).to(at::kInt).sum().item<int>(), 4 * 127);
  EXPECT_EQ(back[2].abs().max().item<float>(), 0.0F);
}

TEST(Int8, ProductAndGradientAreThoseOfTheRoundedOperands) {
  const at::Tensor x = normal({2, 11, 48}, 10), weight = normal({40, 48}, 11), bias = normal({40}, 12);
  const Int8Matrix matrix = fused::quantise(weight);
  const at::Tensor rounded = matrix.values.to(at::kDouble) * matrix.scales.unsqueeze(1);
  const auto round_rows = [](const at::Tensor& a) {
    const at::Tensor scale = a.abs().amax(-1, true) / 127;
    return (a / scale).round() * scale;
  };
  at::Tensor input = x.clone().requires_grad_(true);
  const at::Tensor y = fused::int8_linear(input, matrix, bias);
  EXPECT_LE(max_abs_diff(y, at::matmul(round_rows(x).to(at::kDouble), rounded.t()) + bias), 1e-4);
  const at::Tensor plain = at::linear(x, weight, bias);
  EXPECT_LE(((y - plain).norm() / plain.norm()).item<double>(), 0.02);
  const at::Tensor direction = normal({2, 11, 40}, 13);
  const at::Tensor gradient = torch::autograd::grad({(y * direction).sum()}, {input})[0];
  const at::Tensor expected =
      round_rows(direction * matrix.scales).to(at::kDouble).matmul(matrix.values.to(at::kDouble));
  EXPECT_LE(max_abs_diff(gradient, expected), 1e-4);
  const at::Tensor exact = direction.matmul(weight);
  EXPECT_LE(((gradient - exact).norm() / exact.norm()).item<double>(), 0.02);
}

TEST(Int8, ReplacesFrozenDecoderProductsOnlyAndCanBeTakenBack) {
  const auto model = toy_model(toy_config());
  for (auto& p : model->parameters())
    p.tensor.requires_grad_(p.name.ends_with("layers.1.mlp.up_proj.weight"));
  const MultimodalBatch batch =
      batch_of_rows({at::tensor({79, 79, 79, 79, 5, 6, 7, 8})}, normal({1, 3, 28, 28}, 14), 79);
  const at::Tensor features = model->encode_vision(batch.pixels), plain = full_logits(*model, batch);
  model->set_frozen_compute(FrozenCompute::kInt8);
  EXPECT_TRUE(at::equal(model->encode_vision(batch.pixels), features));
  const at::Tensor rounded = full_logits(*model, batch);
  EXPECT_GT(max_abs_diff(rounded, plain), 0);
  EXPECT_LE(((rounded - plain).norm() / plain.norm()).item<double>(), 0.05);
  const at::Tensor loss = model->decode(model->embed(batch), batch).sum();
  for (auto& p : model->parameters())
    if (p.tensor.requires_grad()) {
      EXPECT_GT(torch::autograd::grad({loss}, {p.tensor})[0].abs().max().item<double>(), 0);
    }
  model->set_frozen_compute(FrozenCompute::kModel);
  EXPECT_TRUE(at::equal(full_logits(*model, batch), plain));
  LoadOptions half;
  half.dtype = c10::ScalarType::BFloat16;
  EXPECT_THROW(random_model(toy_config(), 1, half)->set_frozen_compute(FrozenCompute::kInt8), Error);
}

}  // namespace
}  // namespace llava::test
