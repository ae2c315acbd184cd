#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "model/batch.h"
#include "model/llava_model.h"

namespace llava {

/// A sample as the report shows it: {"kind", "sample" (where it is from), "images", "pieces"}; a piece is a
/// run of masked, trained or media tokens as text.
OrderedJson describe_sample(const PreparedSample& sample, const Dataset& dataset, TurnMode turns,
                            RecordKind record, const Tokenizer& tokenizer, const char* kind);

/// What the model answers to the sample's first question, the likeliest token each time, up to `max_tokens`
/// or a stop id or the token the sample's own answer ends with. No gradient, no random numbers.
std::string answer_first_question(
    LlavaModel& model, const PreparedSample& sample,
    const std::function<MultimodalBatch(const std::vector<const PreparedSample*>&)>& make_batch,
    const CheckpointInfo& checkpoint, std::int64_t max_tokens);

}  // namespace llava
