#pragma once
#include <memory>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "model/llava_model.h"
#include "model/vision_tower.h"
#include "model/weights.h"

namespace llava {

/// One weight a config needs: canonical name and shape.
struct WeightSpec {
  std::string name;
  std::vector<std::int64_t> shape;
  std::int64_t num_elements() const;
};

/// All weights `config` needs, in the order of LlavaModel::parameters(). Tower blocks above the last
/// selected layer are not among them. Error as ModelConfig::validate.
std::vector<WeightSpec> weight_specs(const ModelConfig& config);

/// The tower's part of weight_specs, for a tower alone.
std::vector<WeightSpec> tower_specs(const TowerConfig& config);

/// Builds the model; every weight is read once. The reader's tensors are used as they are (no copy).
std::unique_ptr<LlavaModel> build_model(const ModelConfig& config, WeightReader& reader,
                                        c10::ScalarType dtype, c10::Device device);

}  // namespace llava
