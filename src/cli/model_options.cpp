#include "cli/model_options.h"

#include <ATen/Parallel.h>

#include "base/error.h"

namespace llava {

namespace {

/// What a file may ask for before it is refused; the errors' hints name these.
void add_limit_options(CLI::App& app, VideoLimits& limits) {
  constexpr const char* kGroup = "Limits of images and films";
  constexpr auto kMost = std::int64_t{1} << 40;
  const auto add = [&](const char* name, std::int64_t& value, std::int64_t most, const char* what) {
    app.add_option(name, value, what)->capture_default_str()->check(CLI::Range(std::int64_t{1}, most))->group(kGroup);
  };
  add("--max-pixels", limits.image.max_pixels, kMost, "width times height of a picture or a frame");
  add("--max-side", limits.image.max_side, std::int64_t{1} << 24, "pixels of its longer side");
  add("--max-file-bytes", limits.image.max_bytes, kMost, "of a picture's file");
  add("--max-video-frames", limits.max_frames, std::int64_t{1} << 32, "in a film's file or a folder");
  app.add_option("--max-video-seconds", limits.max_seconds, "to read a film, without the model's time; 0: any time")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
}

}  // namespace

void add_checkpoint_options(CLI::App& app, OpenOptions& options) {
  app.add_option("-m,--model", options.model,
                 "checkpoint folder, GGUF file, installed model, or random:RECIPE")
      ->capture_default_str();
  app.add_option("--model-base", options.base, "language model of a LoRA or projector folder");
  app.add_flag("--delta", options.delta, "the folder's weights are differences from --model-base (LLaVA v0 and v1)");
  app.add_option("--vision-tower", options.vision_tower, "folder of the vision tower the checkpoint names");
  app.add_option("--chat-format", options.chat_format,
                 "a named conversation format instead of the checkpoint's own");
  add_limit_options(app, options.limits);
}

void add_compute_options(CLI::App& app, OpenOptions& options, int& threads) {
  app.add_option("--dtype", options.dtype, "auto, float32, bfloat16 or float16")->capture_default_str();
  app.add_option("--device", options.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--threads", threads, "CPU threads; 0: all cores")->capture_default_str();
}

void set_threads(int threads) {
  if (threads < 0 || threads > 4096) fail(ErrorKind::kUsage, "--threads {} is not in [0, 4096]", threads);
  if (threads > 0) at::set_num_threads(threads);
}

}  // namespace llava
