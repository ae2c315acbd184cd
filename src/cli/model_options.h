#pragma once
#include <CLI/CLI.hpp>

#include "infer/model_bundle.h"

namespace llava {

/// --model, --model-base, --vision-tower, --chat-format, and the limits of images and films (--max-pixels, …): what
/// every verb with a model takes.
void add_checkpoint_options(CLI::App& app, OpenOptions& options);
/// --dtype, --device, --threads: where and how it computes.
void add_compute_options(CLI::App& app, OpenOptions& options, int& threads);
/// Sets the number of CPU threads; 0 leaves LibTorch's choice. Error{kUsage} for negative or absurd
/// numbers.
void set_threads(int threads);

}  // namespace llava
