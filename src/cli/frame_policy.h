#pragma once
#include <CLI/CLI.hpp>

#include <optional>
#include <string>

#include "config/model_config.h"
#include "infer/image_store.h"

namespace llava {

/// What the command line says about a film: the file, how many frames, and how their features become rows where the
/// checkpoint's own rule is not wanted (an image model shown a film: pooled frames, or with newline "grid" tiles of one
/// AnyRes page).
struct FilmArguments {
  std::string path;
  VideoOptions options;
  std::optional<PoolMode> pool;
  std::optional<std::int64_t> pool_stride;
  std::optional<Newline> newline;

  /// Replaces the model's rules by those given. Error{kUsage} for rules its connector or weights cannot follow.
  void apply(ModelConfig& model) const;
};

/// --video, --num-frames, --video-pool, --video-pool-stride, --video-newline.
void add_film_options(CLI::App& app, FilmArguments& film);

}  // namespace llava
