#include "train/objective.h"
#include "train/stage.h"

namespace llava {

void Trainer::dry_run() {
  load_model_once();
  for (std::size_t i = 0; i < config_.stages.size(); ++i) {
    const auto stage = open_stage(static_cast<std::int64_t>(i), false);
    Loader loader(*stage->order, std::cref(stage->preparer),
                  {config_.loader_threads, 0, 1, 1, config_.seed, stage->dataset->size()});
    const LoadedStep step = loader.next();
    note_bad_samples(*stage, step);
    std::vector<std::size_t> lengths;
    for (const PreparedSample& sample : step.samples) lengths.push_back(sample.prompt.ids.size());
    for (const auto& rows : micro_batches(lengths, *stage->config)) {
      std::vector<const PreparedSample*> samples;
      for (const std::size_t row : rows) samples.push_back(&step.samples[row]);
      make_batch(*stage, samples, stage->config->packing);
    }
  }
}

}  // namespace llava
