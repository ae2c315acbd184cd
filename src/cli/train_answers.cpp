#include "cli/train_answers.h"

#include <memory>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/signals.h"
#include "infer/generate.h"
#include "infer/session.h"
#include "judge/critic.h"

namespace llava {

namespace {

constexpr std::int64_t kJudgeTokens = 512;

/// A model that scores; loaded when first asked.
class Critic {
 public:
  explicit Critic(OpenOptions options) : options_(std::move(options)) {}
  double score(const JudgedAnswer& answer) {
    if (!session_) open();
    session_->clear();
    for (const auto& image : answer.images) session_->add_image(image);
    const Answer words = session_->ask(pointwise_prompt(answer.question, answer.answer), {}, &stop_flag());
    if (words.reason == StopReason::kCancelled) fail(ErrorKind::kStopped, "stopped");
    const auto score = parse_score(words.text);
    if (!score && ++unclear_ <= 3)
      log_warning("judge", "no score in \"{}\": it counts 0", words.text.substr(0, 80));
    return score.value_or(0) / 100;
  }

 private:
  void open() {
    CheckpointInfo checkpoint = open_checkpoint(options_);
    check_can_chat(checkpoint);
    bundle_.emplace(load_bundle(std::move(checkpoint), options_));
    SessionOptions session;
    session.sampling.max_new_tokens = kJudgeTokens;
    session_.emplace(*bundle_, session);
  }

  OpenOptions options_;
  std::optional<ModelBundle> bundle_;
  std::optional<ChatSession> session_;
  int unclear_ = 0;
};

}  // namespace

AnswerSampler make_answer_sampler() {
  return [](LlavaModel& model, const Tokenizer& tokenizer, std::span<const CollateRow> rows,
            const SamplingParams& params) {
    GenerateOptions options;
    options.sampling = params;
    options.tokenizer = &tokenizer;
    GenerationStats stats;
    std::vector<DrawnAnswer> answers;
    for (Generation& g : generate(model, rows, options, stats))
      answers.push_back({std::move(g.ids), g.stop_id,
                         g.reason == StopReason::kStopId || g.reason == StopReason::kStopString,
                         std::move(g.text)});
    return answers;
  };
}

AnswerJudge make_answer_judge(const std::string& model, c10::Device device) {
  OpenOptions options;
  options.model = model;
  options.device = device.str();
  const auto critic = std::make_shared<Critic>(std::move(options));
  return [critic](const JudgedAnswer& answer) { return critic->score(answer); };
}

}  // namespace llava
