#include <CLI/CLI.hpp>

#include <ATen/ATen.h>

#include <charconv>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "cli/frame_policy.h"
#include "cli/media_cost.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/tensor_output.h"
#include "cli/verbs.h"
#include "infer/image_store.h"
#include "prompt/prompt.h"
#include "recipe/recipe.h"
#include "text/conversation.h"

namespace llava {

namespace {

const ImagePolicy& policy_of(const CheckpointInfo& checkpoint) {
  if (!checkpoint.image_policy)
    fail(ErrorKind::kInput, "{} has no vision tower: it takes no images", checkpoint.folder.string());
  return *checkpoint.image_policy;
}

/// How a tiled image's features become its tokens.
OrderedJson describe_page(const MediaPlan& plan) {
  const AnyResPage& page = *plan.page;
  const MediaLayout& layout = plan.layout;
  return {{"page", {page.page.height, page.page.width}},
          {"resized", {page.resized.height, page.resized.width}},
          {"tiles", {page.rows, page.columns}},
          {"features", {layout.rows, layout.columns}},
          {"capped", {layout.capped_rows, layout.capped_columns}},
          {"overview", layout.overview},
          {"newline", to_string(layout.newline)}};
}

OrderedJson describe_plan(const std::string& file, const MediaPlan& plan, const ModelConfig& model) {
  const std::int64_t merge = model.connector.patch_merge;
  OrderedJson json = {{"image", file},
          {"width", plan.original.width},
          {"height", plan.original.height},
          {"tiles", plan.num_tiles},
          {"tile", {plan.tile_height, plan.tile_width}},
          {"grid", {model.tower->grid() / merge, model.tower->grid() / merge}},
          {"tokens", plan.token_count}};
  if (plan.page) json["anyres"] = describe_page(plan);
  json["cost"] = media_cost(plan, model);
  return json;
}

struct PromptArgs {
  OpenOptions open;
  std::vector<std::string> images;
  bool train = false, json = false;
  std::int64_t max_length = 0;
};

/// Images of the command line, else those the conversation itself refers to.
std::vector<MediaPlan> plan_images(const PromptArgs& args, const Conversation& conversation,
                                   const CheckpointInfo& checkpoint) {
  std::vector<std::string> files = args.images;
  if (files.empty()) {
    for (const Message& message : conversation.messages)
      for (const Part& part : message.parts)
        if (part.kind == Part::Kind::kImage) files.push_back(part.text);
  }
  std::vector<MediaPlan> plans;
  for (const std::string& file : files) {
    const ImagePolicy& policy = policy_of(checkpoint);
    if (file.empty())
      throw Error(ErrorKind::kUsage, "the conversation has an image without a file",
                  "give it with --image");
    const std::string bytes = read_image_file(file, policy.limits);
    const ImageSize size = with_context(file, [&] { return probe_image(bytes, policy.limits); });
    plans.push_back(plan_media(size, policy, checkpoint.model, files.size()));
  }
  return plans;
}

OrderedJson prompt_json(const Prompt& prompt, bool train) {
  OrderedJson json = {{"input_ids", prompt.ids}};
  if (train) json["labels"] = prompt.labels;
  OrderedJson spans = OrderedJson::array();
  for (const MediaSpan& span : prompt.media_spans)
    spans.push_back({{"begin", span.begin}, {"len", span.len}, {"item", span.item}});
  json["media_spans"] = std::move(spans);
  return json;
}

/// For people: the pieces in order, supervised ones green, image places as one yellow word.
std::string coloured(const Prompt& prompt, const Tokenizer& tokenizer) {
  std::string text;
  std::size_t span = 0;
  for (std::size_t i = 0; i < prompt.ids.size(); ++i) {
    if (span < prompt.media_spans.size() && prompt.media_spans[span].begin == i) {
      text += fmt::format("\033[33m<image {}: {} tokens>\033[0m", prompt.media_spans[span].item,
                          prompt.media_spans[span].len);
      i += prompt.media_spans[span++].len - 1;
      continue;
    }
    const bool supervised = i < prompt.labels.size() && prompt.labels[i] != kIgnoreIndex;
    text += fmt::format("{}{}|\033[0m", supervised ? "\033[32m" : "\033[2m",
                        tokenizer.id_to_token(prompt.ids[i]));
  }
  return text + fmt::format("\n{} tokens, {} images\n", prompt.ids.size(), prompt.media_spans.size());
}

int run_prompt(const PromptArgs& args) {
  const CheckpointInfo checkpoint = open_checkpoint(args.open);
  if (!checkpoint.tokenizer || !checkpoint.chat_format)
    throw Error(ErrorKind::kInput,
                fmt::format("{}: a tokenizer and a chat template are needed", checkpoint.folder.string()),
                "name a conversation format with --chat-format");
  const Json input = parse_json(read_stdin(), "standard input");
  const Conversation conversation =
      input.is_object() ? conversation_from_llava(input) : conversation_from_messages(input);
  PromptOptions options;
  options.mode = args.train ? PromptMode::kTrain : PromptMode::kGenerate;
  options.tokenisation = checkpoint.tokenisation;
  options.max_length = args.max_length;
  const Prompt prompt =
      build_prompt(conversation, plan_images(args, conversation, checkpoint), *checkpoint.chat_format,
                   *checkpoint.tokenizer, checkpoint.model, options);
  if (stdout_is_terminal() && !args.json) {
    write_out(coloured(prompt, *checkpoint.tokenizer));
  } else {
    write_json_line(prompt_json(prompt, args.train));
  }
  return 0;
}

/// "WIDTHxHEIGHT" of an image, "WIDTHxHEIGHTxFRAMES" of a film.
MediaPlan plan_of_size(const std::string& text, const ImagePolicy& policy, const ModelConfig& model,
                       const VideoLimits& limits) {
  std::int64_t numbers[3] = {0, 0, 0};
  std::size_t count = 0;
  const char *begin = text.data(), *end = begin + text.size();
  for (bool more = true; more && count < 3; ++count) {
    const auto [rest, error] = std::from_chars(begin, end, numbers[count]);
    const std::int64_t limit = count < 2 ? limits.image.max_side : limits.max_frames;
    if (error != std::errc() || numbers[count] < 1 || numbers[count] > limit) break;
    more = rest != end && *rest == 'x';
    if (rest == end && count > 0)
      return count == 1 ? plan_media({numbers[0], numbers[1]}, policy, model)
                        : plan_video({numbers[0], numbers[1]}, numbers[2], policy, model);
    begin = rest + 1;
  }
  throw Error(ErrorKind::kUsage,
              fmt::format("--size \"{}\" is no WIDTHxHEIGHT or WIDTHxHEIGHTxFRAMES within the limits", text),
              "--max-side N and --max-video-frames N allow more");
}

/// What images of these sizes would cost, one JSON line each.
int inspect_sizes(const std::vector<std::string>& sizes, const ImagePolicy& policy, const ModelConfig& model,
                  const VideoLimits& limits) {
  std::string all;
  for (const std::string& size : sizes) all += (size == "-" ? read_stdin() : size) + "\n";
  for (std::size_t begin = 0; begin < all.size();) {
    const std::size_t end = all.find('\n', begin);
    const std::string line = all.substr(begin, end - begin);
    begin = end + 1;
    if (!line.empty()) write_json_line(describe_plan(line, plan_of_size(line, policy, model, limits), model));
  }
  return 0;
}

/// A film's frames, tokens and cost from its headers; decoded only for `out`.
int inspect_video(const std::string& file, const VideoOptions& options, const CheckpointInfo& checkpoint,
                  const std::string& out) {
  VideoInfo info;
  const FramePick pick = pick_video_frames(file, checkpoint.model, options, &info);
  const MediaPlan plan = plan_video(info.size, static_cast<std::int64_t>(pick.indices.size()),
                                    policy_of(checkpoint), checkpoint.model);
  OrderedJson json = describe_plan(file, plan, checkpoint.model);
  json["frames_in_file"] = info.frames;
  json["fps"] = info.fps;
  json["seconds"] = info.duration;
  json["frames"] = pick.indices;
  json["times"] = pick.times;
  if (!info.problem.empty()) {
    json["problem"] = info.problem;
    log_warning("inspect", "{}", info.problem);
  }
  if (!out.empty()) {
    TensorOutput tensors;
    const ImagePixels film = load_video_pixels(file, policy_of(checkpoint), checkpoint.model, options);
    tensors.add("pixel_values_videos", film.pixels.unsqueeze(0));
    tensors.write(out);
  }
  write_json_line({{"video", json}});
  return 0;
}

}  // namespace

std::function<int()> setup_inspect_image(CLI::App& app) {
  struct Args {
    OpenOptions open;
    std::vector<std::string> images;
    std::string out, recipe;
    std::vector<std::string> sizes;
    FilmArguments film;
  };
  auto args = std::make_shared<Args>();
  app.add_option("IMAGE", args->images, "image files");
  app.add_option("--size", args->sizes, "WIDTHxHEIGHT or WIDTHxHEIGHTxFRAMES instead of a file (repeat); -: one a line on standard input")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  add_film_options(app, args->film);
  add_checkpoint_options(app, args->open);
  app.add_option("-o,--out", args->out, "safetensors file for pixel_values and image_sizes");
  app.add_option("--recipe", args->recipe, "with --size: a model of the table (llava inspect recipe), without its files");
  return [args] {
    if (!args->recipe.empty()) {
      Recipe recipe = find_recipe(args->recipe);
      if (args->sizes.empty() || !recipe.model.tower)
        fail(ErrorKind::kUsage, "--recipe needs --size and a model with a vision tower");
      args->film.apply(recipe.model);
      return inspect_sizes(args->sizes, *recipe.image_policy, recipe.model, args->open.limits);
    }
    CheckpointInfo checkpoint = open_checkpoint(args->open);
    const ImagePolicy& policy = policy_of(checkpoint);
    args->film.apply(checkpoint.model);
    std::vector<at::Tensor> pixels;
    std::vector<std::int64_t> sizes;
    OrderedJson images = OrderedJson::array();
    if (!args->sizes.empty()) return inspect_sizes(args->sizes, policy, checkpoint.model, args->open.limits);
    if (args->images.empty() && args->film.path.empty())
      fail(ErrorKind::kUsage, "inspect image needs image files, --video or --size");
    args->film.options.limits = args->open.limits;
    if (!args->film.path.empty()) return inspect_video(args->film.path, args->film.options, checkpoint, args->out);
    for (const std::string& file : args->images) {
      const ImagePixels image = load_pixels(file, policy, checkpoint.model, args->images.size());
      pixels.push_back(image.pixels);
      sizes.insert(sizes.end(), {image.plan.original.height, image.plan.original.width});
      images.push_back(describe_plan(file, image.plan, checkpoint.model));
    }
    if (!args->out.empty()) {
      TensorOutput out;
      out.add("pixel_values", reference_pixels(pixels, checkpoint));
      out.add("image_sizes", at::tensor(sizes, at::kLong).view({-1, 2}));
      out.write(args->out);
    }
    write_json_line({{"images", images}});
    return 0;
  };
}

std::function<int()> setup_inspect_prompt(CLI::App& app) {
  auto args = std::make_shared<PromptArgs>();
  add_checkpoint_options(app, args->open);
  app.add_option("-i,--image", args->images, "image files, in the order of their places (repeat)")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  app.add_flag("--train", args->train, "labels too, as in training");
  app.add_option("--max-length", args->max_length, "truncate to this many tokens; 0: no limit");
  app.add_flag("--json", args->json, "JSON on a terminal too");
  return [args] { return run_prompt(*args); };
}

}  // namespace llava
