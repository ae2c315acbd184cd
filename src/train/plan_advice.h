#pragma once
#include <functional>
#include <string>

#include "train/memory_plan.h"

namespace llava {

/// A stage and its surroundings that could be changed so that it fits.
struct PlanVariant {
  StageConfig stage;
  MemorySetup setup;
  double part = 1;  ///< of the micro-batch's rows
};

/// The first of a few usual changes, added one after the other, with which `peak` is at most `limit`, as
/// keys of the config; what to do where none is enough.
std::string advise_to_fit(PlanVariant variant, std::int64_t rows, double limit,
                          const std::function<double(const PlanVariant&)>& peak);

}  // namespace llava
