#include "model/prefusion.h"

#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "model/batch.h"

namespace llava {

namespace {

constexpr std::int64_t kHeads = 8;

std::int64_t square_side(std::int64_t count) {
  const auto side = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(count))));
  if (side * side != count) fail(ErrorKind::kInput, "{} features of a view are no square grid", count);
  return side;
}

/// The crops' features [F,k*k,P,C] as one grid, row by row: [F,k*k*P,C].
at::Tensor join_crops(const at::Tensor& crops, std::int64_t k) {
  const std::int64_t side = square_side(crops.size(2));
  return crops.reshape({crops.size(0), k, k, side, side, crops.size(3)})
      .permute({0, 1, 3, 2, 4, 5})
      .reshape({crops.size(0), k * k * side * side, crops.size(3)});
}

}  // namespace

Compressor::Compressor(const CompressorConfig& config, std::int64_t width, Builder& builder) {
  query_ = builder.tensor("compressor.query", {config.num_tokens(), width});
  positions_ = builder.tensor("compressor.pos_embed", {config.num_tokens(), width});
  query_norm_.build(builder, "compressor.ln_q", width, 1e-5);
  feature_norm_.build(builder, "compressor.ln_kv", width, 1e-5);
  in_weight_ = builder.tensor("compressor.attn.in_proj_weight", {3 * width, width});
  in_bias_ = builder.tensor("compressor.attn.in_proj_bias", {3 * width});
  builder.linear(out_, "compressor.attn.out_proj", width, width, true);
}

at::Tensor Compressor::operator()(const at::Tensor& features) const {
  const std::int64_t frames = features.size(0), patches = features.size(1), width = features.size(2);
  const std::int64_t own = square_side(positions_.size(0)), side = square_side(patches);
  at::Tensor grid = positions_.to(at::kFloat);
  if (own != side)
    grid = at::upsample_bicubic2d(grid.view({1, own, own, width}).permute({0, 3, 1, 2}), {side, side}, false)
               .permute({0, 2, 3, 1})
               .reshape({patches, width});
  const at::Tensor seen = feature_norm_(features);
  const at::Tensor asked = query_norm_(query_) + positions_.to(features.scalar_type());
  const std::vector<at::Tensor> weights = in_weight_.chunk(3), biases = in_bias_.chunk(3);
  const auto heads = [&](const at::Tensor& x, std::size_t part) {  // [*,N,C] -> [*,8,N,C/8]
    return at::linear(x, weights[part], biases[part])
        .view({x.size(0), x.size(1), kHeads, width / kHeads})
        .transpose(1, 2);
  };
  const at::Tensor q = heads(asked.unsqueeze(0), 0).expand({frames, -1, -1, -1});
  const at::Tensor k = heads(seen + grid.to(features.scalar_type()), 1), v = heads(seen, 2);
  const at::Tensor out = at::scaled_dot_product_attention(q, k, v);
  return out_(out.transpose(1, 2).reshape({frames, query_.size(0), width}));
}

Prefusion::Prefusion(const ModelConfig& model, Builder& builder)
    : config_(*model.compressor),
      compressor_(config_, model.connector.in_size, builder),
      layers_(model.decoder, builder, "prefusion_layers.", config_.prefusion_layer_num) {}

std::pair<at::Tensor, at::Tensor> Prefusion::views(const at::Tensor& features, const Project& project) const {
  if (config_.num_views() == 1) return {features, project(features)};
  const std::int64_t k = config_.resolution_ratio;
  const auto split = [&](const at::Tensor& x) {  // crops [F,k*k,P,*], the whole [F,P,*]
    const at::Tensor all = x.view({-1, k * k + 1, x.size(1), x.size(2)});
    return std::pair{join_crops(all.slice(1, 0, k * k), k), all.select(1, k * k)};
  };
  const at::Tensor projected = project(features);
  const auto [crops, whole] = split(projected);
  return {split(features).first, at::cat({crops, whole}, 1)};
}

Prefusion::Fused Prefusion::operator()(const at::Tensor& features, const at::Tensor& text, const Project& project) {
  if (features.dim() != 3 || features.size(0) % config_.num_views() != 0)
    fail(ErrorKind::kInternal, "{} views are no whole number of frames of {}", features.size(0), config_.num_views());
  const auto [looked_at, context] = views(features, project);
  const at::Tensor compressed = project(compressor_(looked_at));
  const std::int64_t frames = compressed.size(0), n = compressed.size(1), t = text.size(0);
  const at::Tensor all =
      at::cat({context, compressed, text.to(context.scalar_type()).unsqueeze(0).expand({frames, -1, -1})}, 1);
  MultimodalBatch batch;
  batch.positions = at::arange(all.size(1), at::kLong).unsqueeze(0).expand({frames, -1}).contiguous();
  batch.lengths = at::full({frames}, all.size(1), at::kLong);
  const at::Tensor fused = layers_.forward(all, batch, nullptr, {});
  const std::int64_t begin = all.size(1) - t - n;
  return {fused.narrow(1, begin, n), fused.narrow(1, begin + n, t)};
}

PromptFusion::PromptFusion(Prefusion& prefusion, Prefusion::Project project, at::Tensor embeds,
                           const at::Tensor& ids, const at::Tensor& labels, at::Tensor media)
    : prefusion_(prefusion), project_(std::move(project)), embeds_(std::move(embeds)), media_(std::move(media)) {
  at::Tensor takes_part = ids.gt(0).index_fill(0, media_, false);
  if (labels.defined()) takes_part = takes_part.logical_and(labels.eq(-100));
  text_at_ = takes_part.nonzero().squeeze(1);
  text_ = embeds_.index_select(0, text_at_).detach();
}

void PromptFusion::add(const at::Tensor& features) {
  const Prefusion::Fused fused = prefusion_(features, text_, project_);
  const at::Tensor sum = fused.text.to(at::kFloat).sum(0);
  text_sum_ = text_sum_.defined() ? text_sum_ + sum : sum;
  frames_ += fused.media.size(0);
  rows_.push_back(fused.media.flatten(0, 1).clone());  // a view would keep all that the frames' fusion computed
}

at::Tensor PromptFusion::finish() {
  std::int64_t found = 0;
  for (const at::Tensor& rows : rows_) found += rows.size(0);
  if (found != media_.numel())
    fail(ErrorKind::kInternal, "the prompt has places for {} media tokens, the frames give {}", media_.numel(), found);
  if (frames_ == 0) return embeds_;
  const at::Tensor text = (text_sum_ / static_cast<double>(frames_)).to(embeds_.scalar_type());
  return embeds_.index_copy(0, text_at_, text).index_copy(0, media_, at::cat(rows_).to(embeds_.scalar_type()));
}

}  // namespace llava
