#include "model/vision_tower.h"

#include <torch/torch.h>

#include <fmt/ranges.h>

#include <algorithm>
#include <deque>

#include "base/error.h"
#include "model/fused_block.h"
#include "model/ops.h"

namespace llava {
namespace {

/// Where Hugging Face's two families of vision transformers put their weights.
struct Names {
  const char *patch, *cls, *positions, *block, *norm1, *norm2, *q, *k, *v, *out;
};

constexpr Names kClipNames = {"embeddings.patch_embedding",
                              "embeddings.class_embedding",
                              "embeddings.position_embedding.weight",
                              "encoder.layers.{}.",
                              "layer_norm1",
                              "layer_norm2",
                              "self_attn.q_proj",
                              "self_attn.k_proj",
                              "self_attn.v_proj",
                              "self_attn.out_proj"};
constexpr Names kDinov2Names = {"embeddings.patch_embeddings.projection",
                                "embeddings.cls_token",
                                "embeddings.position_embeddings",
                                "encoder.layer.{}.",
                                "norm1",
                                "norm2",
                                "attention.attention.query",
                                "attention.attention.key",
                                "attention.attention.value",
                                "attention.output.dense"};

class Vit final : public VisionTower {
 public:
  Vit(const TowerConfig& config, Builder& builder, const std::string& prefix);
  std::vector<at::Tensor> hidden_states(const at::Tensor& pixels) const override;
  at::Tensor selected(const at::Tensor& pixels) const override;
  const TowerConfig& config() const override { return config_; }
  void set_block_runner(LlavaModel::LayerRunner runner) override { runner_ = std::move(runner); }

 private:
  struct Block {
    LayerNorm norm1, norm2;
    Linear q, k, v, out, fc1, fc2;
    at::Tensor scale1, scale2;  ///< DINOv2's layer scale [C]
  };
  void build_embeddings(Builder& builder, const std::string& prefix, const Names& names);
  void build_block(Builder& builder, const std::string& name, const Names& names);
  at::Tensor embed(const at::Tensor& pixels) const;
  at::Tensor position_table() const;
  at::Tensor run_block(const Block& block, const at::Tensor& x) const;
  at::Tensor attention(const Block& block, const at::Tensor& x) const;

  TowerConfig config_;
  at::Tensor patch_weight_, patch_bias_, cls_, positions_;
  LayerNorm pre_norm_, final_norm_;
  std::deque<Block> blocks_;
  LlavaModel::LayerRunner runner_;
};

Vit::Vit(const TowerConfig& config, Builder& builder, const std::string& prefix) : config_(config) {
  const Names& names = config.kind == TowerKind::kDinov2 ? kDinov2Names : kClipNames;
  build_embeddings(builder, prefix, names);
  std::int64_t needed = 0;
  for (const auto layer : config.select_layers)
    needed = std::max(needed, resolve_layer(layer, config.num_hidden_layers));
  for (std::int64_t i = 0; i < needed; ++i)
    build_block(builder, prefix + fmt::format(fmt::runtime(names.block), i), names);
  if (config.apply_final_norm) {
    const char* norm = config.kind == TowerKind::kDinov2 ? "layernorm" : "post_layernorm";
    final_norm_.build(builder, prefix + norm, config.hidden_size, config.layer_norm_eps);
  }
}

void Vit::build_embeddings(Builder& builder, const std::string& prefix, const Names& names) {
  const TowerConfig& c = config_;
  const bool dino = c.kind == TowerKind::kDinov2;
  if (c.has_cls()) {
    const std::vector<std::int64_t> shape =
        dino ? std::vector<std::int64_t>{1, 1, c.hidden_size} : std::vector<std::int64_t>{c.hidden_size};
    cls_ = builder.tensor(prefix + names.cls, shape);
  }
  patch_weight_ = builder.tensor(fmt::format("{}{}.weight", prefix, names.patch),
                                 {c.hidden_size, c.num_channels, c.patch_size, c.patch_size});
  if (c.kind != TowerKind::kClip)
    patch_bias_ = builder.tensor(fmt::format("{}{}.bias", prefix, names.patch), {c.hidden_size});
  const std::int64_t side = c.image_size / c.patch_size, rows = side * side + (c.has_cls() ? 1 : 0);
  positions_ =
      builder.tensor(prefix + names.positions, dino ? std::vector<std::int64_t>{1, rows, c.hidden_size}
                                                    : std::vector<std::int64_t>{rows, c.hidden_size});
  if (c.kind == TowerKind::kClip)  // the missing "e" is in every checkpoint
    pre_norm_.build(builder, prefix + "pre_layrnorm", c.hidden_size, c.layer_norm_eps);
}

void Vit::build_block(Builder& builder, const std::string& name, const Names& names) {
  const std::int64_t width = config_.hidden_size, ffn = config_.intermediate_size;
  Block& block = blocks_.emplace_back();
  block.norm1.build(builder, name + names.norm1, width, config_.layer_norm_eps);
  builder.linear(block.q, name + names.q, width, width, true);
  builder.linear(block.k, name + names.k, width, width, true);
  builder.linear(block.v, name + names.v, width, width, true);
  builder.linear(block.out, name + names.out, width, width, true);
  block.norm2.build(builder, name + names.norm2, width, config_.layer_norm_eps);
  builder.linear(block.fc1, name + "mlp.fc1", width, ffn, true);
  builder.linear(block.fc2, name + "mlp.fc2", ffn, width, true);
  if (config_.kind != TowerKind::kDinov2) return;
  block.scale1 = builder.tensor(name + "layer_scale1.lambda1", {width});
  block.scale2 = builder.tensor(name + "layer_scale2.lambda1", {width});
}

std::vector<at::Tensor> Vit::hidden_states(const at::Tensor& pixels) const {
  std::vector<at::Tensor> states = {embed(pixels)};
  for (const Block& block : blocks_) {
    const auto run = [this, &block](const at::Tensor& x) { return run_block(block, x); };
    const int index = static_cast<int>(states.size()) - 1;
    states.push_back(runner_ ? runner_(index, run, states.back()) : run(states.back()));
  }
  return states;
}

at::Tensor Vit::selected(const at::Tensor& pixels) const {
  const auto states = hidden_states(pixels);
  std::vector<at::Tensor> picked;
  for (const auto layer : config_.select_layers) {
    const at::Tensor& x = states[static_cast<std::size_t>(resolve_layer(layer, config_.num_hidden_layers))];
    picked.push_back(config_.apply_final_norm ? final_norm_(x) : x);
  }
  return picked.size() == 1 ? picked[0] : at::cat(picked, -1);
}

at::Tensor Vit::embed(const at::Tensor& pixels) const {
  const TowerConfig& c = config_;
  if (pixels.dim() != 4 || pixels.size(1) != c.num_channels || pixels.size(2) != c.input_size ||
      pixels.size(3) != c.input_size)
    fail(ErrorKind::kInput, "the tower wants pixels [M, {}, {}, {}], not {}", c.num_channels, c.input_size,
         c.input_size, fmt::join(pixels.sizes(), " x "));
  const at::TensorOptions type =
      patch_weight_.options().dtype(fused::compute_type(patch_weight_.scalar_type(), patch_weight_.device()));
  at::Tensor x = at::conv2d(pixels.to(type), patch_weight_.to(type), patch_bias_.defined() ? patch_bias_.to(type) : patch_bias_,
                            {c.patch_size, c.patch_size});
  x = x.flatten(2).transpose(1, 2);                                                  // [M,P,C]
  if (c.has_cls()) x = at::cat({cls_.to(type).expand({x.size(0), 1, c.hidden_size}), x}, 1);  // [M,1+P,C]
  x = x + position_table().to(type);
  return c.kind == TowerKind::kClip ? pre_norm_(x) : x;
}

/// The learnt table; DINOv2's grid is resampled in float32 to the input's grid (bicubic, a = -0.75,
/// half-pixel centres).
at::Tensor Vit::position_table() const {
  const TowerConfig& c = config_;
  if (c.kind != TowerKind::kDinov2 || c.input_size == c.image_size) return positions_;
  const std::int64_t side = c.image_size / c.patch_size;
  const at::Tensor grid =
      positions_.slice(1, 1).reshape({1, side, side, c.hidden_size}).permute({0, 3, 1, 2});
  const at::Tensor resampled = at::upsample_bicubic2d(grid.to(at::kFloat), {c.grid(), c.grid()}, false);
  const at::Tensor rows =
      resampled.to(positions_.scalar_type()).permute({0, 2, 3, 1}).reshape({1, -1, c.hidden_size});
  return at::cat({positions_.slice(1, 0, 1), rows}, 1);
}

at::Tensor Vit::run_block(const Block& block, const at::Tensor& x) const {
  at::Tensor update = attention(block, block.norm1(x));
  at::Tensor h = x + (block.scale1.defined() ? update * block.scale1.to(x.scalar_type()) : update);
  update = block.fc2(activate(block.fc1(block.norm2(h)), config_.hidden_act));
  return h + (block.scale2.defined() ? update * block.scale2.to(x.scalar_type()) : update);
}

at::Tensor Vit::attention(const Block& block, const at::Tensor& x) const {
  const std::int64_t m = x.size(0), p = x.size(1), heads = config_.num_attention_heads;
  const auto split = [&](const at::Tensor& t) {
    return t.view({m, p, heads, -1}).transpose(1, 2);
  };  // [M,H,P,d]
  const at::Tensor y =
      at::scaled_dot_product_attention(split(block.q(x)), split(block.k(x)), split(block.v(x)));
  return block.out(y.transpose(1, 2).reshape({m, p, config_.hidden_size}));
}

}  // namespace

std::int64_t resolve_layer(std::int64_t layer, std::int64_t num_hidden_layers) {
  const std::int64_t index = layer < 0 ? num_hidden_layers + 1 + layer : layer;
  if (index < 0 || index > num_hidden_layers)
    fail(ErrorKind::kFormat, "vision feature layer {} does not exist: the tower has {} blocks", layer,
         num_hidden_layers);
  return index;
}

std::unique_ptr<VisionTower> make_tower(const TowerConfig& config, Builder& builder,
                                        const std::string& prefix) {
  return std::make_unique<Vit>(config, builder, prefix);
}

}  // namespace llava
