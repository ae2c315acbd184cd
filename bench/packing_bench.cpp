// Tokens per second of a training step (forward and backward) on the lengths of LLaVA-1.5's instruction mix, at batch 16:
//   packing_bench [--samples 256] [--threads 2] [--seed 0]
// random: padded batches in random order; llava: those of LLaVA's own group_by_modality_length for 8 processes, which
// balances them and leaves batches mixed; grouped: padded batches of near lengths, sorted within 32 steps by what that
// sampler knows, words of text + 128 for an image (1.2 to 1.8 tokens a word); exact: sorted by tokens instead;
// packed: the same random steps through the trainer's cut_packs, no padding. All run the same kernels; the padded
// ones compute their padding, as a trainer without packing does. Text ids only: what an image costs in the decoder is its 576 tokens.
// One JSON line on stdout.
//
// Lengths: a seeded mixture with the parts and counts of the LLaVA-1.5 paper (Liu et al. 2023, table 7; 665K = 158K
// LLaVA-Instruct, 40K ShareGPT, 83K VQAv2, 72K GQA, 9K OKVQA, 80K OCR-VQA, 66K A-OKVQA, 22K TextCaps, 48K RefCOCO, 86K VG), 576
// image tokens, cut at 2,048 as its recipe does. The text lengths of a part are not published; they are set here as log-normal with
// the medians below, from the parts' form (turns an image, one-word answers or paragraphs). Synthetic, so: ratios only.
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <numeric>
#include <vector>

#include "base/json.h"
#include "base/rng.h"
#include "data/llava_sampler.h"
#include "loader/load_model.h"
#include "train/trainer.h"

namespace {

using namespace llava;
using Lengths = std::vector<std::int64_t>;
struct Drawn {
  Lengths tokens, words;
  std::vector<std::int32_t> modality;  ///< words, negative without an image: what LLaVA's sampler is given
};

struct MixPart {
  const char* name;
  double thousands;
  std::int64_t image_tokens;
  double median, sigma;  ///< of the text's tokens
};
constexpr MixPart kMix[] = {{"LLaVA-Instruct", 158, 576, 260, 0.5}, {"ShareGPT", 40, 0, 1600, 0.8},
                            {"VQAv2", 83, 576, 130, 0.5},           {"GQA", 72, 576, 220, 0.6},
                            {"OKVQA", 9, 576, 75, 0.2},             {"OCR-VQA", 80, 576, 130, 0.3},
                            {"A-OKVQA", 66, 576, 90, 0.25},         {"TextCaps", 22, 576, 75, 0.2},
                            {"RefCOCO", 48, 576, 230, 0.6},         {"VG", 86, 576, 250, 0.6}};
constexpr std::int64_t kLongest = 2048, kBatch = 16, kMegaBatch = 32, kProcesses = 8;

double uniform(Rng& rng) { return (static_cast<double>(rng.next() >> 11) + 0.5) * 0x1.0p-53; }

Drawn draw_lengths(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  double total = 0;
  for (const MixPart& part : kMix) total += part.thousands;
  Drawn drawn;
  for (std::int64_t i = 0; i < count; ++i) {
    double at = uniform(rng) * total;
    const MixPart* part = kMix;
    while (at > part->thousands && part + 1 < std::end(kMix)) at -= (part++)->thousands;
    const double normal = std::sqrt(-2 * std::log(uniform(rng))) * std::cos(2 * M_PI * uniform(rng));
    const auto text = std::llround(part->median * std::exp(part->sigma * normal));
    drawn.tokens.push_back(std::min(part->image_tokens + std::max<std::int64_t>(text, 16), kLongest));
    drawn.words.push_back(std::llround(static_cast<double>(text) / (1.2 + 0.6 * uniform(rng))) +
                          (part->image_tokens > 0 ? 128 : 0));
    const auto words = static_cast<std::int32_t>(drawn.words.back());
    drawn.modality.push_back(part->image_tokens > 0 ? words - 128 : -words);
  }
  return drawn;
}

ModelConfig small_decoder() {
  ModelConfig config;
  DecoderConfig& d = config.decoder;
  d.vocab_size = 2048, d.hidden_size = 256, d.intermediate_size = 704, d.num_hidden_layers = 4;
  d.num_attention_heads = 4, d.num_key_value_heads = 2, d.head_dim = 64, d.max_position_embeddings = 4096;
  d.tie_word_embeddings = true;
  return config;
}

/// Rows of `width` tokens; `pieces` empty: every token counts as real, padding is computed.
MultimodalBatch make_batch(std::int64_t rows, std::int64_t width, const Lengths& real, bool packed) {
  MultimodalBatch batch;
  batch.ids = at::randint(0, 2048, {rows, width}, at::kLong);
  batch.labels = at::full({rows, width}, -100, at::kLong);
  batch.positions = at::arange(width, at::kLong).expand({rows, width}).contiguous();
  batch.lengths = at::full({rows}, width, at::kLong);
  std::int64_t first = 0;
  for (std::size_t i = 0; i < real.size(); ++i) {
    const std::int64_t row = packed ? 0 : static_cast<std::int64_t>(i), begin = packed ? first : 0;
    const at::Tensor ids = batch.ids[row].narrow(0, begin, real[i]);
    batch.labels[row].narrow(0, begin, real[i]).slice(0, real[i] - real[i] / 8).copy_(ids.slice(0, real[i] - real[i] / 8));
    if (packed) batch.positions[0].narrow(0, begin, real[i]).copy_(at::arange(real[i], at::kLong));
    first += real[i];
  }
  if (packed) batch.pieces = {real};
  return batch;
}

struct Result {
  double seconds = 0;
  std::int64_t real = 0, computed = 0;
};

void run(LlavaModel& model, const MultimodalBatch& batch, const Lengths& real, Result& result) {
  const auto begin = std::chrono::steady_clock::now();
  model.loss(batch).sum.backward();
  result.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  result.real += std::accumulate(real.begin(), real.end(), std::int64_t{0});
  result.computed += batch.ids.numel();
}

void padded_step(LlavaModel& model, const Lengths& step, Result& result) {
  const std::int64_t width = *std::max_element(step.begin(), step.end());
  run(model, make_batch(static_cast<std::int64_t>(step.size()), width, step, false), step, result);
}

void packed_step(LlavaModel& model, const Lengths& step, Result& result) {
  const std::vector<std::size_t> sizes(step.begin(), step.end());
  for (const auto& pack : cut_packs(sizes, 4096)) {
    Lengths real;
    for (const std::size_t i : pack) real.push_back(step[i]);
    run(model, make_batch(1, std::accumulate(real.begin(), real.end(), std::int64_t{0}), real, true), real, result);
  }
}

/// Tokens of the samples, longest key first within stretches of kMegaBatch steps.
Lengths sorted_by(const Lengths& key, const Lengths& tokens) {
  std::vector<std::size_t> order(key.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (auto at = order.begin(); at < order.end();) {
    const auto end = at + std::min<std::ptrdiff_t>(kMegaBatch * kBatch, order.end() - at);
    std::stable_sort(at, end, [&](auto a, auto b) { return key[a] > key[b]; });
    at = end;
  }
  Lengths sorted;
  for (const std::size_t i : order) sorted.push_back(tokens[i]);
  return sorted;
}

Lengths in_llava_order(const Drawn& drawn, std::uint64_t seed) {
  TorchRandom random(seed);
  Lengths ordered;
  for (const std::uint32_t i : llava_modality_order(drawn.modality, kBatch, kProcesses, random))
    ordered.push_back(drawn.tokens[i]);
  return ordered;
}

std::vector<Lengths> cut(const Lengths& lengths) {
  std::vector<Lengths> steps;
  for (auto at = lengths.begin(); at < lengths.end(); at += kBatch) steps.emplace_back(at, at + kBatch);
  return steps;
}

Json line_of(const Result& r) {
  return {{"tokens_per_s", static_cast<double>(r.real) / r.seconds},
          {"fill", static_cast<double>(r.real) / static_cast<double>(r.computed)}};
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t samples = 256;
  int threads = 2;
  std::uint64_t seed = 0;
  CLI::App app("Packed against padded steps on the lengths of an instruction mix");
  app.add_option("--samples", samples)->check(CLI::Range(kBatch, std::int64_t{1} << 20));
  app.add_option("--threads", threads)->check(CLI::PositiveNumber);
  app.add_option("--seed", seed);
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(threads);
  samples = samples / kBatch * kBatch;
  const auto model = random_model(small_decoder(), 0, {});
  for (NamedParameter p : model->parameters()) p.tensor.requires_grad_(true);
  const Drawn drawn = draw_lengths(samples, seed);
  Result random, llava, grouped, exact, packed, warm;
  const auto in_order = cut(drawn.tokens), by_words = cut(sorted_by(drawn.words, drawn.tokens)),
             by_tokens = cut(sorted_by(drawn.tokens, drawn.tokens)), by_llava = cut(in_llava_order(drawn, seed));
  packed_step(*model, in_order[0], warm);
  for (std::size_t i = 0; i < in_order.size(); ++i) {  // by turns: the machine's load hits all
    padded_step(*model, in_order[i], random);
    padded_step(*model, by_llava[i], llava);
    padded_step(*model, by_words[i], grouped);
    padded_step(*model, by_tokens[i], exact);
    packed_step(*model, in_order[i], packed);
  }
  const auto rate = [](const Result& r) { return static_cast<double>(r.real) / r.seconds; };
  std::cout << Json{{"program", "packing_bench"}, {"samples", samples}, {"threads", threads},
                    {"mean_length", static_cast<double>(random.real) / static_cast<double>(samples)},
                    {"random", line_of(random)}, {"llava", line_of(llava)}, {"grouped", line_of(grouped)}, {"exact", line_of(exact)}, {"packed", line_of(packed)},
                    {"packed_over_random", rate(packed) / rate(random)},
                    {"packed_over_llava", rate(packed) / rate(llava)},
                    {"packed_over_grouped", rate(packed) / rate(grouped)},
                    {"packed_over_exact", rate(packed) / rate(exact)}}.dump()
            << "\n";
}
