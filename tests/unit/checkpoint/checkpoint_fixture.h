#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "formats/tensor_file.h"
#include "support/golden.h"

namespace llava::test {

template <class Body>
void expect_error(ErrorKind kind, const std::string& part, Body&& body) {
  try {
    body();
    FAIL() << "no error with \"" << part << "\"";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

/// A Llama of width 4 with four words.
inline Json text_config() {
  return {{"model_type", "llama"},    {"vocab_size", 4},        {"hidden_size", 4},
          {"intermediate_size", 8},   {"num_hidden_layers", 2}, {"num_attention_heads", 2},
          {"num_key_value_heads", 2}, {"rms_norm_eps", 1e-5},   {"max_position_embeddings", 32}};
}

/// float32 zeros [4,4] under each name.
inline void write_zeros(const std::filesystem::path& path, const std::vector<std::string>& names) {
  static const std::vector<std::byte> zeros(64);
  SafetensorsWriter writer;
  for (const std::string& name : names) writer.add(name, DType::kF32, {4, 4}, zeros);
  writer.write(path);
}

/// A folder with config.json and a model.safetensors of 4x4 zeros.
inline std::filesystem::path write_model(const std::string& name, const Json& config,
                                         const std::vector<std::string>& tensors) {
  const std::filesystem::path folder = scratch_dir(name);
  write_text(folder / "config.json", config.dump());
  write_zeros(folder / "model.safetensors", tensors);
  return folder;
}

}  // namespace llava::test
