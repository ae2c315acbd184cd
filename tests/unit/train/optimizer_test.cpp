#include "train/optimizer.h"

#include <torch/torch.h>

#include "base/error.h"
#include "formats/tensor_file.h"
#include "support/golden.h"
#include "tensor/convert.h"
#include "tensor/dynamic_map.h"

namespace llava {
namespace {

/// Runs the golden's gradients through a rule and returns the largest difference from the peer's end, relative
/// to weights above 1.
class OptimizerGolden : public ::testing::Test {
 protected:
  void SetUp() override {
    LLAVA_GOLDEN_OR_SKIP(path, "train/optimizers.safetensors");
    file_ = open_safetensors(path);
  }
  at::Tensor read(const std::string& name) const {
    const TensorView* view = file_->find(name);
    EXPECT_NE(view, nullptr) << name;
    return to_tensor(*view, file_).to(at::kFloat).clone();
  }
  double worst(const std::string& peer, OptimConfig config, bool matrix_only = false) const {
    config.weight_decay = {{"", 0.1}}, config.max_grad_norm = 0;
    double worst = 0;
    for (const std::string name : {"matrix", "vector"}) {
      if (matrix_only && name != "matrix") continue;
      const at::Tensor weight = read("start." + name), grads = read("grads." + name);
      Optimizer optimizer({{name, weight}}, {{"", 1e-2}}, config);
      for (std::int64_t step = 0; step < grads.size(0); ++step) {
        weight.mutable_grad() = grads[step].clone();
        optimizer.collect_gradients();
        optimizer.step(1.0, 0.0);
      }
      EXPECT_GT((weight - read("start." + name)).abs().max().item<double>(), 1e-3) << "it moves";
      const at::Tensor peers = read(peer + "." + name);
      const at::Tensor miss = (weight - peers).abs() / peers.abs().clamp_min(1);
      worst = std::max(worst, miss.max().item<double>());
    }
    return worst;
  }
  std::shared_ptr<const TensorFile> file_;
};

TEST_F(OptimizerGolden, AdamWEqualsTorchs) { EXPECT_LE(worst("adamw", {}), 1e-6); }
TEST_F(OptimizerGolden, AdafactorEqualsTransformers) {
  EXPECT_LE(worst("adafactor", {.name = OptimizerKind::kAdafactor}), 1e-6);
}
TEST_F(OptimizerGolden, LionEqualsItsPaper) {
  EXPECT_LE(worst("lion", {.name = OptimizerKind::kLion, .betas = {0.9, 0.99}}), 1e-6);
}
TEST_F(OptimizerGolden, MuonEqualsTorchs) {
  EXPECT_LE(worst("muon", {.name = OptimizerKind::kMuon}, true), 1e-6);
  EXPECT_LE(worst("muon_original",
                  {.name = OptimizerKind::kMuon, .adjust_lr = MuonScale::kOriginal}, true),
            1e-6);
}
TEST_F(OptimizerGolden, SgdEqualsTorchs) {
  EXPECT_LE(worst("sgd", {.name = OptimizerKind::kSgd, .momentum = 0.9}), 1e-6);
}
TEST_F(OptimizerGolden, EightBitAdamWEqualsTheSameInTorch) {
  EXPECT_LE(worst("adamw_8bit", {.name = OptimizerKind::kAdamW8bit}), 1e-6);
}

TEST(DynamicMap, HasTheKnownEndsAndNoMinusOne) {
  const at::Tensor& map = dynamic_map(true);
  EXPECT_FLOAT_EQ(map[0].item<float>(), -0.99296875F);
  EXPECT_FLOAT_EQ(map[255].item<float>(), 1.0F);
  EXPECT_TRUE((map.slice(0, 1) > map.slice(0, 0, 255)).all().item<bool>());
  EXPECT_EQ(dynamic_map(false)[0].item<float>(), 0.0F);
}

TEST(Blockwise8, KeepsValuesWithinTheMapsStepsInShortLastBlocksToo) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({1000}) * at::logspace(-6, 0, 1000);
  const at::Tensor back = dequantise_blockwise8(quantise_blockwise8(x, true), true);
  ASSERT_EQ(back.sizes(), x.sizes());
  const at::Tensor scale = quantise_blockwise8(x, true).absmax.repeat_interleave(256).slice(0, 0, 1000);
  EXPECT_LE(((back - x).abs() / scale).max().item<double>(), 0.0071) << "half a bin of the top exponent";
  EXPECT_EQ(dequantise_blockwise8(quantise_blockwise8(at::zeros({300}), true), true).abs().max().item<float>(),
            0.0F);
}

TEST(EightBitAdamW, TakesAboutTwoBytesAParameterAndFollowsAdamW) {
  const auto losses = [](OptimizerKind kind) {
    at::manual_seed(5);
    const at::Tensor target = at::randn({128, 128}), weight = at::zeros({128, 128});
    Optimizer optimizer({{"w", weight}}, {{"", 1e-2}}, {.name = kind, .max_grad_norm = 0.0});
    if (kind == OptimizerKind::kAdamW8bit) {
      EXPECT_LE(optimizer.state_bytes(), 2.1 * 128 * 128);
    }
    double loss = 0;
    for (int step = 0; step < 200; ++step) {  // classes drawn from a linear model: the best loss is not 0
      const at::Tensor x = at::randn({64, 128});
      const at::Tensor label = at::multinomial(at::softmax(at::mm(x, target) * 0.2, 1), 1);
      const at::Tensor log_probs = at::log_softmax(at::mm(x, weight), 1);
      loss = -log_probs.gather(1, label).mean().item<double>();
      at::Tensor d = log_probs.exp();
      d.scatter_add_(1, label, at::full({64, 1}, -1.0));
      weight.mutable_grad() = at::mm(x.t(), d) / 64;
      optimizer.collect_gradients();
      optimizer.step(1.0, 0.0);
    }
    return loss;
  };
  const double exact = losses(OptimizerKind::kAdamW);
  EXPECT_NEAR(losses(OptimizerKind::kAdamW8bit), exact, 0.02 * exact);
}

TEST(PureBfloat16, RoundsAtRandomSoThatSmallStepsAddUp) {
  at::manual_seed(2);
  const at::Tensor weight = at::ones({4096}, at::kBFloat16);
  Optimizer optimizer({{"w", weight}}, {{"", 1e-4}}, {.max_grad_norm = 0.0, .master_weights = false});
  for (int step = 0; step < 40; ++step) {
    weight.mutable_grad() = at::ones({4096}, at::kBFloat16);
    optimizer.collect_gradients();
    optimizer.step(1.0, 0.0);
  }
  EXPECT_NEAR(weight.to(at::kFloat).mean().item<double>(), 1.0 - 40 * 1e-4, 2e-4)
      << "rounding to nearest would leave every weight at 1";
  EXPECT_TRUE(optimizer.parameters()[0].master.is_same(weight));
}

TEST(WeightDecay, FollowsTheFirstPatternAndIsZeroWithoutOne) {
  Optimizer optimizer({{"a.bias", at::ones({2})}, {"a.weight", at::ones({2})}, {"b.weight", at::ones({2})}},
                      {{"", 1e-3}}, {.weight_decay = {{"bias|norm", 0.0}, {"^a", 0.1}}});
  EXPECT_EQ(optimizer.parameters()[0].weight_decay, 0.0);
  EXPECT_EQ(optimizer.parameters()[1].weight_decay, 0.1);
  EXPECT_EQ(optimizer.parameters()[2].weight_decay, 0.0);
}

}  // namespace
}  // namespace llava
