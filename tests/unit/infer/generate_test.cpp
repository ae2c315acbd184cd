#include "infer/generate.h"

#include "base/error.h"
#include "infer/image_store.h"
#include "infer_fixture.h"
#include "model/kv_cache.h"
#include "prompt/prompt.h"

namespace llava {
namespace {

struct Request {
  Prompt prompt;
  CollateRow row;
};

/// The case's prompt text and images as HF was given them.
Request request_of(const test::GoldenModel& golden, const Json& entry) {
  Request request;
  const CheckpointInfo& checkpoint = golden.bundle.checkpoint;
  std::vector<MediaPlan> plans;
  const Json images = entry.contains("images") ? entry.at("images") : Json::array({entry.at("image")});
  for (const Json& name : images) {
    const ImagePixels image =
        load_pixels(test::image_path(name), *checkpoint.image_policy, checkpoint.model);
    plans.push_back(image.plan);
    request.row.media.push_back(image.pixels);
  }
  request.prompt = prompt_from_text(entry.at("prompt").get<std::string>(), plans, *checkpoint.tokenizer,
                                    checkpoint.model, checkpoint.tokenisation);
  return request;
}

GenerateOptions sixteen() {
  GenerateOptions options;
  options.sampling.max_new_tokens = 16;
  options.sampling.ignore_eos = true;
  return options;
}

std::vector<std::int64_t> answer_ids(LlavaModel& model, const Prompt& prompt, CollateRow row,
                                     const GenerateOptions& options) {
  row.prompt = &prompt;
  GenerationStats stats;
  return generate(model, {&row, 1}, options, stats)[0].ids;
}

class GreedyGolden : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, GreedyGolden, testing::Values("llava15", "llava_siglip", "llava15_orig"),
                         [](const auto& entry) { return std::string(entry.param); });

TEST_P(GreedyGolden, TokensEqualHuggingFace) {
  LLAVA_MODEL_OR_SKIP(golden, GetParam());
  for (const auto& [name, entry] : golden->cases.items()) {
    if (!entry.contains("prompt")) continue;
    const Request request = request_of(*golden, entry);
    EXPECT_EQ(answer_ids(*golden->bundle.model, request.prompt, request.row, sixteen()),
              golden->ids(name + "/greedy"))
        << name;
  }
}

TEST(Generate, BatchEqualsHuggingFaceAndSingles) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  const Json& batch = golden->cases.at("batch");
  std::vector<Request> requests;
  for (const Json& prompt : batch.at("prompts")) {
    const bool image = prompt.get<std::string>().find("<image>") != std::string::npos;
    requests.push_back(
        request_of(*golden, {{"prompt", prompt}, {"images", image ? batch.at("images") : Json::array()}}));
  }
  std::vector<CollateRow> rows;
  for (Request& request : requests) {
    rows.push_back(request.row);
    rows.back().prompt = &request.prompt;
  }
  GenerationStats stats;
  const std::vector<Generation> answers = generate(*golden->bundle.model, rows, sixteen(), stats);
  const std::vector<std::int64_t> expected = golden->ids("batch/greedy");
  ASSERT_EQ(answers.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(answers[i].ids,
              std::vector<std::int64_t>(expected.begin() + 16 * i, expected.begin() + 16 * (i + 1)));
    EXPECT_EQ(answers[i].ids,
              answer_ids(*golden->bundle.model, requests[i].prompt, requests[i].row, sixteen()));
  }
  EXPECT_EQ(stats.new_tokens, 32);
  EXPECT_EQ(stats.image_tokens, 64);
}

TEST(Generate, StopsAtAStopIdWhichIsNoPartOfTheAnswer) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  const Request request = request_of(*golden, golden->cases.at("text"));
  const std::vector<std::int64_t> all = golden->ids("text/greedy");
  GenerateOptions options = sixteen();
  options.sampling.ignore_eos = false;
  options.sampling.stop_ids = {all[5]};
  const auto first = std::find(all.begin(), all.end(), all[5]);
  EXPECT_EQ(answer_ids(*golden->bundle.model, request.prompt, request.row, options),
            std::vector<std::int64_t>(all.begin(), first));
}

TEST(Generate, StopsBeforeAStopString) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  Request request = request_of(*golden, golden->cases.at("text"));
  request.row.prompt = &request.prompt;
  GenerateOptions options = sixteen();
  options.tokenizer = golden->bundle.checkpoint.tokenizer.get();
  GenerationStats stats;
  const Generation all = generate(*golden->bundle.model, {&request.row, 1}, options, stats)[0];
  ASSERT_GT(all.text.size(), 8u);
  const std::string stop = all.text.substr(all.text.size() / 2, 3);
  options.sampling.stop_strings = {stop};
  std::string streamed;
  options.on_text = [&](std::size_t, std::string_view text) { streamed += text; };
  const Generation cut = generate(*golden->bundle.model, {&request.row, 1}, options, stats)[0];
  EXPECT_EQ(cut.text, all.text.substr(0, all.text.find(stop)));
  EXPECT_EQ(streamed, cut.text);
  EXPECT_EQ(cut.reason, StopReason::kStopString);
}

TEST(Generate, EndsWhereTheContextEnds) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  const Request request = request_of(*golden, golden->cases.at("text"));
  GenerateOptions options = sixteen();
  options.context_length = static_cast<std::int64_t>(request.prompt.ids.size()) + 3;
  EXPECT_EQ(answer_ids(*golden->bundle.model, request.prompt, request.row, options).size(), 3u);
  options.context_length = static_cast<std::int64_t>(request.prompt.ids.size());
  EXPECT_THROW(answer_ids(*golden->bundle.model, request.prompt, request.row, options), Error);
}

TEST(Generate, ACancelledAnswerKeepsItsBeginning) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  Request request = request_of(*golden, golden->cases.at("text"));
  request.row.prompt = &request.prompt;
  const std::atomic<bool> cancel = true;
  GenerateOptions options = sixteen();
  options.cancel = &cancel;
  GenerationStats stats;
  const Generation answer = generate(*golden->bundle.model, {&request.row, 1}, options, stats)[0];
  EXPECT_EQ(answer.reason, StopReason::kCancelled);
  EXPECT_EQ(answer.ids.size(), 1u);
}

TEST(Generate, AStoredPrefixChangesNothing) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  Request request = request_of(*golden, golden->cases.at("image_rgb_640x480.png"));
  request.row.prompt = &request.prompt;
  const auto capacity = static_cast<std::int64_t>(request.prompt.ids.size()) + 16;
  const auto cache = golden->bundle.model->make_cache(1, capacity);
  GenerationStats stats;
  const auto first =
      generate(*golden->bundle.model, {&request.row, 1}, sixteen(), stats, cache.get())[0].ids;
  EXPECT_EQ(stats.reused_tokens, 0);
  const MediaSpan span = request.prompt.media_spans.at(0);
  for (const std::size_t keep :
       {request.prompt.ids.size() - 1, span.begin + span.len, span.begin, std::size_t{1}}) {
    cache->truncate(static_cast<std::int64_t>(keep));
    EXPECT_EQ(generate(*golden->bundle.model, {&request.row, 1}, sixteen(), stats, cache.get())[0].ids,
              first)
        << keep;
    EXPECT_EQ(stats.reused_tokens, static_cast<std::int64_t>(keep));
  }
}

TEST(Generate, SamplingDependsOnTheSeedAlone) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  const Request request = request_of(*golden, golden->cases.at("text"));
  GenerateOptions options = sixteen();
  options.sampling.temperature = 1.0;
  options.sampling.seed = 3;
  const auto first = answer_ids(*golden->bundle.model, request.prompt, request.row, options);
  EXPECT_EQ(answer_ids(*golden->bundle.model, request.prompt, request.row, options), first);
  options.sampling.seed = 4;
  EXPECT_NE(answer_ids(*golden->bundle.model, request.prompt, request.row, options), first);
}

}  // namespace
}  // namespace llava
