// Opening a large JSONL file: seconds, memory, and what one epoch's order takes.
//   index_bench --make 10000000 FILE      writes such a file (3 GB), LLaVA records of 5 to 120 words
//   index_bench [--index FOLDER] FILE     one JSON line on stdout
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <iostream>

#include "base/json.h"
#include "base/rng.h"
#include "data/sampler.h"

namespace {

using namespace llava;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::int64_t peak_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

void make_file(const std::string& path, std::int64_t records) {
  static constexpr const char* kWords[] = {"a",    "photo",           "of",  "the",     "street",
                                           "with", "\\u00e9t\\u00e9", "red", "bicycle", "and"};
  std::ofstream file(path, std::ios::binary);
  Rng rng(1);
  for (std::int64_t i = 0; i < records; ++i) {
    std::string line = fmt::format(R"({{"id": "{:08}", )", i);
    if (i % 10 != 0) line += fmt::format(R"("image": "coco/train2017/{:012}.jpg", )", i);
    line +=
        R"("conversations": [{"from": "human", "value": "<image>\nWhat is shown?"}, {"from": "gpt", "value": ")";
    for (std::uint64_t words = 5 + rng.below(rng.below(116) + 1); words > 0; --words)
      line += fmt::format("{} ", kWords[rng.below(10)]);
    file << line << "\"}]}\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("opening a large JSONL file");
  std::int64_t make = 0;
  std::string folder, path;
  app.add_option("--make", make), app.add_option("--index", folder),
      app.add_option("file", path)->required();
  CLI11_PARSE(app, argc, argv);
  if (make > 0) {
    make_file(path, make);
    return 0;
  }
  const double start = now();
  const Dataset data({{path, "", 1.0, 0}}, folder);
  const double opened = now() - start;
  OrderedJson out = {{"records", data.size()}, {"open_seconds", opened}, {"open_peak_mb", peak_mb()}};
  for (const auto& [name, kind] :
       {std::pair("random", SamplerKind::kRandom), std::pair("modality", SamplerKind::kModality),
        std::pair("llava_modality", SamplerKind::kLlavaModality)}) {
    const double begin = now();
    const SampleOrder order(data, {kind, 16, 8, 1});
    order.step_samples(0);
    out[fmt::format("{}_seconds", name)] = now() - begin;
  }
  out["epoch_peak_mb"] = peak_mb();
  std::cout << out.dump() << "\n";
}
