#include "train/step_objective.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "train/dpo_objective.h"
#include "train/grpo_objective.h"
#include "train/kto_objective.h"

namespace llava {

std::unique_ptr<StepObjective> make_step_objective(StepContext context) {
  switch (context.config->objective) {
    case Objective::kLm:
    case Objective::kAnswerEmbedding:
      return nullptr;
    case Objective::kDpo:
      return std::make_unique<DpoObjective>(std::move(context));
    case Objective::kKto:
      return std::make_unique<KtoObjective>(std::move(context));
    case Objective::kGrpo:
      return std::make_unique<GrpoObjective>(std::move(context));
  }
  return nullptr;
}

RecordKind record_kind(Objective objective) {
  switch (objective) {
    case Objective::kDpo:
      return RecordKind::kPair;
    case Objective::kKto:
      return RecordKind::kLabelled;
    case Objective::kGrpo:
      return RecordKind::kPrompt;
    case Objective::kLm:
    case Objective::kAnswerEmbedding:
      break;
  }
  return RecordKind::kInstruction;
}

bool needs_answer(const StageConfig& config) {
  if (config.objective != Objective::kGrpo || !config.grpo) return false;
  const auto& names = config.grpo->reward_funcs;
  return std::any_of(names.begin(), names.end(),
                     [](const std::string& name) { return name == "exact_match" || name == "overlap"; });
}

std::vector<CollateRow> with_features(LlavaModel& model, std::vector<CollateRow> rows, bool train_tower) {
  std::vector<at::Tensor> pixels;
  for (const CollateRow& row : rows)
    if (row.form == MediaForm::kPixels) pixels.insert(pixels.end(), row.media.begin(), row.media.end());
  at::Tensor features;
  if (!pixels.empty()) {
    const at::AutoGradMode mode(train_tower && at::GradMode::is_enabled());
    features = model.encode_vision(at::cat(pixels));
  }
  std::int64_t view = 0;
  for (CollateRow& row : rows) {
    if (row.form != MediaForm::kPixels) continue;
    for (at::Tensor& media : row.media) {
      const std::int64_t views = media.size(0);
      media = features.narrow(0, view, views);
      view += views;
    }
    row.form = MediaForm::kFeatures;
  }
  return rows;
}

at::Tensor answer_log_probs(LlavaModel& model, std::span<const CollateRow> rows,
                            const std::vector<std::int64_t>& tokens) {
  const at::Tensor values = model.log_probs(collate(rows, model.config())).values;
  std::vector<at::Tensor> sums;
  for (const at::Tensor& part : values.split_with_sizes(tokens)) sums.push_back(part.sum());
  return at::stack(sums);
}

void count_media(const PreparedSample& sample, StepMetrics& metrics) {
  metrics.images += static_cast<std::int64_t>(sample.media.size());
  metrics.views += sample.num_views();
}

std::int64_t answer_tokens(const Prompt& prompt) {
  if (prompt.labels.empty()) return 0;
  return std::count_if(prompt.labels.begin() + 1, prompt.labels.end(),
                       [](std::int64_t label) { return label != kIgnoreIndex; });
}

}  // namespace llava
