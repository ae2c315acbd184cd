#pragma once
#include <c10/core/Device.h>

#include <string>

#include "train/step_objective.h"

namespace llava {

/// The decoder that `chat` uses, as objective grpo wants it.
AnswerSampler make_answer_sampler();

/// A critic that scores answers as `judge` does, from 0 to 1; its words are bounded and drawn greedily.
/// Words without a score count 0. The model is loaded with the first question.
AnswerJudge make_answer_judge(const std::string& model, c10::Device device);

}  // namespace llava
