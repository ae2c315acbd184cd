// One training step on SmolLM2-135M's shapes with random weights and a CLIP ViT-B/16-224 tower that runs each step
// (196 image tokens of each row): forward, backward, clipping, AdamW with the trainer's
// own optimizer (float32 masters):
//   step_bench [--mode lora|full] [--dtype bfloat16|float32] [--labels all|text] [--rows 4] [--tokens 300] [--rank 16] [--steps 3]
//              [--threads 2] [--plain] [--checkpointing]
// One JSON line on stdout. bench/step_bench_hf.py measures transformers + peft on the same step, bench/step_compare.py both.
#include <sys/resource.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <ctime>
#include <iostream>
#include <vector>

#include "base/json.h"
#include "loader/load_model.h"
#include "model/fused_block.h"
#include "tensor/convert.h"
#include "train/activation_checkpoint.h"
#include "train/optimizer.h"

namespace {

using namespace llava;

struct Options {
  std::int64_t rows = 4, tokens = 300, rank = 16, steps = 3;
  int threads = 2;
  std::string mode = "lora", dtype = "bfloat16", labels = "all";
  bool plain = false, checkpointing = false, profile = false;
};

constexpr std::int64_t kImageTokens = 196, kVocabulary = 49152;

ModelConfig model_config() {
  ModelConfig config;
  TowerConfig tower;
  tower.hidden_size = 768, tower.intermediate_size = 3072, tower.num_hidden_layers = 12;
  tower.num_attention_heads = 12, tower.image_size = tower.input_size = 224, tower.patch_size = 16;
  tower.select_layers = {-1};
  config.tower = tower;
  DecoderConfig& d = config.decoder;
  d.vocab_size = kVocabulary, d.hidden_size = 576, d.intermediate_size = 1536, d.num_hidden_layers = 30;
  d.num_attention_heads = 9, d.num_key_value_heads = 3, d.head_dim = 64, d.max_position_embeddings = 8192;
  d.rope_theta = 100000, d.rms_norm_eps = 1e-5, d.tie_word_embeddings = true;
  config.connector.in_size = 768, config.connector.hidden_size = 576;
  config.image_token_id = kVocabulary - 1;
  return config;
}

MultimodalBatch random_batch(const Options& o) {
  MultimodalBatch batch;
  batch.ids = at::randint(0, kVocabulary - 2, {o.rows, o.tokens}, at::kLong);
  batch.positions = at::arange(o.tokens, at::kLong).expand({o.rows, o.tokens}).contiguous();
  batch.lengths = at::full({o.rows}, o.tokens, at::kLong);
  batch.labels = batch.ids.clone();
  if (o.labels == "text") batch.labels.narrow(1, 0, kImageTokens).fill_(-100);
  batch.pixels = at::randn({o.rows, 3, 224, 224});
  const at::Tensor first = at::arange(o.rows, at::kLong).unsqueeze(1) * o.tokens;
  batch.media_rows = (first + at::arange(kImageTokens, at::kLong)).flatten();
  return batch;
}

std::unique_ptr<LlavaModel> make_model(const Options& o) {
  LoadOptions load;
  load.dtype = dtype_from_string(o.dtype);
  auto model = random_model(model_config(), 0, load);
  if (o.mode != "lora") return model;
  LoraConfig lora;
  lora.r = o.rank, lora.lora_alpha = 2.0 * static_cast<double>(o.rank), lora.target = "^language_model.*_proj$";
  model->add_lora(lora);
  return model;
}

std::vector<NamedParameter> choose_trained(LlavaModel& model, const Options& o) {
  std::vector<NamedParameter> trained;
  for (const NamedParameter& p : model.parameters()) {
    const bool tower = p.name.starts_with("vision_tower."), lora = p.name.find(".lora_") != std::string::npos;
    const bool wanted = o.mode == "lora" ? lora || p.name.starts_with("mm_projector.") : !tower;
    if (wanted) trained.push_back(p);
  }
  return trained;
}

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Times {
  std::vector<double> wall, cpu, forward, backward;
};

double middle(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

Times run(LlavaModel& model, Optimizer& optimizer, const Options& o) {
  Times times;
  for (std::int64_t step = 0; step < o.steps + 1; ++step) {  // the first warms up
    const MultimodalBatch batch = random_batch(o);
    const double begin = wall_seconds();
    const std::clock_t cpu = std::clock();
    const auto loss = model.loss(batch);
    const double forward = wall_seconds();
    (loss.sum / static_cast<double>(loss.tokens)).backward();
    const double backward = wall_seconds();
    optimizer.collect_gradients();
    optimizer.step(1.0, optimizer.gradient_norm());
    if (step == 0) continue;
    times.wall.push_back(wall_seconds() - begin);
    times.cpu.push_back(static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC);
    times.forward.push_back(forward - begin), times.backward.push_back(backward - forward);
  }
  return times;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("A training step of a SmolLM2-135M-shaped LLaVA");
  app.add_option("--mode", o.mode)->check(CLI::IsMember({"lora", "full"}));
  app.add_option("--dtype", o.dtype)->check(CLI::IsMember({"bfloat16", "float32"}));
  app.add_option("--rows", o.rows), app.add_option("--tokens", o.tokens)->check(CLI::Range(kImageTokens + 1, std::int64_t{8192}));
  app.add_option("--rank", o.rank), app.add_option("--steps", o.steps)->check(CLI::PositiveNumber);
  app.add_option("--threads", o.threads)->check(CLI::PositiveNumber);
  app.add_option("--labels", o.labels, "text: none at the image, as in LLaVA's data; all: each token costs a row of logits")
      ->check(CLI::IsMember({"all", "text"}));
  app.add_flag("--plain", o.plain, "without the fused blocks");
  app.add_flag("--checkpointing", o.checkpointing, "decoder blocks keep their input only");
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(o.threads);
  fused::set_blocks_enabled(!o.plain);
  const auto model = make_model(o);
  for (NamedParameter p : model->parameters()) p.tensor.requires_grad_(false);
  const std::vector<NamedParameter> trained = choose_trained(*model, o);
  Optimizer optimizer(trained, {{"", 1e-4}}, OptimConfig{});
  if (o.checkpointing) set_checkpointing(*model, {1, false}, trained);
  const Times times = run(*model, optimizer, o);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double seconds = middle(times.wall);
  const Json line = {{"program", "llava"},
                     {"mode", o.mode},
                     {"dtype", o.dtype},
                     {"labels", o.labels},
                     {"rows", o.rows},
                     {"tokens", o.tokens},
                     {"rank", o.rank},
                     {"threads", o.threads},
                     {"trained", optimizer.num_parameters()},
                     {"seconds_median", seconds},
                     {"seconds_best", *std::min_element(times.wall.begin(), times.wall.end())},
                     {"cpu_seconds_best", *std::min_element(times.cpu.begin(), times.cpu.end())},
                     {"forward_seconds", middle(times.forward)},
                     {"backward_seconds", middle(times.backward)},
                     {"samples_per_s", static_cast<double>(o.rows) / seconds},
                     {"peak_rss_mb", usage.ru_maxrss / 1024}};
  std::cout << line.dump() << "\n";
}
