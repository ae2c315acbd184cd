#pragma once
#include <string>

#include "base/json.h"
#include "train/plan.h"

namespace llava {

/// A plan for people: a table of each stage.
std::string plan_text(const RunPlan& plan);

/// A plan for machines: a line a stage.
OrderedJson plan_json(const RunPlan& plan, const StagePlan& stage);

}  // namespace llava
