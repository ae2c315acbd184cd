#include "model/llava_model.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "model/build_model.h"
#include "model/connector.h"
#include "model/decoder.h"
#include "model/fused.h"
#include "model/fused_block.h"
#include "model/kv_cache.h"
#include "model/lora.h"
#include "model/media_rows.h"
#include "model/ops.h"
#include "model/prefusion.h"
#include "model/vision_tower.h"

namespace llava {
namespace {

/// Memory that the views which the tower sees at once may take for their intermediate values.
constexpr std::int64_t kTowerBytes = std::int64_t{256} << 20;

class Model final : public LlavaModel {
 public:
  Model(const ModelConfig& config, WeightReader& reader, c10::ScalarType dtype, c10::Device device);
  const ModelConfig& config() const override { return config_; }
  c10::Device device() const override { return device_; }
  c10::ScalarType dtype() const override { return dtype_; }
  at::Tensor encode_vision(const at::Tensor& pixels, ForwardTrace* trace) override;
  at::Tensor project(const at::Tensor& features) override;
  at::Tensor finish_media(const at::Tensor& features, const std::vector<MediaLayout>& layouts,
                          ForwardTrace* trace) override;
  std::unique_ptr<PromptFusion> begin_fusion(const at::Tensor& ids, const at::Tensor& media,
                                             const at::Tensor& labels) override;
  at::Tensor embed(const MultimodalBatch& batch, ForwardTrace* trace) override;
  at::Tensor decode(const at::Tensor& embeds, const MultimodalBatch& batch, KvCache* cache) override;
  at::Tensor logits(const at::Tensor& hidden) override { return at::linear(hidden, head()); }
  Loss loss(const MultimodalBatch& batch, ForwardTrace* trace) override;
  TokenLogProbs log_probs(const MultimodalBatch& batch, double temperature) override;
  std::vector<NamedParameter> parameters() override;
  std::vector<ParameterSlot> slots() override { return builder_.slots; }
  std::vector<std::string> add_lora(const LoraConfig& lora) override {
    return llava::add_lora(builder_.linears, lora);
  }
  const std::vector<Linear*>& linears() override { return builder_.linears; }
  void merge_lora() override { llava::merge_lora(builder_.linears); }
  void set_lora_enabled(bool enabled) override { llava::set_lora_enabled(builder_.linears, enabled); }
  void set_frozen_compute(FrozenCompute compute) override;
  void set_layer_runner(LayerRunner runner) override { runner_ = std::move(runner); }
  void set_tower_runner(LayerRunner runner) override {
    if (tower_) tower_->set_block_runner(std::move(runner));
  }
  std::unique_ptr<KvCache> make_cache(std::int64_t batch, std::int64_t capacity) const override;

 private:
  const at::Tensor& head() const { return head_.defined() ? head_ : decoder_->embedding(); }
  void check_ids(const at::Tensor& ids) const;
  at::Tensor run_tower(const at::Tensor& pixels) const;
  /// Embeddings [B,T,D] of a batch with media, whose text is fused with them row by row.
  at::Tensor embed_fused(const MultimodalBatch& batch, ForwardTrace* trace);
  /// [N,D] of the batch's media, undefined without any.
  at::Tensor media_features(const MultimodalBatch& batch, ForwardTrace* trace);

  ModelConfig config_;
  c10::ScalarType dtype_;
  c10::Device device_;
  Builder builder_;
  std::unique_ptr<VisionTower> tower_;
  std::optional<Connector> connector_;
  std::optional<Prefusion> prefusion_;
  std::optional<Decoder> decoder_;
  at::Tensor head_;     ///< undefined: tied to the embedding
  MediaTokens tokens_;  ///< image_newline and faster_token, where the model has them
  LayerRunner runner_;
};

Model::Model(const ModelConfig& config, WeightReader& reader, c10::ScalarType dtype, c10::Device device)
    : config_(config), dtype_(dtype), device_(device), builder_(reader) {
  if (config.tower) {
    tower_ = make_tower(*config.tower, builder_, "vision_tower.");
    connector_.emplace(config.connector, builder_);
    if (config.media.image_newline)
      tokens_.newline = builder_.tensor("image_newline", {config.decoder.hidden_size});
    if (config.media.faster_token_stride > 0)
      tokens_.faster = builder_.tensor("faster_token", {config.decoder.hidden_size});
    if (config.compressor) prefusion_.emplace(config, builder_);
  }
  decoder_.emplace(config.decoder, builder_);
  if (!config.decoder.tie_word_embeddings)
    head_ = builder_.tensor("lm_head.weight", {config.decoder.vocab_size, config.decoder.hidden_size});
}

/// Hidden states of all views; without gradients a few views at a time, so that 36 tiles need no more memory
/// than those.
at::Tensor Model::run_tower(const at::Tensor& pixels) const {
  const TowerConfig& t = *config_.tower;
  const std::int64_t view_bytes = 4 * (t.num_patches() + 1) * (t.intermediate_size + 4 * t.hidden_size) +
                                  4 * t.num_attention_heads * t.num_patches() * t.num_patches();
  const std::int64_t together = std::max<std::int64_t>(kTowerBytes / view_bytes, 1);
  if (at::GradMode::is_enabled() || pixels.size(0) <= together) return tower_->selected(pixels.to(device_)).to(dtype_);
  std::vector<at::Tensor> parts;
  for (const at::Tensor& some : pixels.split(together)) parts.push_back(tower_->selected(some.to(device_)).to(dtype_));
  return at::cat(parts);
}

at::Tensor Model::encode_vision(const at::Tensor& pixels, ForwardTrace* trace) {
  if (!tower_) fail(ErrorKind::kInput, "this model has no vision tower: it cannot look at images");
  const at::Tensor hidden = run_tower(pixels);
  if (trace != nullptr) trace->vision_hidden = hidden;
  const bool drop_cls = config_.tower->has_cls() && config_.tower->select_feature == SelectFeature::kPatch;
  return drop_cls ? hidden.slice(1, 1) : hidden;
}

at::Tensor Model::project(const at::Tensor& features) {
  if (!connector_) fail(ErrorKind::kInput, "this model has no connector: it cannot look at images");
  const c10::ScalarType type = fused::compute_type(dtype_, device_);
  return connector_->forward(features.to(at::TensorOptions().dtype(type).device(device_))).to(dtype_);
}

void Model::check_ids(const at::Tensor& ids) const {
  if (ids.numel() == 0) fail(ErrorKind::kInput, "there are no tokens");
  const auto low = ids.min().item<std::int64_t>(), high = ids.max().item<std::int64_t>();
  if (low < 0 || high >= config_.decoder.vocab_size)
    fail(ErrorKind::kInput, "token id {} is outside the vocabulary of {}", low < 0 ? low : high,
         config_.decoder.vocab_size);
}

at::Tensor Model::finish_media(const at::Tensor& features, const std::vector<MediaLayout>& layouts,
                               ForwardTrace* trace) {
  LLAVA_ASSERT(!prefusion_, "pre-fusion takes a prompt's media with its text");
  const auto projected = [&](const at::Tensor& views) {
    const at::Tensor out = project(views);
    if (trace != nullptr) trace->projected = out;
    return out;
  };
  return media_rows(features.to(at::TensorOptions().dtype(dtype_).device(device_)), layouts, projected,
                    tokens_);
}

at::Tensor Model::media_features(const MultimodalBatch& batch, ForwardTrace* trace) {
  if (batch.rows.defined()) return batch.rows.to(device_);
  at::Tensor features = batch.features;
  if (!features.defined() && batch.pixels.defined()) features = encode_vision(batch.pixels, trace);
  if (!features.defined()) return {};
  if (!batch.media.empty()) return finish_media(features, batch.media, trace);
  const at::Tensor projected = project(features);
  if (trace != nullptr) trace->projected = projected;
  return projected.flatten(0, 1);
}

std::unique_ptr<PromptFusion> Model::begin_fusion(const at::Tensor& ids, const at::Tensor& media,
                                                  const at::Tensor& labels) {
  if (!prefusion_) return nullptr;
  check_ids(ids);
  const at::Tensor here = ids.to(device_);
  return std::make_unique<PromptFusion>(
      *prefusion_, [this](const at::Tensor& x) { return project(x); }, decoder_->embed_tokens(here), here,
      labels.defined() ? labels.to(device_) : labels, media.to(device_));
}

at::Tensor Model::embed_fused(const MultimodalBatch& batch, ForwardTrace* trace) {
  const at::Tensor features = batch.features.defined() ? batch.features : encode_vision(batch.pixels, trace);
  const std::int64_t width = batch.ids.size(1), view_tokens = config_.compressor->num_tokens();
  const at::Tensor row_of = batch.media_rows.floor_divide(width);
  std::vector<at::Tensor> rows;
  std::int64_t view = 0;
  for (std::int64_t b = 0; b < batch.ids.size(0); ++b) {
    const at::Tensor places = batch.media_rows.index({row_of.eq(b)}) - b * width;
    const auto fusion = begin_fusion(batch.ids[b], places, batch.labels.defined() ? batch.labels[b] : at::Tensor());
    const std::int64_t views = places.numel() / view_tokens * config_.compressor->num_views();
    LLAVA_ASSERT(view + views <= features.size(0), "a view's features for every media token");
    if (views > 0) fusion->add(features.narrow(0, view, views).to(at::TensorOptions().dtype(dtype_).device(device_)));
    rows.push_back(fusion->finish());
    view += views;
  }
  LLAVA_ASSERT(view == features.size(0), "all views have places in the prompt");
  const at::Tensor embeds = at::stack(rows);
  if (trace != nullptr) trace->inputs_embeds = embeds;
  return embeds;
}

at::Tensor Model::embed(const MultimodalBatch& batch, ForwardTrace* trace) {
  check_ids(batch.ids);
  if (batch.embeds.defined()) return batch.embeds.to(at::TensorOptions().dtype(dtype_).device(device_));
  if (prefusion_ && (batch.features.defined() || batch.pixels.defined())) return embed_fused(batch, trace);
  at::Tensor embeds = decoder_->embed_tokens(batch.ids.to(device_));  // [B,T,D]
  const std::int64_t spans = batch.media_rows.defined() ? batch.media_rows.numel() : 0;
  const at::Tensor media = media_features(batch, trace);
  const std::int64_t found = media.defined() ? media.size(0) : 0;
  if (found != spans)
    fail(ErrorKind::kInternal, "the prompt has places for {} image features, the images give {}", spans,
         found);
  if (media.defined())
    embeds = embeds.flatten(0, 1)
                 .index_copy(0, batch.media_rows.to(device_), media.to(embeds.scalar_type()))
                 .view(embeds.sizes());
  if (trace != nullptr) trace->inputs_embeds = embeds;
  return embeds;
}

at::Tensor Model::decode(const at::Tensor& embeds, const MultimodalBatch& batch, KvCache* cache) {
  LLAVA_ASSERT(embeds.dim() == 3 && batch.positions.defined() &&
                   batch.positions.size(0) == embeds.size(0) && batch.positions.size(1) == embeds.size(1),
               "embeddings [B,T,D] with positions [B,T]");
  return decoder_->forward(embeds, batch, cache, runner_);
}

/// Flat rows [N] of hidden states that predict a label, and those labels. The first token of a branch
/// cannot be trained: its predictor is not the token before it.
std::pair<at::Tensor, at::Tensor> supervised(const MultimodalBatch& batch, const at::Device& device) {
  const at::Tensor labels = batch.labels.to(device);
  at::Tensor next = at::full_like(labels, -100);
  next.narrow(1, 0, labels.size(1) - 1).copy_(labels.slice(1, 1));
  if (batch.branch.defined() && labels.size(1) > 1) {
    const at::Tensor branch = batch.branch.to(device);
    const at::Tensor starts = branch.slice(1, 1).ne(branch.slice(1, 0, -1));
    if (starts.logical_and(labels.slice(1, 1).ne(-100)).any().item<bool>())
      fail(ErrorKind::kInternal, "the first token of a branch has a label");
  }
  const at::Tensor flat = next.flatten(), rows = flat.ne(-100).nonzero().squeeze(1);
  return {rows, flat.index_select(0, rows)};
}

LlavaModel::Loss Model::loss(const MultimodalBatch& batch, ForwardTrace* trace) {
  LLAVA_ASSERT(batch.labels.defined(), "a loss needs labels");
  const at::Tensor hidden = decode(embed(batch, trace), batch, nullptr);
  if (trace != nullptr) trace->final_hidden = hidden;
  const auto [rows, targets] = supervised(batch, device_);
  const at::Tensor picked = hidden.flatten(0, 1).index_select(0, rows);
  return {linear_cross_entropy(picked, head(), targets, loss_chunk(config_.decoder.vocab_size)), rows.numel()};
}

LlavaModel::TokenLogProbs Model::log_probs(const MultimodalBatch& batch, double temperature) {
  LLAVA_ASSERT(batch.labels.defined(), "log-probabilities need labels");
  const at::Tensor hidden = decode(embed(batch, nullptr), batch, nullptr);
  const auto [rows, targets] = supervised(batch, device_);
  const at::Tensor picked = hidden.flatten(0, 1).index_select(0, rows);
  return {linear_log_probs(picked, head(), targets, temperature, loss_chunk(config_.decoder.vocab_size)),
          rows.div(batch.labels.size(1), "floor")};
}

std::vector<NamedParameter> Model::parameters() {
  std::vector<NamedParameter> all = builder_.parameters;
  for (const Linear* linear : builder_.linears) {
    if (!linear->has_lora()) continue;
    all.push_back({linear->name + ".lora_A.weight", linear->lora_a});
    all.push_back({linear->name + ".lora_B.weight", linear->lora_b});
    if (linear->lora_magnitude.defined())
      all.push_back({linear->name + ".lora_magnitude_vector", linear->lora_magnitude});
  }
  return all;
}

void Model::set_frozen_compute(FrozenCompute compute) {
  if (compute == FrozenCompute::kInt8 && (!device_.is_cpu() || dtype_ != at::kFloat))
    fail(ErrorKind::kUsage, "frozen_compute int8 is for float32 on a CPU");
  for (Linear* linear : builder_.linears) {
    linear->int8.reset();
    const bool frozen = linear->name.starts_with("language_model.") && !linear->nf4 && !linear->weight.requires_grad();
    if (compute == FrozenCompute::kInt8 && frozen) linear->int8 = fused::quantise(linear->weight);
  }
}

std::unique_ptr<KvCache> Model::make_cache(std::int64_t batch, std::int64_t capacity) const {
  return std::make_unique<KvCache>(config_.decoder, batch, capacity, dtype_, device_);
}

/// Notes names and shapes; the modules built on it are thrown away.
class WeightCollector final : public WeightReader {
 public:
  at::Tensor read(const std::string& name, const std::vector<std::int64_t>& shape) override {
    specs.push_back({name, shape});
    return {};
  }
  std::vector<WeightSpec> specs;
};

}  // namespace

std::int64_t WeightSpec::num_elements() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::vector<WeightSpec> weight_specs(const ModelConfig& config) {
  config.validate();
  WeightCollector collector;
  const Model model(config, collector, c10::kFloat, c10::kCPU);
  return std::move(collector.specs);
}

std::vector<WeightSpec> tower_specs(const TowerConfig& config) {
  WeightCollector collector;
  Builder builder(collector);
  const auto tower = make_tower(config, builder, "vision_tower.");
  return std::move(collector.specs);
}

std::unique_ptr<LlavaModel> build_model(const ModelConfig& config, WeightReader& reader,
                                        c10::ScalarType dtype, c10::Device device) {
  config.validate();
  return std::make_unique<Model>(config, reader, dtype, device);
}

void make_writable(at::Tensor& parameter) {
  const at::NoGradGuard no_grad;
  parameter.set_data(parameter.clone());
}

}  // namespace llava
