#include <CLI/CLI.hpp>

#include <memory>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signals.h"
#include "cli/chat_modes.h"
#include "cli/model_options.h"
#include "cli/verbs.h"
#include "vision/image.h"
#include "vision/media_plan.h"
#include "vision/video.h"

namespace llava {

namespace {

void add_sampling_options(CLI::App& app, SamplingParams& s) {
  app.add_option("--max-new-tokens", s.max_new_tokens, "longest answer")->capture_default_str();
  app.add_option("--temperature", s.temperature, "0: always the likeliest token")->capture_default_str();
  app.add_option("--top-p", s.top_p, "keep the likeliest tokens of this total probability")
      ->capture_default_str();
  app.add_option("--top-k", s.top_k, "keep this many tokens; 0: all")->capture_default_str();
  app.add_option("--min-p", s.min_p, "drop tokens below this share of the likeliest")
      ->capture_default_str();
  app.add_option("--repetition-penalty", s.repetition_penalty, "above 1: avoid tokens seen before")
      ->capture_default_str();
  app.add_option("--seed", s.seed, "of the draws")->capture_default_str();
  app.add_option("--stop", s.stop_strings, "text that ends the answer (repeat)")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
}

/// Reads the headers: files that cannot be shown, or more images than the context holds, cost no time.
void check_images(const ChatArguments& args, const CheckpointInfo& checkpoint) {
  if (args.images.empty()) return;
  if (!checkpoint.image_policy)
    fail(ErrorKind::kInput, "{} has no vision tower: it cannot look at images", checkpoint.folder.string());
  const ImageLimits& limits = checkpoint.image_policy->limits;
  std::int64_t tokens = 0;
  for (const std::string& file : args.images) {
    const std::string bytes = read_image_file(file, limits);
    tokens += with_context(file, [&] {
      const ImageSize size = probe_image(bytes, limits, true);
      return plan_media(size, *checkpoint.image_policy, checkpoint.model, args.images.size()).token_count;
    });
  }
  const std::int64_t context = args.context_length > 0 ? args.context_length : model_context(checkpoint.model.decoder);
  if (tokens >= context)
    throw Error(ErrorKind::kInput,
                fmt::format("{} images take {} tokens, the context has {}", args.images.size(), tokens, context),
                "show fewer, or allow more with --context-length N");
}

/// What a video will cost is known from its headers: more positions for models that were trained on few, as
/// LLaVA-NeXT-Video's demo scales them (specification 1.5.7).
void check_video(const ChatArguments& args, CheckpointInfo& checkpoint) {
  if (args.film.path.empty()) return;
  if (!checkpoint.image_policy)
    fail(ErrorKind::kInput, "{} has no vision tower: it cannot look at videos", checkpoint.folder.string());
  VideoInfo info;
  const FramePick pick = pick_video_frames(args.film.path, checkpoint.model, args.film.options, &info);
  const MediaPlan plan = plan_video(info.size, static_cast<std::int64_t>(pick.indices.size()),
                                    *checkpoint.image_policy, checkpoint.model);
  if (const auto factor = extend_context(checkpoint.model.decoder, plan.token_count); factor > 1)
    log_warning("chat", "the video takes {} tokens: positions are scaled by {} to {}", plan.token_count, factor,
                checkpoint.model.decoder.max_position_embeddings);
}

/// A bar for films of more than a few frames; Ctrl-C stops.
std::function<bool(std::int64_t, std::int64_t)> frame_progress() {
  constexpr std::int64_t kFew = 16;
  auto bar = std::make_shared<std::unique_ptr<Progress>>();
  return [bar](std::int64_t done, std::int64_t total) {
    if (total <= kFew) return !stop_flag().load();
    if (done == 0) *bar = std::make_unique<Progress>("frames", total);
    if (*bar) (*bar)->update(done + 1);
    if (done + 1 == total) bar->reset();
    return !stop_flag().load();
  };
}

int run_chat(ChatArguments& args) {
  if (args.context != "drop" && args.context != "refuse")
    fail(ErrorKind::kUsage, "--context \"{}\" is not one of drop, refuse", args.context);
  if (args.jsonl && !args.question.empty())
    fail(ErrorKind::kUsage, "--jsonl reads its questions from standard input, not \"{}\"", args.question);
  if (args.context_length < 0)
    fail(ErrorKind::kUsage, "--context-length {} is negative", args.context_length);
  if (args.self_correct > 0 && (args.jsonl || args.question.empty()))
    fail(ErrorKind::kUsage, "--self-correct needs a question on the command line");
  args.session.sampling.validate();
  set_threads(args.threads);
  // What the checkpoint's files and the images' headers tell is checked before the weights are loaded.
  CheckpointInfo checkpoint = open_checkpoint(args.open);
  check_can_chat(checkpoint);
  args.film.options.limits = args.open.limits;
  args.film.apply(checkpoint.model);
  check_images(args, checkpoint);
  check_video(args, checkpoint);
  ModelBundle bundle = load_bundle(std::move(checkpoint), args.open);
  args.session.context = args.context == "drop" ? ContextPolicy::kDrop : ContextPolicy::kRefuse;
  args.session.context_length = args.context_length;
  args.session.notice = [](const std::string& text) { log_warning("chat", "{}", text); };
  args.film.options.on_frame = frame_progress();
  ChatSession session(bundle, args.session);
  if (args.jsonl) return chat_jsonl(session, args);
  if (args.self_correct > 0) return chat_self_correct(session, args, args.self_correct);
  for (const std::string& image : args.images) session.add_image(image);
  add_film(session, args.film.path, args.film.options);
  if (!args.question.empty()) return chat_once(session, args, bundle);
  return chat_interactive(session, args, bundle);
}

}  // namespace

std::function<int()> setup_chat(CLI::App& app) {
  auto args = std::make_shared<ChatArguments>();
  app.add_option("QUESTION", args->question, "asked once; without it the chat is interactive");
  app.add_option("-i,--image", args->images, "image file for the first question (repeat)")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  add_film_options(app, args->film);
  app.add_flag("--time-instruction", args->session.time_instruction,
               "tell the model when the video's frames are, in LLaVA-Video's words");
  app.add_option("--system", args->session.system, "system text instead of the format's own");
  add_checkpoint_options(app, args->open);
  add_sampling_options(app, args->session.sampling);
  add_compute_options(app, args->open, args->threads);
  app.add_option("--context", args->context, "full context: drop the oldest turn, or refuse")
      ->capture_default_str();
  app.add_option("--context-length", args->context_length, "tokens to use at most; 0: what the model takes")
      ->capture_default_str();
  app.add_option("--self-correct", args->self_correct,
                 "after the answer, so often: the model's own critique of it and a revision")
      ->check(CLI::Range(0, 16));
  app.add_flag("--stats", args->stats, "times and token counts on stderr after each answer");
  app.add_flag("--json", args->json, "one JSON document for each answer");
  app.add_flag("--jsonl", args->jsonl,
               R"(read {"id","images":[…],"question"} lines from stdin, write {"id","answer"} lines)");
  return [args] { return run_chat(*args); };
}

}  // namespace llava
