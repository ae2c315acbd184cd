#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/fields.h"

/// How weights are moved: the optimizer, its precision and its schedule (docs/training.md).
namespace llava {

enum class OptimizerKind { kAdamW, kAdamW8bit, kAdafactor, kLion, kMuon, kSgd };
enum class ScheduleKind { kCosine, kLinear, kConstant, kWsd /* warm up, stay, decay */ };
/// How Muon's rate follows a matrix's shape [a,b]: sqrt(max(1, a/b)), or 0.2 sqrt(max(a, b)) which gives
/// updates of AdamW's size.
enum class MuonScale { kOriginal, kMatchRmsAdamW };
enum class OffloadDevice { kNone, kCpu };

template <>
struct EnumTable<OptimizerKind> {
  static constexpr std::pair<const char*, OptimizerKind> names[] = {
      {"adamw", OptimizerKind::kAdamW}, {"adamw_8bit", OptimizerKind::kAdamW8bit},
      {"adafactor", OptimizerKind::kAdafactor}, {"lion", OptimizerKind::kLion},
      {"muon", OptimizerKind::kMuon}, {"sgd", OptimizerKind::kSgd}};
};
template <>
struct EnumTable<ScheduleKind> {
  static constexpr std::pair<const char*, ScheduleKind> names[] = {{"cosine", ScheduleKind::kCosine},
                                                                   {"linear", ScheduleKind::kLinear},
                                                                   {"constant", ScheduleKind::kConstant},
                                                                   {"wsd", ScheduleKind::kWsd}};
};
template <>
struct EnumTable<MuonScale> {
  static constexpr std::pair<const char*, MuonScale> names[] = {
      {"original", MuonScale::kOriginal}, {"match_rms_adamw", MuonScale::kMatchRmsAdamW}};
};
template <>
struct EnumTable<OffloadDevice> {
  static constexpr std::pair<const char*, OffloadDevice> names[] = {{"none", OffloadDevice::kNone},
                                                                    {"cpu", OffloadDevice::kCpu}};
};

/// float16 needs its loss multiplied, so that small gradients do not vanish.
struct LossScaleConfig {
  double init = 65536;
  std::int64_t growth_interval = 2000;  ///< steps without overflow after which the scale doubles
  double min = 1;                       ///< below it the run ends
};

struct OptimConfig {
  OptimizerKind name = OptimizerKind::kAdamW;
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  PatternNumbers weight_decay = {{"", 0.0}};  ///< first pattern found in a name; none: 0
  double max_grad_norm = 1.0;                 ///< 0: no clipping
  double momentum = 0.95;                     ///< Muon, SGD
  bool nesterov = true;                       ///< Muon, SGD
  std::int64_t ns_steps = 5;                  ///< Muon: Newton-Schulz iterations
  MuonScale adjust_lr = MuonScale::kMatchRmsAdamW;
  double clip_threshold = 1.0;  ///< Adafactor: largest r.m.s. of an update
  double decay_rate = -0.8;     ///< Adafactor
  bool master_weights = true;   ///< false: below float32 the weights themselves are moved, rounded at random
  OffloadDevice offload = OffloadDevice::kNone;  ///< where masters and states live, and are updated
  LossScaleConfig loss_scale;                    ///< float16 only
};

struct ScheduleConfig {
  ScheduleKind name = ScheduleKind::kCosine;
  double warmup_ratio = 0.03;  ///< of the stage's steps, rounded up; the first step's rate is 0 then
  double decay_ratio = 0.2;    ///< wsd: the last part of the steps, in which the rate falls in a line
  double min_ratio = 0.0;      ///< the rate never falls below this part of its peak after the warm-up
};

template <class V>
void visit_fields(V& v, LossScaleConfig& c) {
  v("init", c.init), v("growth_interval", c.growth_interval), v("min", c.min);
}
template <class V>
void visit_fields(V& v, OptimConfig& c) {
  v("name", c.name), v("betas", c.betas), v("eps", c.eps), v("weight_decay", c.weight_decay);
  v("max_grad_norm", c.max_grad_norm), v("momentum", c.momentum), v("nesterov", c.nesterov);
  v("ns_steps", c.ns_steps), v("adjust_lr", c.adjust_lr), v("clip_threshold", c.clip_threshold);
  v("decay_rate", c.decay_rate), v("master_weights", c.master_weights), v("offload", c.offload);
  v("loss_scale", c.loss_scale);
}
template <class V>
void visit_fields(V& v, ScheduleConfig& c) {
  v("name", c.name), v("warmup_ratio", c.warmup_ratio), v("decay_ratio", c.decay_ratio);
  v("min_ratio", c.min_ratio);
}

}  // namespace llava
