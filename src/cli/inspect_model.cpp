#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <string>

#include "base/error.h"
#include "batch/collate.h"
#include "cli/frame_policy.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/tensor_output.h"
#include "cli/verbs.h"
#include "infer/generate.h"
#include "infer/image_store.h"
#include "loader/load_model.h"
#include "prompt/prompt.h"
#include "recipe/recipe.h"

namespace llava {

namespace {

struct ForwardArgs {
  OpenOptions open;
  std::vector<std::string> images;
  FilmArguments film;
  std::string prompt, ids_file, out;
  std::int64_t generate = 0;
  int threads = 0;
};

struct ForwardInput {
  Prompt prompt;
  std::vector<at::Tensor> pixels;   ///< one [views,3,H,W] an image or a video
  bool video = false;
  std::vector<std::int64_t> sizes;  ///< h, w, h, w, …
};

/// Token ids as they are. Where there are images, a run of their token (or of -200) is the next one's
/// place, of as many tokens as it has.
Prompt prompt_from_ids(const std::string& file, const std::vector<MediaPlan>& plans,
                       std::int64_t image_token) {
  const Json json = read_json_file(file);
  if (!json.is_array() || json.empty())
    fail(ErrorKind::kInput, "{}: expected a JSON list of token ids", file);
  const auto is_image = [&](std::int64_t id) { return !plans.empty() && (id < 0 || id == image_token); };
  Prompt prompt;
  bool in_run = false;
  for (const Json& id : json) {
    if (!id.is_number_integer())
      fail(ErrorKind::kInput, "{}: {} is not a token id", file, id.dump().substr(0, 80));
    const auto token = id.get<std::int64_t>();
    const bool first = is_image(token) && !in_run;
    in_run = is_image(token);
    const std::size_t item = prompt.media_spans.size();
    if (first && item < plans.size()) {
      const auto count = static_cast<std::size_t>(plans[item].token_count);
      prompt.media_spans.push_back({prompt.ids.size(), count, item, plans[item].layout});
      prompt.ids.insert(prompt.ids.end(), count, token);
    } else if (first) {
      fail(ErrorKind::kInput, "{}: more places for images than the {} given", file, plans.size());
    } else if (!in_run) {
      prompt.ids.push_back(token);
    }
  }
  if (prompt.media_spans.size() != plans.size())
    fail(ErrorKind::kInput, "{}: {} places for images (token {}), {} given", file,
         prompt.media_spans.size(), image_token, plans.size());
  while (prompt.positions.size() < prompt.ids.size())
    prompt.positions.push_back(static_cast<std::int64_t>(prompt.positions.size()));
  return prompt;
}

ForwardInput read_input(const ForwardArgs& args, const CheckpointInfo& checkpoint) {
  ForwardInput input;
  std::vector<MediaPlan> plans;
  for (const std::string& file : args.images) {
    if (!checkpoint.image_policy)
      fail(ErrorKind::kInput, "{} has no vision tower: it takes no images", checkpoint.folder.string());
    ImagePixels image = load_pixels(file, *checkpoint.image_policy, checkpoint.model, args.images.size());
    input.pixels.push_back(image.pixels);
    input.sizes.insert(input.sizes.end(), {image.plan.original.height, image.plan.original.width});
    plans.push_back(image.plan);
  }
  if (!args.film.path.empty()) {
    if (!args.images.empty()) fail(ErrorKind::kUsage, "--image and --video exclude each other here");
    if (!checkpoint.image_policy)
      fail(ErrorKind::kInput, "{} has no vision tower: it takes no videos", checkpoint.folder.string());
    VideoOptions options = args.film.options;
    options.limits = args.open.limits;
    ImagePixels film = load_video_pixels(args.film.path, *checkpoint.image_policy, checkpoint.model, options);
    input.pixels.push_back(film.pixels);
    plans.push_back(film.plan);
    input.video = true;
  }
  if (checkpoint.layout == Layout::kHfVision) return input;
  if (!args.ids_file.empty()) {
    const ModelConfig& model = checkpoint.model;
    const bool own = input.video && model.media.video_token_id >= 0;
    const std::int64_t token = own ? model.media.video_token_id : model.image_token_id;
    input.prompt = prompt_from_ids(args.ids_file, plans, token);
    return input;
  }
  if (!checkpoint.tokenizer)
    throw Error(ErrorKind::kInput, fmt::format("{}: no tokenizer", checkpoint.folder.string()),
                "give token ids with --ids FILE");
  input.prompt = prompt_from_text(args.prompt, plans, *checkpoint.tokenizer, checkpoint.model,
                                  checkpoint.tokenisation);
  return input;
}

/// The ids as the reference has them: HF repeats the image token, the original layout has one -200 an
/// image.
at::Tensor reported_ids(const Prompt& prompt, const ModelConfig& model) {
  std::vector<std::int64_t> ids = prompt.ids;
  if (model.image_token_id < 0) {
    for (auto span = prompt.media_spans.rbegin(); span != prompt.media_spans.rend(); ++span)
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(span->begin + 1),
                ids.begin() + static_cast<std::ptrdiff_t>(span->begin + span->len));
  }
  return at::tensor(ids, at::kLong).unsqueeze(0);
}

at::Tensor greedy_ids(LlavaModel& model, const CollateRow& row, std::int64_t count) {
  GenerateOptions options;
  options.sampling.max_new_tokens = count;
  options.sampling.ignore_eos = true;
  GenerationStats stats;
  const std::vector<Generation> answers = generate(model, {&row, 1}, options, stats);
  return at::tensor(answers[0].ids, at::kLong).unsqueeze(0);
}

void trace_text(LlavaModel& model, const ForwardInput& input, std::int64_t count, TensorOutput& out) {
  CollateRow row;
  row.prompt = &input.prompt;
  row.media = input.pixels;
  const MultimodalBatch batch = collate({&row, 1}, model.config());
  ForwardTrace trace;
  const at::Tensor embeds = model.embed(batch, &trace);
  const at::Tensor hidden = model.decode(embeds, batch);
  out.add("input_ids", reported_ids(input.prompt, model.config()));
  out.add("vision_hidden", trace.vision_hidden);
  out.add("projected", trace.projected);
  out.add("inputs_embeds", embeds);
  if (batch.media_rows.defined())
    out.add("image_features", embeds.flatten(0, 1).index_select(0, batch.media_rows.to(embeds.device())));
  out.add("final_hidden", hidden);
  out.add("logits", model.logits(hidden));
  if (count > 0) out.add("greedy", greedy_ids(model, row, count));
}

/// A vision tower alone: hidden_states [layers+1,tokens,C] of the first image beside the selected layer of
/// all.
void trace_tower(const ForwardInput& input, const CheckpointInfo& checkpoint, const OpenOptions& open,
                 TensorOutput& out) {
  if (input.pixels.empty()) fail(ErrorKind::kUsage, "a vision tower needs --image");
  LoadOptions load;
  load.device = parse_device(open.device);
  load.dtype = parse_dtype(open.dtype);
  const LoadedTower loaded = load_tower(checkpoint, load);
  const at::Tensor pixels = at::cat(input.pixels, 0).to(load.device);
  std::vector<at::Tensor> layers = loaded.tower->hidden_states(pixels);
  for (at::Tensor& layer : layers) layer = layer[0];
  out.add("hidden_states", at::stack(layers));
  out.add("vision_hidden", loaded.tower->selected(pixels));
}

int run_forward(const ForwardArgs& args) {
  if (args.generate < 0 || args.generate > 1 << 20)
    fail(ErrorKind::kUsage, "--generate {} is not in [0, 1048576]", args.generate);
  if (!args.prompt.empty() && !args.ids_file.empty())
    fail(ErrorKind::kUsage, "--prompt and --ids exclude each other");
  set_threads(args.threads);
  // The input is checked before the weights are loaded, so that a wrong file costs no time.
  CheckpointInfo checkpoint = open_checkpoint(args.open);
  args.film.apply(checkpoint.model);
  const ForwardInput input = read_input(args, checkpoint);
  const at::NoGradGuard no_grad;
  TensorOutput out;
  if (input.video) {
    out.add("pixel_values_videos", input.pixels[0].unsqueeze(0));
  } else if (!input.pixels.empty()) {
    out.add("pixel_values", reference_pixels(input.pixels, checkpoint));
    out.add("image_sizes", at::tensor(input.sizes, at::kLong).view({-1, 2}));
  }
  if (checkpoint.layout == Layout::kHfVision) {
    trace_tower(input, checkpoint, args.open, out);
  } else {
    const ModelBundle bundle = load_bundle(std::move(checkpoint), args.open);
    trace_text(*bundle.model, input, args.generate, out);
  }
  out.write(args.out);
  return 0;
}

OrderedJson report_json(const WeightReport& report) {
  OrderedJson rows = OrderedJson::array();
  for (const auto& row : report.rows)
    rows.push_back({{"name", row.name},
                    {"canonical", row.canonical},
                    {"shape", row.shape},
                    {"dtype", row.dtype},
                    {"bytes", row.bytes},
                    {"file", row.file}});
  return {{"tensors", rows},
          {"missing", report.missing},
          {"unexpected", report.unexpected},
          {"misshaped", report.misshaped}};
}

std::string report_text(const WeightReport& report) {
  std::string text;
  std::size_t bytes = 0;
  for (const auto& row : report.rows) {
    text += fmt::format("{}\t{}\t[{}]\t{}\t{}\n", row.name, row.canonical, fmt::join(row.shape, ","),
                        row.dtype, row.bytes);
    bytes += row.bytes;
  }
  text += fmt::format("{} tensors, {} bytes\n", report.rows.size(), bytes);
  const std::pair<const char*, const std::vector<std::string>*> lists[] = {
      {"missing", &report.missing}, {"unexpected", &report.unexpected}, {"misshaped", &report.misshaped}};
  for (const auto& [title, names] : lists)
    for (const std::string& name : *names) text += fmt::format("{}: {}\n", title, name);
  return text;
}

}  // namespace

std::function<int()> setup_inspect_forward(CLI::App& app) {
  auto args = std::make_shared<ForwardArgs>();
  args->open.dtype = "float32";
  args->open.device = "cpu";
  add_checkpoint_options(app, args->open);
  add_compute_options(app, args->open, args->threads);
  app.add_option("-i,--image", args->images, "image files (repeat)")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  add_film_options(app, args->film);
  app.add_option("-p,--prompt", args->prompt, "raw prompt text with <image> or <video> where they go");
  app.add_option("--ids", args->ids_file, "JSON list of token ids instead of --prompt");
  app.add_option("-o,--out", args->out, "safetensors file for the tensors")->required();
  app.add_option("--generate", args->generate, "greedy tokens to add (end of text ignored)");
  return [args] { return run_forward(*args); };
}

std::function<int()> setup_inspect_weights(CLI::App& app) {
  struct Args {
    OpenOptions open;
    std::string recipe;
    bool json = false;
  };
  auto args = std::make_shared<Args>();
  app.add_option("DIR", args->open.model, "checkpoint folder, GGUF file or installed model")->required();
  app.add_option("--model-base", args->open.base, "language model of a LoRA or projector folder");
  app.add_option("--vision-tower", args->open.vision_tower,
                 "folder of the vision tower the checkpoint names");
  app.add_option("--recipe", args->recipe, "compare with this recipe's shape instead of the config's");
  app.add_flag("--json", args->json, "one JSON document");
  return [args] {
    CheckpointInfo checkpoint = open_checkpoint(args->open);
    if (!args->recipe.empty()) checkpoint.model = find_recipe(args->recipe).model;
    const WeightReport report = report_weights(checkpoint);
    write_out(args->json ? to_json_text(report_json(report)) + "\n" : report_text(report));
    return report.missing.empty() && report.misshaped.empty() ? 0 : exit_code(ErrorKind::kFormat);
  };
}

}  // namespace llava
