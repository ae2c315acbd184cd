#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/frozen_compute.h"
#include "config/model_config.h"
#include "model/batch.h"
#include "model/lora_config.h"

/// Legend: B batch, T tokens, D decoder width, H heads, K kv heads, P patches, C tower width, M tiles, N
/// image features, V vocabulary
namespace llava {

class KvCache;
struct Linear;
class PromptFusion;

/// A parameter under its canonical name (docs/formats.md): vision_tower.…, mm_projector.…,
/// language_model.…, lm_head.weight.
struct NamedParameter {
  std::string name;
  at::Tensor tensor;
};

/// Where a module keeps a parameter: another tensor can stand in there while the module runs (ZeRO-3).
struct ParameterSlot {
  std::string name;  ///< canonical
  at::Tensor* where = nullptr;
};

/// Numbers a golden test looks at; filled only when asked for.
struct ForwardTrace {
  at::Tensor vision_hidden;  ///< [M,1+P,C] at the selected layer(s), CLS included
  at::Tensor projected;      ///< [M,N/M,D] connector output
  at::Tensor inputs_embeds;  ///< [B,T,D] after splicing
  at::Tensor final_hidden;   ///< [B,T,D] after the last norm
};

/// Tower + connector + decoder. Weights are shared and const in inference; run state (KvCache) lives
/// outside.
class LlavaModel {
 public:
  virtual ~LlavaModel() = default;
  virtual const ModelConfig& config() const = 0;
  virtual c10::Device device() const = 0;
  virtual c10::ScalarType dtype() const = 0;

  /// Tower features at the selected layer(s), CLS dropped per select_feature: pixels [M,3,H,W] -> [M,P,C].
  virtual at::Tensor encode_vision(const at::Tensor& pixels, ForwardTrace* trace = nullptr) = 0;
  /// Connector: [M,P,C] -> [M,n,D].
  virtual at::Tensor project(const at::Tensor& features) = 0;
  /// The rows [N,D] that stand in the prompt for media whose views have these tower features [M,P,C]: the
  /// connector, then pooling, tiling and newlines as the layouts say.
  virtual at::Tensor finish_media(const at::Tensor& features, const std::vector<MediaLayout>& layouts,
                                  ForwardTrace* trace = nullptr) = 0;
  /// LLaVA-Mini: the embeddings of one prompt (ids [T], places of media [N] in it), whose media are then added.
  /// Null for a model without pre-fusion.
  virtual std::unique_ptr<PromptFusion> begin_fusion(const at::Tensor& ids, const at::Tensor& media,
                                                     const at::Tensor& labels) = 0;
  /// Token embeddings [B,T,D] with media features put at batch.media_rows (checked: counts must agree).
  virtual at::Tensor embed(const MultimodalBatch& batch, ForwardTrace* trace = nullptr) = 0;
  /// Final hidden states [B,T,D] of embeddings; appends to `cache` when given (then B rows have equal T).
  virtual at::Tensor decode(const at::Tensor& embeds, const MultimodalBatch& batch,
                            KvCache* cache = nullptr) = 0;
  /// Logits of hidden rows [...,D] -> [...,V].
  virtual at::Tensor logits(const at::Tensor& hidden) = 0;
  /// Sum of the cross-entropy over labelled tokens (fp32) and their number; logits are computed at
  /// supervised positions only.
  struct Loss {
    at::Tensor sum;
    std::int64_t tokens = 0;
  };
  virtual Loss loss(const MultimodalBatch& batch, ForwardTrace* trace = nullptr) = 0;

  /// Log-probabilities of the labelled tokens, without the logits of all of them at once.
  struct TokenLogProbs {
    at::Tensor values;  ///< [N] float32, differentiable; in the order of the flattened labels
    at::Tensor rows;    ///< [N] int64: the batch row each belongs to
  };
  /// `temperature` divides the logits.
  virtual TokenLogProbs log_probs(const MultimodalBatch& batch, double temperature = 1) = 0;

  /// All parameters (LoRA's lora_A / lora_B included), canonical names, stable order.
  virtual std::vector<NamedParameter> parameters() = 0;
  /// Slots of all linear layers and of the decoder blocks' norms; they live as long as the model.
  virtual std::vector<ParameterSlot> slots() = 0;
  /// Adds LoRA pairs (A kaiming-uniform as PEFT, B zero) to every Linear whose canonical name matches;
  /// returns their names.
  virtual std::vector<std::string> add_lora(const LoraConfig& lora) = 0;
  /// All linear layers in a stable order: what adapters, packing and export work on.
  virtual const std::vector<Linear*>& linears() = 0;
  /// W <- W + scale * B A for all LoRA pairs, which are removed. Error{kUnsupported} for packed weights.
  virtual void merge_lora() = 0;
  /// Off: the base model alone answers, as if it had no pairs (the reference policy of a preference run);
  /// the pairs stay among parameters(). On is the start.
  virtual void set_lora_enabled(bool enabled) = 0;
  /// For the decoder's linear layers whose weights want no gradient at the time of the call. Error{kUsage}
  /// unless the model is float32 on a CPU.
  virtual void set_frozen_compute(FrozenCompute compute) = 0;
  /// One decoder block runs through this; the trainer may wrap it (checkpointing, gathering, offload).
  /// Default: call it.
  using LayerRunner = std::function<at::Tensor(
      int layer, const std::function<at::Tensor(const at::Tensor&)>& block, const at::Tensor& x)>;
  virtual void set_layer_runner(LayerRunner runner) = 0;
  /// Likewise for the blocks of the vision tower; no effect without a tower.
  virtual void set_tower_runner(LayerRunner runner) = 0;
  virtual std::unique_ptr<KvCache> make_cache(std::int64_t batch, std::int64_t capacity) const = 0;
};

/// Gives a parameter memory of its own: loaded weights may be a read-only map of a file, so whoever changes
/// one in place (an optimiser) calls this first, once. The model sees the new memory.
void make_writable(at::Tensor& parameter);

}  // namespace llava
