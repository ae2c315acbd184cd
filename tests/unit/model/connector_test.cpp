#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"
#include "model/build_model.h"
#include "model_golden.h"
#include "toy_model.h"

namespace llava::test {
namespace {

std::map<std::string, at::Tensor> by_name(LlavaModel& model) {
  std::map<std::string, at::Tensor> found;
  for (const auto& p : model.parameters()) found[p.name] = p.tensor;
  return found;
}

at::Tensor features(std::int64_t rows) {
  return at::randn({2, rows, 16}, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{9}));
}

TEST(Connector, IdentityPassesFeaturesThrough) {
  ModelConfig config = toy_config();
  config.tower->hidden_size = config.connector.in_size = 32, config.tower->intermediate_size = 32;
  config.connector.kind = ConnectorKind::kIdentity;
  const at::Tensor x = at::randn({2, 4, 32});
  EXPECT_TRUE(at::equal(toy_model(config)->project(x), x));
}

TEST(Connector, LinearIsOneMatrixWithPlainNames) {
  ModelConfig config = toy_config();
  config.connector.kind = ConnectorKind::kLinear, config.connector.depth = 1;
  const auto model = toy_model(config);
  auto w = by_name(*model);
  const at::Tensor x = features(4);
  EXPECT_LE(max_abs_diff(model->project(x),
                         at::linear(x, w.at("mm_projector.weight"), w.at("mm_projector.bias"))),
            1e-6);
}

TEST(Connector, DeepMlpsAreNumberedInTwos) {
  ModelConfig config = toy_config();
  config.connector.depth = 3;
  const auto model = toy_model(config);
  auto w = by_name(*model);
  at::Tensor x = features(4), y = x;
  for (const std::string i : {"0", "2", "4"}) {
    if (i != "0") y = at::gelu(y);
    y = at::linear(y, w.at("mm_projector." + i + ".weight"), w.at("mm_projector." + i + ".bias"));
  }
  EXPECT_LE(max_abs_diff(model->project(x), y), 1e-6);
}

TEST(Connector, MergesNeighboursRowByRowAndPutsTheClassTokenFirst) {
  ModelConfig config = toy_config();
  config.tower->image_size = config.tower->input_size = 56;  // 4 x 4 patches
  config.tower->select_feature = SelectFeature::kClsPatch;
  config.connector.patch_merge = 2, config.connector.input_norm = config.connector.class_token = true;
  const auto model = toy_model(config);
  auto w = by_name(*model);
  const at::Tensor x = features(17);
  const auto mlp = [&](const at::Tensor& in, const std::string& name) {
    const at::Tensor h = at::linear(in, w.at(name + ".0.weight"), w.at(name + ".0.bias"));
    return at::linear(at::gelu(h), w.at(name + ".2.weight"), w.at(name + ".2.bias"));
  };
  const auto patch = [&](std::int64_t row, std::int64_t column) {
    return x.select(1, 1 + row * 4 + column);
  };
  std::vector<at::Tensor> merged;
  for (std::int64_t i = 0; i < 4; i += 2)
    for (std::int64_t j = 0; j < 4; j += 2)
      merged.push_back(at::cat({patch(i, j), patch(i, j + 1), patch(i + 1, j), patch(i + 1, j + 1)}, -1));
  const at::Tensor normed = at::layer_norm(at::stack(merged, 1), {64}, w.at("mm_projector.norm.weight"),
                                           w.at("mm_projector.norm.bias"), 1e-5);
  const at::Tensor expected =
      at::cat({mlp(x.slice(1, 0, 1), "mm_projector.class_token"), mlp(normed, "mm_projector")}, 1);
  const at::Tensor found = model->project(x);
  EXPECT_EQ(found.size(1), config.num_image_tokens());
  EXPECT_LE(max_abs_diff(found, expected), 1e-5);
}

TEST(Connector, RefusesPatchesItCannotMerge) {
  ModelConfig config = toy_config();
  config.connector.patch_merge = 2;
  const auto model = toy_model(config);
  EXPECT_THROW(model->project(features(5)), Error);
  EXPECT_THROW(model->project(features(9)), Error);
}

TEST(Tower, SelectsAnyLayersAndSkipsTheBlocksAboveThem) {
  ModelConfig config = toy_config();
  const auto blocks = [&] {
    std::set<std::string> found;
    for (const auto& spec : weight_specs(config))
      if (spec.name.starts_with("vision_tower.encoder.layers.")) found.insert(spec.name.substr(28, 1));
    return found.size();
  };
  EXPECT_EQ(blocks(), 2U);  // -2 of 3
  config.tower->select_layers = {-1};
  EXPECT_EQ(blocks(), 3U);
  config.tower->select_layers = {0};
  EXPECT_EQ(blocks(), 0U);
  config.tower->select_layers = {-3, 2}, config.connector.in_size = 32;
  EXPECT_EQ(blocks(), 2U);
  const auto model = toy_model(config);
  ForwardTrace trace;
  const at::Tensor x = model->encode_vision(at::randn({2, 3, 28, 28}), &trace);
  EXPECT_EQ(x.sizes(), (std::vector<std::int64_t>{2, 4, 32}));
  EXPECT_EQ(trace.vision_hidden.sizes(), (std::vector<std::int64_t>{2, 5, 32}));
  EXPECT_THROW(resolve_layer(-5, 3), Error);
  EXPECT_THROW(resolve_layer(4, 3), Error);
}

}  // namespace
}  // namespace llava::test
