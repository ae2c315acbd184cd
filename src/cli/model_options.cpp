#include "cli/model_options.h"

#include <ATen/Parallel.h>

#include "base/error.h"

namespace llava {

void add_checkpoint_options(CLI::App& app, OpenOptions& options) {
  app.add_option("-m,--model", options.model,
                 "checkpoint folder, GGUF file, installed model, or random:RECIPE")
      ->capture_default_str();
  app.add_option("--model-base", options.base, "language model of a LoRA or projector folder");
  app.add_option("--vision-tower", options.vision_tower, "folder of the vision tower the checkpoint names");
  app.add_option("--chat-format", options.chat_format,
                 "a named conversation format instead of the checkpoint's own");
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
