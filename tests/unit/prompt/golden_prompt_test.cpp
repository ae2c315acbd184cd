#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "formats/tensor_file.h"
#include "prompt_test_support.h"

namespace llava {
namespace {

using test::model_with;
using test::plans;

std::vector<std::int64_t> tensor(const TensorFile& file, const std::string& name,
                                 std::vector<std::int64_t>* shape = nullptr) {
  const TensorView* view = file.find(name);
  if (view == nullptr || view->dtype != DType::kI64) throw std::runtime_error("no I64 tensor " + name);
  std::vector<std::int64_t> values(static_cast<std::size_t>(view->num_elements()));
  std::memcpy(values.data(), view->bytes.data(), view->bytes.size());
  if (shape != nullptr) *shape = view->shape;
  return values;
}

/// One row of a right-padded batch, cut to `len`.
std::vector<std::int64_t> row(const std::vector<std::int64_t>& values,
                              const std::vector<std::int64_t>& shape, std::size_t i, std::size_t len) {
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(i) * shape[1];
  return {begin, begin + static_cast<std::ptrdiff_t>(std::min(len, static_cast<std::size_t>(shape[1])))};
}

TEST(GoldenPrompt, OriginalLabelsAreReproduced) {
  LLAVA_GOLDEN_OR_SKIP(path, "original_labels.json");
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava15_orig");
  const Json golden = Json::parse(read_file(path));
  std::size_t cases = 0;
  for (const auto& [name, rows] : golden["labels"].items())
    for (const Json& sample : rows) {
      if (sample.contains("error")) continue;
      const std::vector<std::int64_t> ids = sample["input_ids"], labels = sample["labels"];
      Json record = {{"id", sample["sample"]}, {"conversations", sample["conversations"]}};
      std::string text;
      for (const Json& turn : sample["conversations"]) text += turn["value"].get<std::string>();
      Json images = Json::array();
      for (std::size_t at = text.find("<image>"); at != std::string::npos;
           at = text.find("<image>", at + 1))
        images.push_back("x");
      record["images"] = images;
      const Conversation conversation = conversation_from_llava(
          record, {.placement = ImagePlacement::kAllFirst, .drop_leading_answers = name != "v0"});
      const auto count = static_cast<std::size_t>(std::count(ids.begin(), ids.end(), -200));
      const Prompt prompt = build_prompt(
          conversation, plans(std::vector<std::int64_t>(count, 1)), *find_chat_format(name), tokenizer,
          model_with(-200),
          {.mode = PromptMode::kTrain, .tokenisation = ImageTokenisation::kChunks, .upstream_masks = true});
      EXPECT_EQ(prompt.ids, ids) << name << " " << sample["sample"];
      EXPECT_EQ(prompt.labels, labels) << name << " " << sample["sample"];
      ++cases;
    }
  EXPECT_GE(cases, 20U);
}

TEST(GoldenPrompt, TrainingBatchesAreReproduced) {
  LLAVA_GOLDEN_OR_SKIP(folder, "train");
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava15");
  const auto file = open_safetensors(folder / "train.safetensors");
  const auto format = find_chat_format("user_assistant");
  const PromptOptions options{.mode = PromptMode::kTrain, .tokenisation = ImageTokenisation::kSegments};
  const auto expect_row = [&](const Conversation& c, const std::string& batch, std::size_t i) {
    const Prompt prompt = build_prompt(c, plans(std::vector<std::int64_t>(c.num_images(), 64)), *format,
                                       tokenizer, model_with(2048), options);
    std::vector<std::int64_t> shape;
    const auto mask = tensor(*file, batch + "/attention_mask", &shape);
    const auto full = row(mask, shape, i, static_cast<std::size_t>(shape[1]));
    const auto len = static_cast<std::size_t>(std::count(full.begin(), full.end(), 1));
    EXPECT_EQ(prompt.ids, row(tensor(*file, batch + "/input_ids"), shape, i, len)) << batch << " row " << i;
    EXPECT_EQ(prompt.labels, row(tensor(*file, batch + "/labels"), shape, i, len)) << batch << " row " << i;
  };
  const Json data = Json::parse(read_file(folder / "data.json"));
  for (std::size_t i = 0; i < data.size(); ++i)
    expect_row(conversation_from_llava(data[i]), fmt::format("batch{}", i / 4), i % 4);
  const Json pairs = Json::parse(read_file(folder / "preference.json"));
  for (std::size_t i = 0; i < pairs.size(); ++i)
    for (const char* side : {"chosen", "rejected"})
      expect_row(conversation_from_llava({{"image", "x"},
                                          {"conversations",
                                           {{{"from", "human"}, {"value", pairs[i]["prompt"]}},
                                            {{"from", "gpt"}, {"value", pairs[i][side]}}}}}),
                 fmt::format("dpo_batch{}/{}", i / 4, side), i % 4);
}

/// Checkpoint folder -> ids of its chat template's prompts, and the input_ids of the models' goldens.
class GoldenIds : public testing::TestWithParam<const char*> {};

TEST_P(GoldenIds, TemplatesTokeniseAsInTransformers) {
  const std::string name = GetParam();
  LLAVA_GOLDEN_OR_SKIP(path, "chat_templates.json");
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, name);
  const Json checkpoint = Json::parse(read_file(path)).value(name, Json());
  if (checkpoint.is_null()) GTEST_SKIP() << name << " is not in the golden";
  const auto token = [&](std::optional<std::int64_t> id) {
    return id ? tokenizer.id_to_token(*id) : std::string();
  };
  const auto format = chat_format_from_jinja(
      checkpoint["template"],
      {{"bos_token", token(tokenizer.bos_id())}, {"eos_token", token(tokenizer.eos_id())}});
  for (const Json& c : checkpoint["cases"]) {
    if (!c["add_generation_prompt"]) continue;
    const Conversation conversation = conversation_from_messages(c["messages"]);
    std::vector<std::int64_t> ids = c["ids"];
    const auto image = tokenizer.token_to_id("<image>").value_or(-200);
    // HF tokenises with the template's BOS only, and parses what users typed.
    const PromptOptions options{.user_text_special = true};
    const std::size_t media = conversation.num_media();
    if (media > 0 && c["name"] == "video" &&
        checkpoint["template"].get<std::string>().find("<video>") == std::string::npos) {
      ModelConfig model = model_with(image);
      model.media.video_token_id = 5;
      EXPECT_THROW(build_prompt(conversation, plans({1}), *format, tokenizer, model, options), Error);
      continue;
    }
    Prompt prompt = build_prompt(conversation, plans(std::vector<std::int64_t>(media, 1)), *format,
                                 tokenizer, model_with(image), options);
    for (std::int64_t& id : ids)
      if (media > 0 && id == tokenizer.token_to_id("<video>")) id = image;
    if (tokenizer.bos_id() && !ids.empty() && ids.front() != *tokenizer.bos_id() &&
        prompt.ids.front() == *tokenizer.bos_id())
      prompt.ids.erase(prompt.ids.begin());
    EXPECT_EQ(prompt.ids, ids) << name << " " << c["name"];
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenIds,
                         testing::Values("llama3", "llava15", "llava_next_mistral", "llava_next_video",
                                         "llava_onevision", "llava_siglip", "mistral"));

TEST(GoldenPrompt, RawPromptsOfTheModels) {
  for (const char* name : {"llava15", "llava_siglip", "llava_next_mistral", "llava_onevision"}) {
    LLAVA_GOLDEN_OR_SKIP(json_path, std::string("models/") + name + ".json");
    LLAVA_GOLDEN_OR_SKIP(tensors, std::string("models/") + name + ".safetensors");
    LLAVA_TOKENIZER_OR_SKIP(tokenizer, name);
    const auto file = open_safetensors(tensors);
    std::size_t cases = 0;
    const Json golden = Json::parse(read_file(json_path));
    for (const auto& [key, info] : golden.items()) {
      if (!info.contains("prompt") || !info["prompt"].is_string() ||
          file->find(key + "/input_ids") == nullptr)
        continue;
      const auto ids = tensor(*file, key + "/input_ids");
      const auto image = *tokenizer.token_to_id("<image>");
      std::vector<std::int64_t> counts;  // of each run of image tokens
      for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] == image) (i > 0 && ids[i - 1] == image ? counts.back() : counts.emplace_back(0)) += 1;
      const std::string text = info["prompt"];
      if (text.find("<image><image>") != std::string::npos || text.find("<video>") != std::string::npos)
        continue;
      const Prompt prompt = prompt_from_text(text, plans(counts), tokenizer, model_with(image),
                                             ImageTokenisation::kWholeString);
      EXPECT_EQ(prompt.ids, ids) << name << " " << key;
      EXPECT_EQ(prompt.media_spans.size(), counts.size());
      for (const MediaSpan& span : prompt.media_spans)
        EXPECT_EQ(span.len, static_cast<std::size_t>(counts[span.item]));
      ++cases;
    }
    EXPECT_GE(cases, 2U) << name;
  }
}

TEST(GoldenPrompt, ChunksOfTheOriginalLayout) {
  for (const char* name : {"llava15_orig", "llava_next_orig"}) {
    LLAVA_GOLDEN_OR_SKIP(json_path, std::string("models/") + name + ".json");
    LLAVA_GOLDEN_OR_SKIP(tensors, std::string("models/") + name + ".safetensors");
    LLAVA_TOKENIZER_OR_SKIP(tokenizer, name);
    const auto file = open_safetensors(tensors);
    const Json golden = Json::parse(read_file(json_path));
    for (const auto& [key, info] : golden.items()) {
      const Prompt prompt = prompt_from_text(info["prompt"].get<std::string>(), plans({1}), tokenizer,
                                             model_with(-200), ImageTokenisation::kChunks);
      EXPECT_EQ(prompt.ids, tensor(*file, key + "/input_ids")) << name << " " << key;
    }
  }
}

}  // namespace
}  // namespace llava
