#include <CLI/CLI.hpp>

#include <ATen/ATen.h>

#include <charconv>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/tensor_output.h"
#include "cli/verbs.h"
#include "infer/image_store.h"
#include "prompt/prompt.h"
#include "text/conversation.h"

namespace llava {

namespace {

const ImagePolicy& policy_of(const CheckpointInfo& checkpoint) {
  if (!checkpoint.image_policy)
    fail(ErrorKind::kInput, "{} has no vision tower: it takes no images", checkpoint.folder.string());
  return *checkpoint.image_policy;
}

/// Multiply-adds of the tower and of the decoder's prefill for one image, in 10^9 operations, and the bytes
/// of its keys and values at the checkpoint's precision.
OrderedJson cost_of(const MediaPlan& plan, const ModelConfig& model) {
  const TowerConfig& t = *model.tower;
  const auto tokens = static_cast<double>(t.num_patches() + (t.has_cls() ? 1 : 0));
  const auto width = static_cast<double>(t.hidden_size);
  const double block =
      2 * tokens * (4 * width * width + 2 * width * static_cast<double>(t.intermediate_size)) +
      4 * tokens * tokens * width;
  const double vision = static_cast<double>(plan.num_tiles * t.num_hidden_layers) * block / 1e9;
  const DecoderConfig& d = model.decoder;
  const double weights =
      static_cast<double>(count_parameters(model).decoder - d.vocab_size * d.hidden_size);
  const std::int64_t kv_values = 2 * d.num_hidden_layers * d.num_key_value_heads * d.head_dim;
  const std::int64_t value_bytes = model.torch_dtype == "float32" ? 4 : 2;
  return {{"vision_gflop", vision},
          {"prefill_gflop", 2 * weights * static_cast<double>(plan.token_count) / 1e9},
          {"kv_bytes", kv_values * value_bytes * plan.token_count}};
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
  json["cost"] = cost_of(plan, model);
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
    const std::string bytes = read_file(file, static_cast<std::size_t>(policy.limits.max_bytes));
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

ImageSize parse_size(std::string_view text) {
  ImageSize size;
  const char* end = text.data() + text.size();
  const auto [x, first] = std::from_chars(text.data(), end, size.width);
  if (first == std::errc() && x != end && *x == 'x') {
    const auto [rest, second] = std::from_chars(x + 1, end, size.height);
    const std::int64_t limit = ImageLimits().max_side;
    if (second == std::errc() && rest == end && size.width > 0 && size.height > 0 && size.width <= limit && size.height <= limit)
      return size;
  }
  fail(ErrorKind::kUsage, "--size \"{}\" is no WIDTHxHEIGHT", text);
}

/// What images of these sizes would cost, one JSON line each.
int inspect_sizes(const std::vector<std::string>& sizes, const CheckpointInfo& checkpoint) {
  std::string all;
  for (const std::string& size : sizes) all += (size == "-" ? read_stdin() : size) + "\n";
  for (std::size_t begin = 0; begin < all.size();) {
    const std::size_t end = all.find('\n', begin);
    const std::string_view line = std::string_view(all).substr(begin, end - begin);
    begin = end + 1;
    if (line.empty()) continue;
    write_json_line(describe_plan(std::string(line), plan_media(parse_size(line), policy_of(checkpoint), checkpoint.model),
                                  checkpoint.model));
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
    std::string video, out;
    std::vector<std::string> sizes;
    VideoOptions video_options;
  };
  auto args = std::make_shared<Args>();
  app.add_option("IMAGE", args->images, "image files");
  app.add_option("--size", args->sizes, "WIDTHxHEIGHT instead of a file (repeat); -: one a line on standard input")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  app.add_option("--video", args->video, "film or folder of frames");
  app.add_option("--num-frames", args->video_options.num_frames, "frames of it, spread evenly")
      ->check(CLI::NonNegativeNumber);
  add_checkpoint_options(app, args->open);
  app.add_option("-o,--out", args->out, "safetensors file for pixel_values and image_sizes");
  return [args] {
    const CheckpointInfo checkpoint = open_checkpoint(args->open);
    const ImagePolicy& policy = policy_of(checkpoint);
    std::vector<at::Tensor> pixels;
    std::vector<std::int64_t> sizes;
    OrderedJson images = OrderedJson::array();
    if (!args->sizes.empty()) return inspect_sizes(args->sizes, checkpoint);
    if (args->images.empty() && args->video.empty())
      fail(ErrorKind::kUsage, "inspect image needs image files, --video or --size");
    if (!args->video.empty()) return inspect_video(args->video, args->video_options, checkpoint, args->out);
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
