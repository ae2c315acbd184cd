#include "cli/frame_policy.h"

#include <map>

#include "base/error.h"

namespace llava {

namespace {

template <typename Value>
std::map<std::string, Value> names_of(std::initializer_list<Value> values) {
  std::map<std::string, Value> names;
  for (const Value value : values) names[to_string(value)] = value;
  return names;
}

}  // namespace

void FilmArguments::apply(ModelConfig& model) const {
  if (!pool && !pool_stride && !newline) return;
  if (!model.tower) fail(ErrorKind::kUsage, "this model has no vision tower: it has no rules for films");
  MediaConfig& media = model.media;
  if (model.compressor || model.connector.class_token)
    throw Error(ErrorKind::kUsage, "this model's frames are no grid that could be pooled or have newlines",
                "leave out --video-pool, --video-pool-stride and --video-newline");
  if (newline && *newline != Newline::kNone && !media.image_newline)
    throw Error(ErrorKind::kUsage, fmt::format("--video-newline {}: this model has no image_newline", to_string(*newline)),
                "use --video-newline no_token, or a model of the NeXT or OneVision kind");
  if (pool) media.video_pool = *pool;
  if (pool_stride) media.video_pool_stride = *pool_stride;
  if (newline) media.video_newline = *newline;
  if (media.video_pool != PoolMode::kNone && media.video_pool_stride > model.tower->grid())
    fail(ErrorKind::kUsage, "--video-pool-stride {}: a frame has {} features a side", media.video_pool_stride,
         model.tower->grid());
}

void add_film_options(CLI::App& app, FilmArguments& film) {
  constexpr const char* kGroup = "Film";
  app.add_option("--video", film.path, "film, or folder of frames")->group(kGroup);
  app.add_option("--num-frames", film.options.num_frames,
                 "frames of it to show, spread evenly; 0: by the model's rule, all of a folder")
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  app.add_option("--video-pool", film.pool, "how a frame's features are pooled, instead of the model's rule")
      ->transform(CLI::CheckedTransformer(names_of({PoolMode::kNone, PoolMode::kAverage, PoolMode::kMax, PoolMode::kBilinear})))
      ->group(kGroup);
  app.add_option("--video-pool-stride", film.pool_stride, "by how much on each side")->check(CLI::Range(1, 64))->group(kGroup);
  app.add_option("--video-newline", film.newline,
                 "where image_newline stands: grid, behind every row (frames as tiles of an AnyRes page); frame, behind "
                 "every frame; one_token, behind the film; no_token")
      ->transform(CLI::CheckedTransformer(names_of({Newline::kNone, Newline::kGrid, Newline::kFrame, Newline::kEnd})))
      ->group(kGroup);
}

}  // namespace llava
