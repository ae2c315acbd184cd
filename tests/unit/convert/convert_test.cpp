// Conversions between layouts, read back by our own loader. transformers reads them in tools/reference/check_adapter.py.
#include "convert/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "convert/peft_adapter.h"
#include "loader/load_model.h"
#include "support/golden.h"
#include "tensor/convert.h"

namespace llava {
namespace {

namespace fs = std::filesystem;

std::map<std::string, at::Tensor> weights_in(const fs::path& folder) {
  const auto model = load_model(read_checkpoint(folder), {});
  std::map<std::string, at::Tensor> weights;
  for (const NamedParameter& p : model->parameters()) weights[p.name] = p.tensor.clone();
  return weights;
}

/// Equal, but for rows of the vocabulary that a layout adds or leaves out: those from `vocabulary_rows` on.
void expect_same_weights(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b,
                         std::int64_t vocabulary_rows) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    const at::Tensor& other = b.at(name);
    const bool vocabulary = name == "lm_head.weight" || name == "language_model.embed_tokens.weight";
    const std::int64_t rows = vocabulary ? vocabulary_rows : tensor.size(0);
    ASSERT_LE(rows, std::min(tensor.size(0), other.size(0))) << name;
    EXPECT_TRUE(at::equal(tensor.slice(0, 0, rows), other.slice(0, 0, rows))) << name;
  }
}

ConvertOptions conversion(const fs::path& in, const fs::path& out, TargetLayout target) {
  ConvertOptions options;
  options.in = in, options.out = out / "model", options.target = target;
  return options;
}

TEST(Convert, BetweenLayoutsAndBackKeepsEveryNumber) {
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava15");
  const fs::path there = test::scratch_dir("convert_there"), back = test::scratch_dir("convert_back");
  convert_checkpoint(conversion(base, there, TargetLayout::kOriginal));
  const CheckpointInfo info = read_checkpoint(there / "model");
  EXPECT_EQ(info.layout, Layout::kOriginalLlava);
  EXPECT_NE(info.tokenizer, nullptr);
  EXPECT_EQ(info.image_policy, read_checkpoint(base).image_policy);
  expect_same_weights(weights_in(base), weights_in(there / "model"), 2048);
  convert_checkpoint(conversion(there / "model", back, TargetLayout::kHf));
  const CheckpointInfo again = read_checkpoint(back / "model"), first = read_checkpoint(base);
  EXPECT_EQ(again.layout, Layout::kHfLlava);
  EXPECT_EQ(again.model.tower, first.model.tower);
  EXPECT_EQ(again.model.connector, first.model.connector);
  EXPECT_EQ(again.image_policy, first.image_policy);
  expect_same_weights(weights_in(base), weights_in(back / "model"), 2048);
}

TEST(Convert, OriginalCheckpointGetsATokenForImages) {
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava15_orig");
  const fs::path out = test::scratch_dir("convert_token");
  convert_checkpoint(conversion(base, out, TargetLayout::kHf));
  const CheckpointInfo info = read_checkpoint(out / "model");
  EXPECT_EQ(info.model.image_token_id, 2048);
  EXPECT_EQ(info.model.decoder.vocab_size, 2112);
  EXPECT_EQ(info.image_policy->aspect_ratio, AspectRatio::kPad);
  expect_same_weights(weights_in(base), weights_in(out / "model"), 2048);
  const at::Tensor head = weights_in(out / "model").at("lm_head.weight");
  EXPECT_TRUE(at::allclose(head[2100], head.slice(0, 0, 2048).mean(0), 1e-2, 1e-3)) << "an added row is the mean";
}

TEST(Convert, TheOriginalLayoutsSiglipGetsTheBlockThatItsClassDeletes) {
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava_siglip");
  const fs::path out = test::scratch_dir("convert_siglip");
  convert_checkpoint(conversion(base, out, TargetLayout::kOriginal));
  const TowerConfig first = *read_checkpoint(base).model.tower, second = *read_checkpoint(out / "model").model.tower;
  EXPECT_EQ(first.select_layers, std::vector<std::int64_t>{-1});
  EXPECT_EQ(second.select_layers, std::vector<std::int64_t>{-2});
  EXPECT_EQ(second.num_hidden_layers, first.num_hidden_layers + 1);
  expect_same_weights(weights_in(base), weights_in(out / "model"), 2048);
}

TEST(Convert, ConfigNamesTheDtypeOfItsSourceNotOfOneWeight) {
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava15");
  const fs::path out = test::scratch_dir("convert_dtype");
  fs::create_directories(out / "mixed");  // as a float32 run of LoRA leaves a bfloat16 base
  for (const auto& entry : fs::directory_iterator(base)) fs::copy(entry.path(), out / "mixed" / entry.path().filename());
  Json config = read_json_file(base / "config.json");
  config["dtype"] = "float32";
  fs::remove(out / "mixed/config.json");
  std::ofstream(out / "mixed/config.json") << config.dump();
  convert_checkpoint(conversion(out / "mixed", out, TargetLayout::kOriginal));
  EXPECT_EQ(read_json_file(out / "model/config.json")["torch_dtype"], "float32");
}

TEST(Convert, ShardsHoldEverythingOnceAndStayBelowTheirSize) {
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava15");
  const fs::path out = test::scratch_dir("convert_shards");
  ConvertOptions options = conversion(base, out, TargetLayout::kSame);
  options.max_shard_bytes = 300000;
  options.dtype = c10::ScalarType::Float;
  convert_checkpoint(options);
  std::size_t shards = 0;
  for (const auto& entry : fs::directory_iterator(out / "model"))
    if (entry.path().extension() == ".safetensors") {
      ++shards;
      std::size_t bytes = 0;
      const auto file = open_safetensors(entry.path());
      for (const TensorView& view : file->tensors()) bytes += view.bytes.size();
      EXPECT_TRUE(bytes <= 300000 || file->tensors().size() == 1) << entry.path();
    }
  EXPECT_GT(shards, 3U);
  const Json index = read_json_file(out / "model/model.safetensors.index.json");
  EXPECT_EQ(index["weight_map"].size(), open_safetensors(base / "model.safetensors")->tensors().size());
  EXPECT_EQ(read_json_file(out / "model/config.json")["dtype"], "float32");
  expect_same_weights(weights_in(base), weights_in(out / "model"), 2112);
}

class ConvertAdapter : public testing::TestWithParam<const char*> {};

TEST_P(ConvertAdapter, EqualsTheModelThatMergesItOnLoading) {
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava15");
  LLAVA_GOLDEN_OR_SKIP(adapter, std::string("peft/") + GetParam());
  const auto merged = load_model(read_checkpoint(adapter, base), {});
  for (const TargetLayout target : {TargetLayout::kSame, TargetLayout::kOriginal}) {
    ConvertOptions options = conversion(base, test::scratch_dir("convert_adapter"), target);
    options.adapter = adapter;
    options.dtype = c10::ScalarType::Float;
    convert_checkpoint(options);
    const auto found = weights_in(options.out);
    for (const NamedParameter& p : merged->parameters()) {
      const at::Tensor& other = found.at(p.name);
      const std::int64_t rows = std::min(p.tensor.size(0), other.size(0));
      const double close = (p.tensor.slice(0, 0, rows) - other.slice(0, 0, rows)).abs().max().item<double>();
      EXPECT_LE(close, 1e-6) << p.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, ConvertAdapter, testing::Values("lora", "rslora", "dora"));

TEST(Convert, LeavesNothingBehindWhereItFails) {
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava_next_mistral");
  const fs::path out = test::scratch_dir("convert_fails");
  try {
    convert_checkpoint(conversion(base, out, TargetLayout::kOriginal));
    FAIL() << "tiles have no place there yet";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUnsupported);
  }
  EXPECT_TRUE(fs::is_empty(out));
}

TEST(Convert, DoesNotOverwrite) {
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava15");
  const fs::path out = test::scratch_dir("convert_twice");
  fs::create_directories(out / "model");
  std::ofstream(out / "model/mine") << "x";
  EXPECT_THROW(convert_checkpoint(conversion(base, out, TargetLayout::kSame)), Error);
  EXPECT_TRUE(fs::exists(out / "model/mine"));
}

TEST(Fingerprint, IsTheSameInAnotherLayoutAndDtypeAndDiffersForOtherNumbers) {
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava15");
  LLAVA_GOLDEN_OR_SKIP(adapter, "peft/rslora");
  const fs::path out = test::scratch_dir("convert_print"), tuned = test::scratch_dir("convert_tuned");
  ConvertOptions options = conversion(base, out, TargetLayout::kOriginal);
  options.dtype = c10::ScalarType::Float;
  convert_checkpoint(options);
  const std::string print = base_fingerprint(read_checkpoint(base));
  EXPECT_EQ(print.size(), 16U);
  EXPECT_EQ(base_fingerprint(read_checkpoint(out / "model")), print);
  options = conversion(base, tuned, TargetLayout::kSame);
  options.adapter = adapter;
  convert_checkpoint(options);
  EXPECT_NE(base_fingerprint(read_checkpoint(tuned / "model")), print);
}

}  // namespace
}  // namespace llava
