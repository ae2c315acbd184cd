#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <fstream>

#include "base/error.h"
#include "loader/memory.h"
#include "loader/weight_source.h"
#include "support/golden.h"
#include "tensor/convert.h"

namespace llava::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A two-layer text model's tensors under Hugging Face's names.
std::map<std::string, at::Tensor> text_tensors(const ModelConfig& config, c10::ScalarType dtype) {
  std::map<std::string, at::Tensor> tensors;
  for (const WeightSpec& spec : weight_specs(config)) {
    std::string name = spec.name;
    if (name.starts_with("language_model.")) name.replace(0, std::string("language_model").size(), "model");
    tensors[name] = at::randn(spec.shape).to(dtype);
  }
  return tensors;
}

ModelConfig text_config() {
  ModelConfig config;
  DecoderConfig& d = config.decoder;
  d.vocab_size = 40, d.hidden_size = 16, d.intermediate_size = 24, d.num_hidden_layers = 2;
  d.num_attention_heads = 2, d.num_key_value_heads = 1, d.head_dim = 8;
  return config;
}

CheckpointInfo checkpoint_of(const ModelConfig& config, const std::map<std::string, at::Tensor>& tensors,
                             const fs::path& folder, WeightSource::Part part = WeightSource::Part::kAll) {
  TensorWriter writer;
  for (const auto& [name, tensor] : tensors) writer.add(name, tensor);
  writer.write(folder / "model.safetensors");
  CheckpointInfo info;
  info.folder = folder;
  info.model = config;
  info.weights.push_back({folder / "model.safetensors", part, nullptr});
  return info;
}

std::string error_of(const std::function<void()>& body, ErrorKind kind) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind);
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(LoadModel, ListsEverythingThatDoesNotFitAtOnce) {
  auto tensors = text_tensors(text_config(), c10::kFloat);
  tensors.erase("model.norm.weight");
  tensors.erase("model.layers.1.mlp.up_proj.weight");
  tensors["model.layers.0.self_attn.k_proj.weight"] = at::zeros({16, 16});
  tensors["model.layers.0.self_attn.k_proj.bias"] = at::zeros({8});
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::zeros({4});
  const auto info = checkpoint_of(text_config(), tensors, scratch_dir("misfit"));
  const std::string text = error_of([&] { load_model(info, {}); }, ErrorKind::kInput);
  for (const char* part : {"language_model.norm.weight", "language_model.layers.1.mlp.up_proj.weight",
                           "k_proj.weight: expected [8, 16], found [16, 16]", "k_proj.bias"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_EQ(text.find("inv_freq"), std::string::npos);
  const WeightReport report = report_weights(info);
  EXPECT_EQ(report.missing.size(), 2U);
  EXPECT_EQ(report.misshaped.size(), 1U);
  EXPECT_EQ(report.unexpected.size(), 1U);
}

TEST(LoadModel, TakesVocabularyAndTiedHeadFromTheTensors) {
  auto tensors = text_tensors(text_config(), c10::kFloat);
  tensors.erase("lm_head.weight");
  ModelConfig config = text_config();
  config.decoder.vocab_size = 1000;
  const auto model = load_model(checkpoint_of(config, tensors, scratch_dir("tied")), {});
  EXPECT_EQ(model->config().decoder.vocab_size, 40);
  EXPECT_TRUE(model->config().decoder.tie_word_embeddings);
  EXPECT_TRUE(at::equal(model->logits(at::ones({1, 16})),
                        at::linear(at::ones({1, 16}), tensors.at("model.embed_tokens.weight"))));
}

/// As the published script: new = base + delta in the stored dtype; rows that the base lacks are the delta's.
TEST(LoadModel, ADeltaIsAddedToItsBase) {
  at::manual_seed(11);
  const auto delta = text_tensors(text_config(), c10::kHalf);
  ModelConfig smaller = text_config();
  smaller.decoder.vocab_size = 37;
  const auto base = text_tensors(smaller, c10::kHalf);
  CheckpointInfo info = checkpoint_of(text_config(), delta, scratch_dir("delta"));
  info.delta_base = checkpoint_of(smaller, base, scratch_dir("delta-base")).weights;
  const auto model = load_model(info, {});
  std::size_t compared = 0;
  for (const NamedParameter& p : model->parameters()) {
    std::string name = p.name;
    if (name.starts_with("language_model.")) name.replace(0, std::string("language_model").size(), "model");
    at::Tensor sum = delta.at(name).clone();
    sum.narrow(0, 0, base.at(name).size(0)).add_(base.at(name));
    EXPECT_TRUE(at::equal(p.tensor, sum.to(at::kFloat))) << name;
    ++compared;
  }
  EXPECT_EQ(compared, delta.size());
  info.delta_base = checkpoint_of(text_config(), {{"model.norm.weight", at::ones({8})}}, scratch_dir("delta-other")).weights;
  EXPECT_THAT(error_of([&] { load_model(info, {}); }, ErrorKind::kInput), HasSubstr("language_model.norm.weight"));
}

TEST(LoadModel, LeavesWeightsOfTheWantedDtypeInTheMap) {
  const auto info =
      checkpoint_of(text_config(), text_tensors(text_config(), c10::kBFloat16), scratch_dir("mapped"));
  LoadOptions options;
  options.dtype = c10::kBFloat16;
  const OpenedWeights weights = open_weights(info, &weight_specs);
  const auto specs = weight_specs(weights.config);
  EXPECT_EQ(memory_need(weights, specs, options).owned_bytes, 0U);
  EXPECT_EQ(memory_need(weights, specs, options).mapped_bytes, bytes_of(specs, c10::kBFloat16));
  options.dtype = c10::kFloat;
  EXPECT_EQ(memory_need(weights, specs, options).owned_bytes, bytes_of(specs, c10::kFloat));
}

TEST(LoadModel, RefusesWhatMemoryCannotHoldAndSaysBothNumbers) {
  const auto info =
      checkpoint_of(text_config(), text_tensors(text_config(), c10::kBFloat16), scratch_dir("memory"));
  LoadOptions options;
  options.memory_limit_bytes = 1000;
  EXPECT_THAT(error_of([&] { load_model(info, options); }, ErrorKind::kResource), HasSubstr("GiB"));
  EXPECT_THAT(error_of([&] { random_model(text_config(), 0, options); }, ErrorKind::kResource),
              HasSubstr("GiB"));
  ModelConfig huge =
      text_config();  // Vicuna-13B's shape with absurdly many layers: more than any test machine has
  huge.decoder = DecoderConfig{};
  huge.decoder.hidden_size = 5120, huge.decoder.intermediate_size = 13824,
  huge.decoder.num_hidden_layers = 1000;
  huge.decoder.num_attention_heads = huge.decoder.num_key_value_heads = 40;
  EXPECT_THAT(error_of([&] { random_model(huge, 0, {}); }, ErrorKind::kResource), HasSubstr("available"));
}

/// A checkpoint of `shards` bfloat16 files that are all hole: the shape of a big model without its
/// gigabytes on the disk.
CheckpointInfo sparse_checkpoint(const ModelConfig& config, const fs::path& folder, std::size_t shards) {
  CheckpointInfo info;
  info.folder = folder;
  info.model = config;
  const std::vector<WeightSpec> specs = weight_specs(config);
  const std::size_t each = (specs.size() + shards - 1) / shards;
  for (std::size_t begin = 0; begin < specs.size(); begin += each) {
    Json header = Json::object();
    std::uint64_t offset = 0;
    for (std::size_t i = begin; i < std::min(begin + each, specs.size()); ++i) {
      const auto bytes = static_cast<std::uint64_t>(specs[i].num_elements()) * 2;
      header[specs[i].name] = {
          {"dtype", "BF16"}, {"shape", specs[i].shape}, {"data_offsets", {offset, offset + bytes}}};
      offset += bytes;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const fs::path path = folder / fmt::format("model-{:05d}.safetensors", begin / each + 1);
    const std::uint64_t length = text.size();
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(&length), 8) << text;
    fs::resize_file(path, 8 + length + offset);
    info.weights.push_back({path, WeightSource::Part::kAll, nullptr});
  }
  return info;
}

std::int64_t anonymous_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;)
    if (std::int64_t kib = 0; key == "RssAnon:" && status >> kib) return kib;
  return 0;
}

TEST(LoadModel, Maps14GigabytesOfBfloat16WithoutCopyingThem) {
  ModelConfig vicuna_7b;
  vicuna_7b.decoder = DecoderConfig{};
  const CheckpointInfo info = sparse_checkpoint(vicuna_7b, scratch_dir("sparse_7b"), 3);
  LoadOptions options;
  options.dtype = c10::kBFloat16;
  options.memory_limit_bytes = std::uint64_t{16} << 30;
  const std::int64_t before = anonymous_kib();
  const auto model = load_model(info, options);
  EXPECT_LE(anonymous_kib() - before, 1 << 20);
  std::int64_t bytes = 0;
  for (const auto& p : model->parameters()) bytes += static_cast<std::int64_t>(p.tensor.nbytes());
  EXPECT_GT(bytes, 13'000'000'000);
}

TEST(LoadModel, Refuses13BillionParametersIn24Gigabytes) {
  ModelConfig vicuna_13b;
  DecoderConfig& d = vicuna_13b.decoder;
  d.hidden_size = 5120, d.intermediate_size = 13824, d.num_hidden_layers = 40;
  d.num_attention_heads = d.num_key_value_heads = 40;
  const CheckpointInfo info = sparse_checkpoint(vicuna_13b, scratch_dir("sparse_13b"), 3);
  LoadOptions options;
  options.dtype = c10::kBFloat16;
  options.memory_limit_bytes = std::uint64_t{24} << 30;
  const std::string text = error_of([&] { load_model(info, options); }, ErrorKind::kResource);
  EXPECT_THAT(text, HasSubstr("24.2 GiB of memory"));
  EXPECT_THAT(text, HasSubstr("of 24.0 GiB"));
  options.dtype = c10::kFloat;
  EXPECT_THAT(error_of([&] { load_model(info, options); }, ErrorKind::kResource), HasSubstr("to allocate"));
}

TEST(CheckMemory, CountsMappedBytesAgainstAllMemoryAndOwnedOnesAgainstTheFree) {
  constexpr std::uint64_t kGib = std::uint64_t{1} << 30;
  const MemoryStatus status{.available_bytes = 10 * kGib, .total_bytes = 24 * kGib};
  EXPECT_NO_THROW(check_memory({.mapped_bytes = 14 * kGib}, status, "7B in bfloat16"));
  EXPECT_NO_THROW(check_memory({.owned_bytes = 10 * kGib}, status, "small"));
  EXPECT_THROW(check_memory({.owned_bytes = 11 * kGib}, status, "too much to allocate"), Error);
  EXPECT_THROW(check_memory({.mapped_bytes = 26 * kGib}, status, "13B in bfloat16"), Error);
  EXPECT_THROW(check_memory({.owned_bytes = 5 * kGib, .mapped_bytes = 20 * kGib}, status, "both"), Error);
  EXPECT_GT(memory_status().total_bytes, 0U);
  EXPECT_LE(memory_status().available_bytes, memory_status().total_bytes);
}

TEST(LoadModel, MakesANewConnectorFromASeedOnlyWhenAsked) {
  ModelConfig config = text_config();
  TowerConfig tower;
  tower.hidden_size = 8, tower.intermediate_size = 8, tower.num_hidden_layers = 2,
  tower.num_attention_heads = 2;
  tower.image_size = tower.input_size = 28;
  config.tower = tower;
  config.connector.in_size = 8, config.connector.hidden_size = 16;
  auto tensors = text_tensors(config, c10::kFloat);
  std::erase_if(tensors, [](const auto& item) { return item.first.starts_with("mm_projector."); });
  const auto info = checkpoint_of(config, tensors, scratch_dir("new_connector"));
  EXPECT_THAT(error_of([&] { load_model(info, {}); }, ErrorKind::kInput), HasSubstr("mm_projector.2.bias"));
  LoadOptions options;
  options.new_connector_seed = 5;
  const at::Tensor features = at::randn({1, 4, 8});
  const at::Tensor one = load_model(info, options)->project(features),
                   two = load_model(info, options)->project(features);
  EXPECT_TRUE(at::equal(one, two));
  EXPECT_GT(one.abs().max().item<float>(), 0.0F);
}

TEST(LoadModel, NamesTheFileOfATruncatedOrMissingSource) {
  const fs::path folder = scratch_dir("truncated");
  auto info = checkpoint_of(text_config(), text_tensors(text_config(), c10::kFloat), folder);
  fs::resize_file(folder / "model.safetensors", 2000);
  EXPECT_THAT(error_of([&] { load_model(info, {}); }, ErrorKind::kFormat), HasSubstr("model.safetensors"));
  fs::remove(folder / "model.safetensors");
  EXPECT_THAT(error_of([&] { load_model(info, {}); }, ErrorKind::kInput), HasSubstr("model.safetensors"));
}

struct AdapterCase {
  std::map<std::string, at::Tensor> tensors;
  CheckpointInfo info;
};

AdapterCase adapter_case(const std::string& name, const std::map<std::string, at::Tensor>& adapter,
                         bool rslora) {
  const fs::path folder = scratch_dir(name);
  AdapterCase made;
  made.tensors = text_tensors(text_config(), c10::kFloat);
  made.info = checkpoint_of(text_config(), made.tensors, folder);
  TensorWriter writer;
  for (const auto& [key, tensor] : adapter) writer.add("base_model.model." + key, tensor);
  writer.write(folder / "adapter_model.safetensors");
  made.info.adapters.push_back({folder, {folder / "adapter_model.safetensors"}, 4, 6.0, rslora});
  return made;
}

TEST(Adapters, AreMergedInFloat32WithTheirScale) {
  const std::string module = "model.layers.1.mlp.up_proj";
  const at::Tensor a = at::randn({4, 16}), b = at::randn({24, 4});
  for (const bool rslora : {false, true}) {
    const AdapterCase made =
        adapter_case("merge", {{module + ".lora_A.weight", a}, {module + ".lora_B.weight", b}}, rslora);
    const auto model = load_model(made.info, {});
    const double scale = rslora ? 6.0 / 2.0 : 6.0 / 4.0;
    const at::Tensor expected = made.tensors.at(module + ".weight") + scale * at::mm(b, a);
    for (const auto& p : model->parameters()) {
      EXPECT_FALSE(p.name.ends_with("lora_A.weight"));
      if (p.name == "language_model.layers.1.mlp.up_proj.weight") {
        EXPECT_TRUE(at::allclose(p.tensor, expected, 1e-5, 1e-6));
      }
    }
  }
}

TEST(Adapters, ThatDoNotFitAreListed) {
  const at::Tensor a = at::randn({4, 16}), b = at::randn({24, 4});
  const std::string up = "model.layers.1.mlp.up_proj";
  const auto unknown = adapter_case("unknown",
                                    {{up + ".lora_A.weight", a},
                                     {up + ".lora_B.weight", b},
                                     {"model.layers.7.mlp.up_proj.lora_A.weight", a}},
                                    false);
  EXPECT_THAT(error_of([&] { load_model(unknown.info, {}); }, ErrorKind::kInput), HasSubstr("layers.7"));
  const auto half = adapter_case("half", {{up + ".lora_A.weight", a}}, false);
  EXPECT_THAT(error_of([&] { load_model(half.info, {}); }, ErrorKind::kInput),
              HasSubstr("up_proj.lora_B.weight"));
  const auto rank = adapter_case(
      "rank", {{up + ".lora_A.weight", at::randn({3, 16})}, {up + ".lora_B.weight", b}}, false);
  EXPECT_THAT(error_of([&] { load_model(rank.info, {}); }, ErrorKind::kInput),
              HasSubstr("expected [4, 16]"));
}

TEST(RandomModel, DependsOnTheSeedAndNamesOnly) {
  const auto one = random_model(text_config(), 3, {}), same = random_model(text_config(), 3, {}),
             other = random_model(text_config(), 4, {});
  EXPECT_TRUE(at::equal(one->parameters()[0].tensor, same->parameters()[0].tensor));
  EXPECT_FALSE(at::equal(one->parameters()[0].tensor, other->parameters()[0].tensor));
}

TEST(LlamaCpp, PermutationIsUndone) {
  const at::Tensor original = at::arange(2 * 8 * 3).view({16, 3});
  const at::Tensor stored =
      original.view({2, 2, 4, 3}).transpose(1, 2).reshape({16, 3});  // as convert_hf_to_gguf does
  EXPECT_TRUE(at::equal(undo_llama_cpp_permutation(stored, 2), original));
}

}  // namespace
}  // namespace llava::test
