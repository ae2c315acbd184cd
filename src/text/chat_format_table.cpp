#include "text/chat_format_table.h"

namespace llava {

namespace {

const char* const kHumanSystem =
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions.";
const char* const kUserSystem =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.";
const char* const kTagSystem =
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able "
    "to understand the visual content that the user provides, and assist the user with a variety of "
    "tasks using natural language.The visual content will be provided with the following format: "
    "<Image>visual content</Image>.";
const char* const kVisionSystem =
    "You are a helpful language and vision assistant. You are able to understand the visual content "
    "that the user provides, and assist the user with a variety of tasks using natural language.";
const char* const kLlama2System =
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, "
    "while being safe.  Your answers should not include any harmful, unethical, racist, sexist, "
    "toxic, dangerous, or illegal content. Please ensure that your responses are socially unbiased "
    "and positive in nature.\n"
    "\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of "
    "answering something not correct. If you don't know the answer to a question, please don't share "
    "false information.";
const char* const kMptSystem =
    "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and "
    "honest answers.";
const char* const kOrcaSystem =
    "You are MistralOrca, a large language model trained by Alignment Lab AI. Write out your "
    "reasoning step-by-step to be sure you get the right answers!";

/// The worked example that the first Vicuna format carries (offset 2 upstream).
const char* const kExampleQuestion =
    "What are the key differences between renewable and non-renewable energy sources?";
const char* const kExampleAnswer =
    "Renewable energy sources are those that can be replenished naturally in a relatively short "
    "amount of time, such as solar, wind, hydro, geothermal, and biomass. Non-renewable energy "
    "sources, on the other hand, are finite and will eventually be depleted, such as coal, oil, and "
    "natural gas. Here are some key differences between renewable and non-renewable energy sources:\n"
    "1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable "
    "energy sources are finite and will eventually run out.\n"
    "2. Environmental impact: Renewable energy sources have a much lower environmental impact than "
    "non-renewable sources, which can lead to air and water pollution, greenhouse gas emissions, and "
    "other negative effects.\n"
    "3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically "
    "have lower operational costs than non-renewable sources.\n"
    "4. Reliability: Renewable energy sources are often more reliable and can be used in more remote "
    "locations than non-renewable sources.\n"
    "5. Flexibility: Renewable energy sources are often more flexible and can be adapted to "
    "different situations and needs, while non-renewable sources are more rigid and inflexible.\n"
    "6. Sustainability: Renewable energy sources are more sustainable over the long term, while "
    "non-renewable sources are not, and their depletion can lead to economic and social instability.\n";

const UpstreamMask kCountedTurns = {UpstreamMask::Kind::kCountedTurns, {}};
const UpstreamMask kQwenTokens = {UpstreamMask::Kind::kRoleTokens, {"\n", "<|im_start|>", "<|im_end|>"}};
/// Upstream's list has "\n\n" too, but looks it up by its text where the vocabulary has "ĊĊ", and finds none.
const UpstreamMask kLlama3Tokens = {
    UpstreamMask::Kind::kRoleTokens,
    {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}};

NamedFormat single(std::vector<std::string> names, std::string system) {
  return {.names = std::move(names),
          .style = ChatStyle::kSingle,
          .system = std::move(system),
          .user = "Human",
          .assistant = "Assistant",
          .sep = "###",
          .end = "###",
          .stop = {"###"},
          .upstream = kCountedTurns};
}

NamedFormat two(std::vector<std::string> names, std::string system) {
  return {.names = std::move(names),
          .style = ChatStyle::kTwo,
          .system = std::move(system),
          .user = "USER",
          .assistant = "ASSISTANT",
          .sep = " ",
          .end = "</s>",
          .stop = {"</s>"}};
}

NamedFormat llama2(std::vector<std::string> names, std::string system, std::string sep) {
  return {.names = std::move(names),
          .style = ChatStyle::kLlama2,
          .system = std::move(system),
          .sep = std::move(sep),
          .end = "</s>",
          .stop = {"</s>"}};
}

NamedFormat plain(std::vector<std::string> names) {
  return {.names = std::move(names), .style = ChatStyle::kPlain, .sep = "\n", .end = "\n", .stop = {"\n"}};
}

NamedFormat chatml(std::vector<std::string> names, std::string system, std::string newline,
                   UpstreamMask upstream = {}) {
  return {.names = std::move(names),
          .style = ChatStyle::kHeaders,
          .system = std::move(system),
          .user = "<|im_start|>user\n",
          .assistant = "<|im_start|>assistant\n",
          .end = "<|im_end|>",
          .stop = {"<|im_end|>"},
          .system_header = "<|im_start|>system\n",
          .newline = std::move(newline),
          .upstream = std::move(upstream)};
}

NamedFormat with_example(NamedFormat format) {
  format.examples = {{kExampleQuestion, kExampleAnswer}};
  return format;
}

std::vector<NamedFormat> make_table() {
  return {
      two({"vicuna_v1", "v1"}, kUserSystem),
      two({"llava_v1"}, kHumanSystem),
      two({"v1_mmtag"}, kTagSystem),
      two({"user_assistant", "llava_hf"}, ""),
      single({"llava_v0"}, kHumanSystem),
      with_example(single({"vicuna_v0", "v0", "default"}, kHumanSystem)),
      single({"v0_mmtag"}, kTagSystem),
      plain({"plain", "llava_plain", "v0_plain"}),
      llama2({"llama_2"}, kLlama2System, "<s>"),
      llama2({"llava_llama_2"}, kVisionSystem, "<s>"),
      llama2({"mistral_instruct"}, "", ""),
      chatml({"mpt"}, kMptSystem, ""),
      chatml({"chatml_direct", "mistral_direct"}, "Answer the questions.", ""),
      chatml({"mistral_orca"}, kOrcaSystem, ""),
      chatml({"chatml"}, "", "\n"),
      chatml({"qwen_1_5", "qwen_2"}, "You are a helpful assistant.", "\n", kQwenTokens),
      chatml({"qwen_2_5"}, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", "\n",
             kQwenTokens),
      {.names = {"mistral_zephyr"},
       .style = ChatStyle::kHeaders,
       .system = "You are a helpful AI assistant.",
       .user = "<|user|>\n",
       .assistant = "<|assistant|>\n",
       .end = "</s>",
       .stop = {"</s>"},
       .system_header = "<|system|>\n"},
      {.names = {"llava_llama_3", "llama_3"},
       .style = ChatStyle::kHeaders,
       .system = kVisionSystem,
       .user = "<|start_header_id|>user<|end_header_id|>\n\n",
       .assistant = "<|start_header_id|>assistant<|end_header_id|>\n\n",
       .end = "<|eot_id|>",
       .stop = {"<|eot_id|>", "<|end_of_text|>"},
       .prefix = "<|begin_of_text|>",
       .system_header = "<|start_header_id|>system<|end_header_id|>\n\n",
       .strips = true,
       .upstream = kLlama3Tokens},
      {.names = {"gemma_instruct", "gemma"},
       .style = ChatStyle::kHeaders,
       .user = "<start_of_turn>user\n",
       .assistant = "<start_of_turn>model\n",
       .end = "<end_of_turn>\n",  // upstream trains the line break too
       .stop = {"<end_of_turn>"}},
  };
}

}  // namespace

const std::vector<NamedFormat>& named_formats() {
  static const std::vector<NamedFormat> kTable = make_table();
  return kTable;
}

}  // namespace llava
