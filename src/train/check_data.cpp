#include "base/log.h"
#include "train/stage.h"

namespace llava {

std::vector<DataReport> Trainer::check_data(const ValidateOptions& options) {
  const CheckpointInfo checkpoint = read_checkpoint(find_model(config_.model));
  std::vector<DataReport> reports;
  for (const StageConfig& config : config_.stages) {
    log_info("data", "stage {}: checking its data", config.name);
    const Dataset dataset(config.data);
    reports.push_back(validate_data(make_preparer(checkpoint, config_, config, dataset), options));
  }
  return reports;
}

}  // namespace llava
