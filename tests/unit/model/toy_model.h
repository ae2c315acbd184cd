#pragma once
#include <memory>

#include "config/model_config.h"
#include "loader/load_model.h"

namespace llava::test {

/// A small model of random weights with a CLIP tower (4 patches), GQA and an MLP connector.
inline ModelConfig toy_config() {
  ModelConfig config;
  TowerConfig tower;
  tower.hidden_size = 16, tower.intermediate_size = 24, tower.num_hidden_layers = 3,
  tower.num_attention_heads = 2;
  tower.image_size = tower.input_size = 28;
  config.tower = tower;
  config.connector.in_size = 16, config.connector.hidden_size = 32;
  DecoderConfig& d = config.decoder;
  d.vocab_size = 80, d.hidden_size = 32, d.intermediate_size = 48, d.num_hidden_layers = 3;
  d.num_attention_heads = 4, d.num_key_value_heads = 2, d.head_dim = 8, d.max_position_embeddings = 64;
  config.image_token_id = 79;
  return config;
}

inline std::unique_ptr<LlavaModel> toy_model(const ModelConfig& config, std::uint64_t seed = 1) {
  return random_model(config, seed, {});
}

}  // namespace llava::test
