#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint_fixture.h"
#include "support/golden.h"

namespace llava {
namespace {

using test::expect_error;

/// Writes small GGUF files: metadata of numbers, texts and lists, and float32 tensors of zeros.
class GgufBuilder {
 public:
  void integer(const std::string& key, std::uint32_t value) { entry(key, 4, raw(value)); }
  void real(const std::string& key, float value) { entry(key, 6, raw(value)); }
  void text(const std::string& key, const std::string& value) { entry(key, 8, string(value)); }
  void texts(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = raw(std::uint32_t{8}) + raw(std::uint64_t{values.size()});
    for (const std::string& value : values) bytes += string(value);
    entry(key, 9, bytes);
  }
  template <class T>
  void numbers(const std::string& key, std::uint32_t type, const std::vector<T>& values) {
    std::string bytes = raw(type) + raw(std::uint64_t{values.size()});
    for (const T value : values) bytes += raw(value);
    entry(key, 9, bytes);
  }
  void tensor(const std::string& name, std::uint64_t rows, std::uint64_t columns) {
    tensors_ += string(name) + raw(std::uint32_t{2}) + raw(columns) + raw(rows) + raw(std::uint32_t{0}) +
                raw(data_);
    data_ += (rows * columns * 4 + 31) / 32 * 32;
    ++num_tensors_;
  }
  std::filesystem::path write(const std::string& name) const {
    std::string bytes =
        "GGUF" + raw(std::uint32_t{3}) + raw(num_tensors_) + raw(num_keys_) + keys_ + tensors_;
    bytes.append((32 - bytes.size() % 32) % 32, '\0');
    bytes.append(data_, '\0');
    const auto path = test::scratch_dir(name) / "model.gguf";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

 private:
  template <class T>
  static std::string raw(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static std::string string(const std::string& value) { return raw(std::uint64_t{value.size()}) + value; }
  void entry(const std::string& key, std::uint32_t type, const std::string& value) {
    keys_ += string(key) + raw(type) + value;
    ++num_keys_;
  }
  std::string keys_, tensors_;
  std::uint64_t num_keys_ = 0, num_tensors_ = 0, data_ = 0;
};

GgufBuilder tiny_llama(const std::string& architecture = "llama") {
  GgufBuilder b;
  b.text("general.architecture", architecture);
  const std::string a = architecture + ".";
  b.integer(a + "block_count", 2);
  b.integer(a + "embedding_length", 8);
  b.integer(a + "feed_forward_length", 16);
  b.integer(a + "context_length", 64);
  b.integer(a + "attention.head_count", 4);
  b.integer(a + "attention.head_count_kv", 2);
  b.integer(a + "rope.dimension_count", 2);
  b.real(a + "attention.layer_norm_rms_epsilon", 1e-5F);
  b.real(a + "rope.freq_base", 100000.0F);
  b.text("tokenizer.ggml.model", "llama");
  b.texts("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "\u2581a"});
  b.numbers<float>("tokenizer.ggml.scores", 6, {0, 0, 0, -1});
  b.numbers<std::int32_t>("tokenizer.ggml.token_type", 5, {2, 3, 3, 1});
  b.integer("tokenizer.ggml.bos_token_id", 1);
  b.integer("tokenizer.ggml.eos_token_id", 2);
  b.integer("tokenizer.ggml.unknown_token_id", 0);
  b.tensor("token_embd.weight", 4, 8);
  return b;
}

TEST(GgufCheckpoint, ReadsDecoderAndTokenizer) {
  GgufBuilder b = tiny_llama();
  b.text("tokenizer.chat_template", "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}");
  const CheckpointInfo info = read_checkpoint(b.write("gguf-llama"));
  EXPECT_EQ(info.layout, Layout::kGguf);
  const DecoderConfig& d = info.model.decoder;
  EXPECT_EQ(d.model_type, "llama");
  EXPECT_EQ(d.hidden_size, 8);
  EXPECT_EQ(d.num_hidden_layers, 2);
  EXPECT_EQ(d.num_attention_heads, 4);
  EXPECT_EQ(d.num_key_value_heads, 2);
  EXPECT_EQ(d.head_dim, 2);
  EXPECT_EQ(d.vocab_size, 4);
  EXPECT_EQ(d.max_position_embeddings, 64);
  EXPECT_EQ(d.rms_norm_eps, 1e-5);  // the double, not the widened float
  EXPECT_EQ(d.rope_theta, 100000.0);
  EXPECT_TRUE(d.tie_word_embeddings);
  EXPECT_EQ(info.stop_ids, std::vector<std::int64_t>{2});
  EXPECT_EQ(info.model.bos_token_id, 1);
  ASSERT_TRUE(info.tokenizer);
  EXPECT_EQ(info.tokenizer->token_to_id("</s>"), 2);
  ASSERT_TRUE(info.chat_format);
  Conversation conversation;
  conversation.messages.push_back({"user", {{Part::Kind::kText, "hi"}}});
  EXPECT_EQ(info.chat_format->render_text(conversation, false), "<s>hi");
}

TEST(GgufCheckpoint, TensorsTellBiasesAndHead) {
  GgufBuilder b = tiny_llama("qwen2");
  b.tensor("output.weight", 4, 8);
  b.tensor("blk.0.attn_q.bias", 1, 8);
  const CheckpointInfo info = read_checkpoint(b.write("gguf-qwen"));
  EXPECT_EQ(info.model.decoder.model_type, "qwen2");
  EXPECT_FALSE(info.model.decoder.tie_word_embeddings);
  EXPECT_TRUE(info.model.decoder.attention_bias);
  EXPECT_FALSE(info.model.decoder.attention_out_bias);
}

TEST(GgufCheckpoint, AFolderWithOneFileIsThatFile) {
  const auto path = tiny_llama().write("gguf-folder");
  EXPECT_EQ(read_checkpoint(path.parent_path()).layout, Layout::kGguf);
}

TEST(GgufCheckpoint, UnsupportedMathsIsNamed) {
  expect_error(ErrorKind::kUnsupported, "gemma2",
               [] { read_checkpoint(tiny_llama("gemma2").write("gguf-gemma")); });
  GgufBuilder experts = tiny_llama();
  experts.integer("llama.expert_count", 8);
  expect_error(ErrorKind::kUnsupported, "expert_count",
               [&] { read_checkpoint(experts.write("gguf-moe")); });
  GgufBuilder factors = tiny_llama();
  factors.tensor("rope_freqs.weight", 1, 1);
  expect_error(ErrorKind::kUnsupported, "rope_freqs",
               [&] { read_checkpoint(factors.write("gguf-factors")); });
  GgufBuilder scaled = tiny_llama();
  scaled.text("llama.rope.scaling.type", "longrope");
  expect_error(ErrorKind::kUnsupported, "longrope",
               [&] { read_checkpoint(scaled.write("gguf-longrope")); });
  GgufBuilder partial = tiny_llama();
  partial.integer("llama.attention.key_length", 4);
  expect_error(ErrorKind::kUnsupported, "rope.dimension_count",
               [&] { read_checkpoint(partial.write("gguf-partial")); });
}

TEST(GgufCheckpoint, MissingKeysAndTensorsAreNamed) {
  GgufBuilder empty;
  empty.text("general.architecture", "llama");
  expect_error(ErrorKind::kFormat, "llama.embedding_length",
               [&] { read_checkpoint(empty.write("gguf-empty")); });
  const auto folder = test::scratch_dir("not-gguf");
  test::write_text(folder / "model.gguf", "not a GGUF file at all, not at all");
  expect_error(ErrorKind::kFormat, "model.gguf", [&] { read_checkpoint(folder / "model.gguf"); });
}

}  // namespace
}  // namespace llava
