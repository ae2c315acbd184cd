#include "data/prepare_film.h"

#include "base/error.h"

namespace llava {

namespace {

/// Plans of `frames` frames of that size, together or one by one.
PreparedFilm planned(const ImageSize& size, FramePick pick, const ImagePolicy& policy,
                     const ModelConfig& model) {
  PreparedFilm film;
  const auto frames = static_cast<std::int64_t>(pick.indices.size());
  MediaPlan all = plan_video(size, frames, policy, model);
  film.frames = std::move(pick);
  if (model.media.frame_label.empty()) {
    film.media.push_back({all, {}, -1});
    return film;
  }
  MediaPlan one = all;
  one.layout.video = false;
  one.layout.views = one.num_tiles = all.num_tiles / frames;
  one.layout.token_count = one.token_count = all.token_count / frames;
  film.media.assign(static_cast<std::size_t>(frames), {one, {}, -1});
  return film;
}

/// A label such as "Frame {}:" with its number.
std::string numbered(std::string label, std::size_t number) {
  if (const std::size_t at = label.find("{}"); at != std::string::npos)
    label.replace(at, 2, std::to_string(number));
  return label;
}

/// Adds text, to the last part if that is text.
void add_text(std::vector<Part>& parts, const std::string& text) {
  if (text.empty()) return;
  if (!parts.empty() && !parts.back().is_media()) {
    parts.back().text += text;
  } else {
    parts.push_back({Part::Kind::kText, text});
  }
}

/// One labelled image a frame, each on a line of its own.
void add_frames(std::vector<Part>& parts, std::size_t frames, const std::string& label) {
  for (std::size_t i = 0; i < frames; ++i) {
    if (frames > 1) add_text(parts, (i > 0 ? "\n" : "") + numbered(label, i + 1) + "\n");
    parts.push_back({Part::Kind::kImage, ""});
  }
}

}  // namespace

PreparedFilm plan_film(const std::filesystem::path& path, const ImagePolicy& policy,
                       const ModelConfig& model, const FilmOptions& options) {
  VideoInfo info;
  FramePick pick = pick_film_frames(path, model, options.num_frames, options.limits, &info);
  return planned(info.size, std::move(pick), policy, model);
}

PreparedFilm prepare_film(const std::filesystem::path& path, const ImagePolicy& policy,
                          const ModelConfig& model, const FilmOptions& options) {
  return with_context(path.string(), [&] {
    FramePick pick = pick_film_frames(path, model, options.num_frames, options.limits);
    std::vector<std::vector<float>> pixels;
    ImageSize size;
    const FramesRead read = read_frames(
        path, pick.indices,
        [&](std::size_t, const Image& frame) {
          size = {frame.width, frame.height};
          pixels.push_back(render_frame(frame, policy, model));
          return true;
        },
        options.limits);
    if (pixels.size() != pick.indices.size())
      fail(ErrorKind::kFormat, "{}", read.problem.empty() ? "frames are missing" : read.problem);
    PreparedFilm film = planned(size, std::move(pick), policy, model);
    if (film.media.size() == 1) {
      std::vector<float>& all = film.media.front().pixels;
      all.reserve(pixels.size() * pixels.front().size());
      for (const std::vector<float>& frame : pixels) all.insert(all.end(), frame.begin(), frame.end());
    } else {
      for (std::size_t i = 0; i < pixels.size(); ++i) film.media[i].pixels = std::move(pixels[i]);
    }
    return film;
  });
}

void show_films(Conversation& conversation, const std::vector<FramePick>& films, const MediaConfig& media) {
  std::size_t next = 0;
  for (Message& message : conversation.messages) {
    std::vector<Part> parts;
    std::string times;  // of the film before, to stand behind it
    for (const Part& part : message.parts) {
      if (part.kind != Part::Kind::kVideo) {
        if (!times.empty())
          add_text(parts, "\n" + times + (part.is_media() || part.text.starts_with('\n') ? "" : "\n"));
        times.clear();
        if (part.is_media()) {
          parts.push_back(part);
        } else {
          add_text(parts, part.text);
        }
        continue;
      }
      LLAVA_ASSERT(next < films.size(), "a film for every <video>");
      const FramePick& film = films[next++];
      if (media.frame_label.empty()) {
        parts.push_back(part);
      } else {
        add_frames(parts, film.indices.size(), media.frame_label);
      }
      if (media.time_instruction) times = time_instruction(film);
    }
    if (!times.empty()) add_text(parts, "\n" + times);
    message.parts = std::move(parts);
  }
}

}  // namespace llava
