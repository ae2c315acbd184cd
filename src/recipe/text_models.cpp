#include "recipe/parts.h"

// Language models by themselves (specification section 1.10 and the published config.json files).
namespace llava::recipes {

DecoderConfig llama(std::int64_t hidden, std::int64_t layers, std::int64_t heads, std::int64_t kv_heads,
                    std::int64_t ffn) {
  DecoderConfig decoder;
  decoder.model_type = "llama";
  decoder.hidden_size = hidden;
  decoder.num_hidden_layers = layers;
  decoder.num_attention_heads = heads;
  decoder.num_key_value_heads = kv_heads;
  decoder.head_dim = hidden / heads;
  decoder.intermediate_size = ffn;
  decoder.rms_norm_eps = 1e-5;
  return decoder;
}

DecoderConfig vicuna_7b() {
  DecoderConfig decoder = llama(4096, 32, 32, 32, 11008);
  decoder.max_position_embeddings = 4096;
  return decoder;
}

DecoderConfig vicuna_13b() {
  DecoderConfig decoder = llama(5120, 40, 40, 40, 13824);
  decoder.max_position_embeddings = 4096;
  return decoder;
}

DecoderConfig smollm2_135m() {
  DecoderConfig decoder = llama(576, 30, 9, 3, 1536);
  decoder.vocab_size = 49152;
  decoder.max_position_embeddings = 8192;
  decoder.rope_theta = 100000.0;
  decoder.tie_word_embeddings = true;
  return decoder;
}

DecoderConfig mistral_7b() {
  DecoderConfig decoder = llama(4096, 32, 32, 8, 14336);
  decoder.model_type = "mistral";
  decoder.max_position_embeddings = 32768;
  decoder.rope_theta = 1e6;
  return decoder;
}

DecoderConfig llama3_8b() {
  DecoderConfig decoder = llama(4096, 32, 32, 8, 14336);
  decoder.vocab_size = 128256;
  decoder.max_position_embeddings = 8192;
  decoder.rope_theta = 5e5;
  return decoder;
}

DecoderConfig llama31_8b() {
  DecoderConfig decoder = llama3_8b();
  decoder.max_position_embeddings = 131072;
  decoder.rope_scaling = {.type = RopeType::kLlama3,
                          .factor = 8,
                          .low_freq_factor = 1,
                          .high_freq_factor = 4,
                          .original_max_position_embeddings = 8192};
  return decoder;
}

DecoderConfig yi_34b() {
  DecoderConfig decoder = llama(7168, 60, 56, 8, 20480);
  decoder.vocab_size = 64000;
  decoder.max_position_embeddings = 4096;
  decoder.rope_theta = 5e6;
  return decoder;
}

namespace {

DecoderConfig qwen2(DecoderConfig decoder, std::int64_t vocabulary = 152064) {
  decoder.model_type = "qwen2";
  decoder.vocab_size = vocabulary;
  decoder.max_position_embeddings = 32768;
  decoder.rms_norm_eps = 1e-6;
  decoder.rope_theta = 1e6;
  decoder.attention_bias = true;
  return decoder;
}

}  // namespace

DecoderConfig qwen2_half_b() {
  DecoderConfig decoder = qwen2(llama(896, 24, 14, 2, 4864), 151936);
  decoder.tie_word_embeddings = true;
  return decoder;
}

DecoderConfig qwen2_7b() { return qwen2(llama(3584, 28, 28, 4, 18944)); }
DecoderConfig qwen2_72b() { return qwen2(llama(8192, 80, 64, 8, 29568)); }
DecoderConfig qwen15_72b() { return qwen2(llama(8192, 80, 64, 64, 24576)); }
DecoderConfig qwen15_110b() { return qwen2(llama(8192, 80, 64, 8, 49152)); }

namespace {

void add(std::vector<Recipe>& table, std::string name, std::string family, std::string source,
         DecoderConfig decoder, std::string chat_format = {}) {
  Recipe recipe;
  recipe.name = std::move(name);
  recipe.family = std::move(family);
  recipe.kind = RecipeKind::kText;
  recipe.source = std::move(source);
  recipe.model.decoder = std::move(decoder);
  recipe.model.torch_dtype = "bfloat16";
  recipe.chat_format = std::move(chat_format);
  table.push_back(std::move(recipe));
}

}  // namespace

void add_text_models(std::vector<Recipe>& table) {
  add(table, "llama-7b", "llama", "lmsys/vicuna-7b-v1.5 (Llama 2 7B)", vicuna_7b(), "vicuna_v1");
  add(table, "llama-13b", "llama", "lmsys/vicuna-13b-v1.5 (Llama 2 13B)", vicuna_13b(), "vicuna_v1");
  add(table, "llama-1.1b", "llama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", llama(2048, 22, 32, 4, 5632));
  add(table, "llama-3-8b", "llama", "meta-llama/Meta-Llama-3-8B-Instruct", llama3_8b(), "llava_llama_3");
  add(table, "smollm2-135m", "llama", "HuggingFaceTB/SmolLM2-135M-Instruct", smollm2_135m());
  add(table, "mistral-7b", "mistral", "mistralai/Mistral-7B-Instruct-v0.2", mistral_7b(),
      "mistral_instruct");
  add(table, "qwen2-7b", "qwen2", "Qwen/Qwen2-7B-Instruct", qwen2_7b(), "qwen_2");
  add(table, "qwen2-0.5b", "qwen2", "Qwen/Qwen2-0.5B-Instruct", qwen2_half_b(), "qwen_2");
}

}  // namespace llava::recipes
