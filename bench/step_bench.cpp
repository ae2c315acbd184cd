// Tokens per second of a LoRA training step on a SmolLM2-135M-shaped decoder (random weights, frozen base,
// cached features):
//   step_bench [--rows 8] [--tokens 150] [--supervised 60] [--rank 32] [--steps 6] [--threads 2] [--dtype
//   bfloat16]
// One JSON line on stdout. bench/step_bench_hf.py measures transformers + peft on the same shapes.
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <ctime>
#include <iostream>
#include <vector>

#include "base/json.h"
#include "loader/load_model.h"
#include "tensor/convert.h"

namespace {

using namespace llava;

struct Options {
  std::int64_t rows = 8, tokens = 150, supervised = 60, rank = 32, steps = 6;
  int threads = 2;
  std::string dtype = "bfloat16";
  bool profile = false;
};

ModelConfig smollm2_135m() {
  ModelConfig config;
  DecoderConfig& d = config.decoder;
  d.vocab_size = 49152, d.hidden_size = 576, d.intermediate_size = 1536, d.num_hidden_layers = 30;
  d.num_attention_heads = 9, d.num_key_value_heads = 3, d.head_dim = 64, d.max_position_embeddings = 8192;
  d.rope_theta = 100000, d.rms_norm_eps = 1e-5, d.tie_word_embeddings = true;
  return config;
}

MultimodalBatch random_batch(const Options& o) {
  MultimodalBatch batch;
  batch.ids = at::randint(0, 49152, {o.rows, o.tokens}, at::kLong);
  batch.positions = at::arange(o.tokens, at::kLong).expand({o.rows, o.tokens}).contiguous();
  batch.lengths = at::full({o.rows}, o.tokens, at::kLong);
  batch.labels = batch.ids.clone();
  batch.labels.narrow(1, 0, o.tokens - o.supervised).fill_(-100);
  return batch;
}

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("LoRA step of a SmolLM2-135M-shaped decoder");
  app.add_option("--rows", o.rows), app.add_option("--tokens", o.tokens),
      app.add_option("--supervised", o.supervised);
  app.add_option("--rank", o.rank), app.add_option("--steps", o.steps),
      app.add_option("--threads", o.threads);
  app.add_option("--dtype", o.dtype);
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(o.threads);
  LoadOptions load;
  load.dtype = dtype_from_string(o.dtype);
  const auto model = random_model(smollm2_135m(), 0, load);
  LoraConfig lora;
  lora.r = o.rank, lora.lora_alpha = 2.0 * static_cast<double>(o.rank), lora.target = "_proj$";
  model->add_lora(lora);
  for (auto& p : model->parameters())
    if (p.name.find(".lora_") != std::string::npos) p.tensor.requires_grad_(true);
  std::vector<double> wall, cpu;
  for (std::int64_t step = 0; step < o.steps + 1; ++step) {  // the first is a warm-up
    const MultimodalBatch batch = random_batch(o);
    const double wall_begin = wall_seconds(), cpu_begin = cpu_seconds();
    const auto loss = model->loss(batch);
    (loss.sum / loss.tokens).backward();
    if (step > 0) wall.push_back(wall_seconds() - wall_begin), cpu.push_back(cpu_seconds() - cpu_begin);
  }
  std::sort(wall.begin(), wall.end()), std::sort(cpu.begin(), cpu.end());
  const auto tokens = static_cast<double>(o.rows * o.tokens);
  const Json line = {{"bench", "lora_step"},
                     {"rows", o.rows},
                     {"tokens_per_row", o.tokens},
                     {"supervised", o.supervised},
                     {"rank", o.rank},
                     {"dtype", o.dtype},
                     {"threads", o.threads},
                     {"steps", o.steps},
                     {"tokens_per_s_median", tokens / wall[wall.size() / 2]},
                     {"tokens_per_s_best", tokens / wall[0]},
                     {"tokens_per_cpu_s_best", tokens / cpu[0]}};
  std::cout << line.dump() << "\n";
}
