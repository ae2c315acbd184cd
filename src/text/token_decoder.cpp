#include "text/token_decoder.h"

#include <algorithm>

#include "base/error.h"
#include "text/decode_stages.h"
#include "text/json_parts.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace llava {
namespace {

constexpr std::size_t kMaxDecoders = 64;

}  // namespace

TokenDecoder TokenDecoder::from_json(const Json& decoder, bool clean_up) {
  TokenDecoder out;
  if (decoder.is_null())
    out.add_step({.kind = Step::Kind::kJoin, .pattern = {}, .content = {}});
  else
    out.add_steps(decoder);
  if (clean_up) out.add_step({.kind = Step::Kind::kCleanUp, .pattern = {}, .content = {}});
  return out;
}

TokenDecoder TokenDecoder::byte_level() {
  TokenDecoder out;
  out.add_step({.kind = Step::Kind::kByteLevel, .pattern = {}, .content = {}});
  return out;
}

TokenDecoder TokenDecoder::sentencepiece(bool strip_space) {
  TokenDecoder out;
  out.add_step({.kind = Step::Kind::kReplace, .pattern = "\xE2\x96\x81", .content = " "});
  out.add_step({.kind = Step::Kind::kByteFallback, .pattern = {}, .content = {}});
  out.add_step({.kind = Step::Kind::kFuse, .pattern = {}, .content = {}});
  if (strip_space) out.add_step({.kind = Step::Kind::kStrip, .pattern = {}, .content = " ", .start = 1});
  return out;
}

void TokenDecoder::add_step(Step step) {
  const bool needs_whole_tokens =
      step.kind == Step::Kind::kByteLevel || step.kind == Step::Kind::kByteFallback;
  step.fused = std::any_of(steps_.begin(), steps_.end(), [](const Step& s) {
    return s.kind == Step::Kind::kFuse || s.kind == Step::Kind::kByteLevel;
  });
  if (needs_whole_tokens && step.fused)
    fail(ErrorKind::kUnsupported, "decoder: ByteLevel or ByteFallback after the tokens have been fused");
  if (steps_.size() == kMaxDecoders) fail(ErrorKind::kFormat, "decoder: more than {} steps", kMaxDecoders);
  steps_.push_back(std::move(step));
}

void TokenDecoder::add_steps(const Json& json) {
  const auto type = json_get<std::string>(json, "type", "decoder");
  const std::string what = fmt::format("decoder {}", type);
  if (type == "Sequence") {
    for (const Json& part : json_array(json, "decoders", what)) add_steps(part);
    return;
  }
  Step step{.kind = Step::Kind::kFuse, .pattern = {}, .content = {}};
  if (type == "ByteLevel") {
    step.kind = Step::Kind::kByteLevel;
  } else if (type == "ByteFallback") {
    step.kind = Step::Kind::kByteFallback;
  } else if (type == "Strip") {
    step.kind = Step::Kind::kStrip;
    step.content = json_get<std::string>(json, "content", what);
    step.start = json_get<std::uint32_t>(json, "start", what);
    step.stop = json_get<std::uint32_t>(json, "stop", what);
    if (step.content.empty() || unicode::step(step.content, 0).len != step.content.size())
      fail(ErrorKind::kFormat, "{}: \"content\" must be one character", what);
  } else if (type == "Replace") {
    step.kind = Step::Kind::kReplace;
    step.pattern = string_pattern(json, what);
    step.content = json_get<std::string>(json, "content", what);
  } else if (type == "Metaspace") {
    step.kind = Step::Kind::kMetaspace;
    step.pattern = json_get<std::string>(json, "replacement", what);
    if (step.pattern.empty() || unicode::step(step.pattern, 0).len != step.pattern.size())
      fail(ErrorKind::kFormat, "{}: \"replacement\" must be one character", what);
    step.drop_first = json_get_or<std::string>(json, "prepend_scheme", "always", what) != "never";
  } else if (type != "Fuse") {
    fail(ErrorKind::kUnsupported,
         "decoder \"{}\" (known: ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, Sequence)",
         type);
  }
  add_step(std::move(step));
}

std::unique_ptr<TokenDecoder::Stage> TokenDecoder::make_stage(const Step& step, Stage* next) {
  switch (step.kind) {
    case Step::Kind::kByteLevel:
      return std::make_unique<ByteLevelStage>(next);
    case Step::Kind::kByteFallback:
      return std::make_unique<ByteFallbackStage>(next);
    case Step::Kind::kFuse:
      return std::make_unique<FuseStage>(next);
    case Step::Kind::kStrip:
      return std::make_unique<StripStage>(next, step.content, step.start, step.stop);
    case Step::Kind::kReplace:
      return std::make_unique<ReplaceStage>(next, step.pattern, step.content, step.fused);
    case Step::Kind::kMetaspace:
      return std::make_unique<MetaspaceStage>(next, step.pattern, step.drop_first);
    case Step::Kind::kJoin:
      return std::make_unique<JoinStage>(next);
    case Step::Kind::kCleanUp:
      return std::make_unique<CleanUpStage>(next);
  }
  fail(ErrorKind::kInternal, "unknown decoder step");
}

TokenDecoder::Stream::Stream(const TokenDecoder& decoder) {
  stages_.push_back(std::make_unique<SinkStage>(text_));
  for (auto step = decoder.steps_.rbegin(); step != decoder.steps_.rend(); ++step)
    stages_.push_back(make_stage(*step, stages_.back().get()));
}

TokenDecoder::Stream::~Stream() = default;

void TokenDecoder::Stream::push(std::string_view piece, std::string& out) {
  stages_.back()->push(piece, true);
  out.append(text_);
  text_.clear();
}

void TokenDecoder::Stream::finish(std::string& out) {
  stages_.back()->finish();
  out.append(text_);
  text_.clear();
}

}  // namespace llava
