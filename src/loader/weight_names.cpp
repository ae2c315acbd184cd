#include "loader/weight_names.h"

#include <array>
#include <cctype>
#include <span>

namespace llava {
namespace {

struct Rule {
  std::string_view from, to;  ///< prefix -> prefix
};

/// Ordered: the first prefix that fits is rewritten. Longer ones stand before those they begin with.
constexpr Rule kModelRules[] = {
    {"model.vision_tower.vision_tower.vision_model.",
     "vision_tower."},  // original LLaVA, tuned tower inside
    {"model.vision_tower.vision_tower.", "vision_tower."},
    {"model.vision_tower.vision_model.", "vision_tower."},  // llava-hf since 4.52
    {"model.vision_tower.", "vision_tower."},
    {"vision_tower.vision_model.", "vision_tower."},  // llava-hf on the hub
    {"vision_tower.", "vision_tower."},
    {"model.multi_modal_projector.linear_1.", "mm_projector.0."},
    {"model.multi_modal_projector.linear_2.", "mm_projector.2."},
    {"model.multi_modal_projector.projector_layernorm.", "mm_projector.norm."},  // VipLLaVA
    {"multi_modal_projector.projector_layernorm.", "mm_projector.norm."},
    {"multi_modal_projector.linear_1.", "mm_projector.0."},
    {"multi_modal_projector.linear_2.", "mm_projector.2."},
    {"model.mm_projector.", "mm_projector."},  // original LLaVA
    {"mm_projector.", "mm_projector."},
    {"model.image_newline", "image_newline"},
    {"image_newline", "image_newline"},
    {"model.faster_token", "faster_token"},
    {"model.compressor.", "compressor."},  // LLaVA-Mini
    {"model.prefusion_layers.", "prefusion_layers."},
    {"language_model.lm_head.", "lm_head."},
    {"lm_head.", "lm_head."},
    {"language_model.model.", "language_model."},
    {"model.language_model.", "language_model."},
    {"language_model.", "language_model."},
    {"model.", "language_model."},       // a text model
    {"vision_model.", "vision_tower."},  // a vision model alone
};

constexpr Rule kTowerRules[] = {
    {"vision_tower.vision_model.", "vision_tower."},
    {"vision_tower.", "vision_tower."},
    {"vision_model.", "vision_tower."},
    {"dinov2.", "vision_tower."},
    {"embeddings.", "vision_tower.embeddings."},
    {"encoder.", "vision_tower.encoder."},
    {"layernorm.", "vision_tower.layernorm."},
    {"pre_layrnorm.", "vision_tower.pre_layrnorm."},
    {"post_layernorm.", "vision_tower.post_layernorm."},
};

constexpr Rule kGgufBlockRules[] = {
    {"attn_q.", "self_attn.q_proj."},
    {"attn_k.", "self_attn.k_proj."},
    {"attn_v.", "self_attn.v_proj."},
    {"attn_output.", "self_attn.o_proj."},
    {"ffn_gate.", "mlp.gate_proj."},
    {"ffn_up.", "mlp.up_proj."},
    {"ffn_down.", "mlp.down_proj."},
    {"attn_norm.", "input_layernorm."},
    {"ffn_norm.", "post_attention_layernorm."},
};

constexpr Rule kGgufRules[] = {
    {"token_embd.", "language_model.embed_tokens."},
    {"output_norm.", "language_model.norm."},
    {"output.", "lm_head."},
};

std::optional<std::string> rewrite(std::string_view name, std::span<const Rule> rules) {
  for (const Rule& rule : rules)
    if (name.starts_with(rule.from))
      return std::string(rule.to) + std::string(name.substr(rule.from.size()));
  return std::nullopt;
}

/// non_lora_trainables.bin and PEFT adapters: names of the wrapped model.
std::string_view strip_peft(std::string_view name) {
  constexpr std::string_view kPrefix = "base_model.model.";
  return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

std::string canonical_name(std::string_view name, WeightSource::Part part) {
  name = strip_peft(name);
  if (part == WeightSource::Part::kVisionTower)
    if (auto found = rewrite(name, kTowerRules)) return *found;
  return rewrite(name, kModelRules).value_or(std::string(name));
}

std::string canonical_gguf_name(std::string_view name) {
  if (auto found = rewrite(name, kGgufRules)) return *found;
  constexpr std::string_view kBlock = "blk.";
  if (!name.starts_with(kBlock)) return std::string(name);
  std::size_t end = kBlock.size();
  while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end]))) ++end;
  if (end == kBlock.size() || end == name.size() || name[end] != '.') return std::string(name);
  const auto rest = rewrite(name.substr(end + 1), kGgufBlockRules);
  if (!rest) return std::string(name);
  return "language_model.layers." + std::string(name.substr(kBlock.size(), end - kBlock.size())) + "." +
         *rest;
}

std::string canonical_adapter_name(std::string_view name) {
  std::string found = canonical_name(name, WeightSource::Part::kAll);
  // state dicts that PEFT did not save itself keep the adapter's name and its wrappers'
  for (const std::string_view part : {".lora_A.default.", ".lora_B.default.", ".lora_magnitude_vector.default.",
                                      ".modules_to_save.default.", ".base_layer."}) {
    const auto at = found.find(part);
    if (at == std::string::npos) continue;
    const bool pair = part.starts_with(".lora_");
    const std::string kept = pair ? std::string(part.substr(0, part.size() - 8)) : ".";
    found.replace(at, part.size(), kept);
  }
  constexpr std::string_view kMagnitude = ".lora_magnitude_vector.weight";
  if (found.ends_with(kMagnitude)) found.resize(found.size() - std::string_view(".weight").size());
  return found;
}

bool is_legally_unused(const std::string& canonical, const std::set<std::string, std::less<>>& wanted) {
  if (wanted.contains(canonical)) return false;
  if (canonical.ends_with(".rotary_emb.inv_freq") || canonical.ends_with(".position_ids")) return true;
  for (const std::string_view prefix : {"text_model.", "visual_projection.", "text_projection.",
                                        "logit_scale", "logit_bias", "classifier."})
    if (canonical.starts_with(prefix)) return true;
  if (!canonical.starts_with("vision_tower.")) return false;
  if (contains(canonical, ".mask_token") || contains(canonical, "vision_tower.head.")) return true;
  for (const std::string_view norm : {"vision_tower.post_layernorm.", "vision_tower.layernorm."})
    if (canonical.starts_with(norm)) return true;
  // a block the model has no part of lies above the selected layer
  for (const std::string_view blocks : {"vision_tower.encoder.layers.", "vision_tower.encoder.layer."}) {
    if (!canonical.starts_with(blocks)) continue;
    const auto end = canonical.find('.', blocks.size());
    if (end == std::string::npos) return false;
    const std::string block = canonical.substr(0, end + 1);
    const auto next = wanted.lower_bound(block);
    return next == wanted.end() || !next->starts_with(block);
  }
  return false;
}

}  // namespace llava
