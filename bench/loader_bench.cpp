// Images per second from JPEG files to normalised pixels, as the training loader makes them:
//   loader_bench [--threads 2] [--seconds 10] [--policy crop|pad] FILE…
// One JSON line on stdout, with a hash of the pixels in the files' order. bench/loader_bench_pil.py makes
// the files, measures Pillow + numpy on them and compares both.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <iostream>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "base/json.h"
#include "data/prepare.h"
#include "recipe/recipe.h"

namespace {

using namespace llava;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The files in turn on `threads` threads until the time is over; whole images counted.
double images_per_second(const std::vector<std::string>& files, const ImagePolicy& policy,
                         const ModelConfig& model, int threads, double seconds) {
  std::atomic<std::int64_t> taken = 0, done = 0;
  const auto start = Clock::now();
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t)
    workers.emplace_back([&] {
      while (seconds_since(start) < seconds) {
        const auto i = static_cast<std::size_t>(taken++) % files.size();
        prepare_image(std::filesystem::path(files[i]), policy, model);
        ++done;
      }
    });
  for (std::thread& worker : workers) worker.join();
  return static_cast<double>(done) / seconds_since(start);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("JPEG files to pixels");
  int threads = 2;
  double seconds = 10;
  std::string kind = "crop", dump;
  std::vector<std::string> files;
  app.add_option("--threads", threads);
  app.add_option("--seconds", seconds, "0: only the pixels of every file");
  app.add_option("--policy", kind,
                 "crop: CLIP's shortest edge and centre crop; pad: to a square, as LLaVA-1.5 trains");
  app.add_option("--dump", dump, "writes the pixels of all files there, float32");
  app.add_option("files", files)->required();
  CLI11_PARSE(app, argc, argv);
  const Recipe& recipe = find_recipe("llava-1.5-7b");
  ImagePolicy policy = recipe.image_policy.value();
  policy.aspect_ratio = kind == "pad" ? AspectRatio::kPad : AspectRatio::kSquare;
  std::FILE* out = dump.empty() ? nullptr : std::fopen(dump.c_str(), "wb");
  std::uint64_t hash = 0;
  for (const std::string& file : files) {
    const PreparedMedia media = prepare_image(std::filesystem::path(file), policy, recipe.model);
    hash = hash_bytes(std::as_bytes(std::span(media.pixels)), hash);
    if (out != nullptr) std::fwrite(media.pixels.data(), sizeof(float), media.pixels.size(), out);
  }
  if (out != nullptr) std::fclose(out);
  const double rate = seconds > 0 ? images_per_second(files, policy, recipe.model, threads, seconds) : 0;
  std::cout << OrderedJson{{"images_per_second", rate},
                           {"threads", threads},
                           {"policy", kind},
                           {"files", files.size()},
                           {"pixel_hash", fmt::format("{:016x}", hash)}}
                   .dump()
            << "\n";
}
