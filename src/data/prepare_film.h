#pragma once
#include <filesystem>
#include <vector>

#include "data/loader.h"
#include "text/conversation.h"
#include "vision/film.h"

namespace llava {

/// How films are read and shown.
struct FilmOptions {
  std::int64_t num_frames = 0;  ///< 0: by the model's rule
  VideoLimits limits;
};

/// A film as media: one item of all frames, or one item a frame where the model labels them
/// (MediaConfig::frame_label).
struct PreparedFilm {
  std::vector<PreparedMedia> media;
  FramePick frames;
};

/// Reads the frames that are shown. Errors as probe_video, and Error{kFormat} for a film of which any of
/// them is damaged: what a sample shows must not depend on what could be read.
PreparedFilm prepare_film(const std::filesystem::path& path, const ImagePolicy& policy,
                          const ModelConfig& model, const FilmOptions& options);

/// What prepare_film will give, without pixels and without decoding a frame.
PreparedFilm plan_film(const std::filesystem::path& path, const ImagePolicy& policy,
                       const ModelConfig& model, const FilmOptions& options);

/// Puts into the conversation what the model's text says of its films, `films` in order: the times of the
/// frames behind a film, or a labelled image a frame in its place. As `llava chat` asks.
void show_films(Conversation& conversation, const std::vector<FramePick>& films, const MediaConfig& media);

}  // namespace llava
