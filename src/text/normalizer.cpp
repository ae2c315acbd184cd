#include "text/normalizer.h"

#include <optional>

#include "base/error.h"
#include "text/json_parts.h"

namespace llava {
namespace {

constexpr std::size_t kMaxText = std::size_t{256} << 20;
constexpr std::size_t kMaxNormalizers = 64;

std::optional<unicode::NormalForm> normal_form(std::string_view type) {
  if (type == "NFC") return unicode::NormalForm::kNfc;
  if (type == "NFD") return unicode::NormalForm::kNfd;
  if (type == "NFKC") return unicode::NormalForm::kNfkc;
  if (type == "NFKD") return unicode::NormalForm::kNfkd;
  return std::nullopt;
}

std::string_view strip(std::string_view text, bool left, bool right) {
  std::size_t begin = 0;
  while (left && begin < text.size() && unicode::is_space(unicode::at(text, begin)))
    begin += unicode::step(text, begin).len;
  text.remove_prefix(begin);
  while (right && !text.empty()) {
    std::size_t last = text.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
    if (!unicode::is_space(unicode::at(text, last))) break;
    text = text.substr(0, last);
  }
  return text;
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size());
  std::size_t pos = 0;
  for (std::size_t hit; (hit = text.find(pattern, pos)) != std::string_view::npos;
       pos = hit + pattern.size()) {
    out.append(text.substr(pos, hit - pos)).append(content);
    if (out.size() > kMaxText)
      fail(ErrorKind::kResource, "the normalised text is longer than {} bytes", kMaxText);
  }
  return out.append(text.substr(pos));
}

std::string string_pattern(const Json& object, std::string_view what) {
  const auto it = object.find("pattern");
  if (it == object.end() || !it->is_object()) fail(ErrorKind::kFormat, "{}: \"pattern\" is missing", what);
  if (it->contains("Regex"))
    fail(ErrorKind::kUnsupported, "{} with the regex {}", what, (*it)["Regex"].dump().substr(0, 200));
  auto pattern = json_get<std::string>(*it, "String", what);
  if (pattern.empty()) fail(ErrorKind::kFormat, "{}: the pattern is empty", what);
  return pattern;
}

Normalizer Normalizer::from_json(const Json& normalizer) {
  Normalizer out;
  if (!normalizer.is_null()) out.add_steps(normalizer);
  return out;
}

void Normalizer::add_steps(const Json& normalizer) {
  const auto type = json_get<std::string>(normalizer, "type", "normalizer");
  if (type == "Sequence") {
    for (const Json& part : json_array(normalizer, "normalizers", "normalizer Sequence")) add_steps(part);
    return;
  }
  Step step;
  if (const auto form = normal_form(type)) {
    step.form = *form;
  } else if (type == "Prepend") {
    step.kind = Step::Kind::kPrepend;
    step.content = json_get<std::string>(normalizer, "prepend", "normalizer Prepend");
  } else if (type == "Replace") {
    step.kind = Step::Kind::kReplace;
    step.pattern = string_pattern(normalizer, "normalizer Replace");
    step.content = json_get<std::string>(normalizer, "content", "normalizer Replace");
  } else if (type == "Lowercase") {
    step.kind = Step::Kind::kLowercase;
  } else if (type == "Strip") {
    step.kind = Step::Kind::kStrip;
    step.strip_left = json_get_or<bool>(normalizer, "strip_left", true, "normalizer Strip");
    step.strip_right = json_get_or<bool>(normalizer, "strip_right", true, "normalizer Strip");
  } else {
    fail(ErrorKind::kUnsupported,
         "normalizer \"{}\" (known: NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, Sequence)",
         type);
  }
  if (steps_.size() == kMaxNormalizers)
    fail(ErrorKind::kFormat, "normalizer: more than {} steps", kMaxNormalizers);
  steps_.push_back(std::move(step));
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) {
    out = apply_step(step, out);
    if (out.size() > kMaxText)
      fail(ErrorKind::kResource, "the normalised text is longer than {} bytes", kMaxText);
  }
  return out;
}

std::string Normalizer::apply_step(const Step& step, std::string_view text) {
  switch (step.kind) {
    case Step::Kind::kForm:
      return unicode::normalize(text, step.form);
    case Step::Kind::kPrepend:
      return text.empty() ? std::string() : step.content + std::string(text);
    case Step::Kind::kReplace:
      return replace_all(text, step.pattern, step.content);
    case Step::Kind::kLowercase:
      return unicode::to_lower(text);
    case Step::Kind::kStrip:
      return std::string(strip(text, step.strip_left, step.strip_right));
  }
  return std::string(text);
}

}  // namespace llava
