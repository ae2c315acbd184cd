#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/json_parts.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/tokenizer.h"
#include "text/tokenizer_config.h"
#include "text/tokenizer_pipeline.h"
#include "text/unicode.h"

namespace llava {
namespace {

/// The `post_processor`: ids put before and after those of the text.
struct PostProcessor {
  std::vector<std::int64_t> before, after;
};

constexpr std::size_t kMaxTemplateIds = 64;

/// The ids of a TemplateProcessing's special token.
std::vector<std::int64_t> template_ids(const Json& processor, const Json& item, std::string_view what) {
  const auto name = json_get<std::string>(item, "id", what);
  const Json& tokens = json_object(processor, "special_tokens", what);
  const auto it = tokens.find(name);
  if (it == tokens.end()) fail(ErrorKind::kFormat, "{}: special token \"{}\" is not defined", what, name);
  std::vector<std::int64_t> ids;
  for (const Json& id : json_array(*it, "ids", what)) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > kMaxTokenId)
      fail(ErrorKind::kFormat, "{}: the id of \"{}\" must be of 0..{}", what, name, kMaxTokenId);
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

void add_template(const Json& processor, PostProcessor& out) {
  constexpr std::string_view kWhat = "post_processor TemplateProcessing";
  bool after_text = false;
  for (const Json& item : json_array(processor, "single", kWhat)) {
    if (item.is_object() && item.contains("Sequence")) {
      if (std::exchange(after_text, true))
        fail(ErrorKind::kUnsupported, "{}: the text stands twice", kWhat);
    } else if (item.is_object() && item.contains("SpecialToken")) {
      auto ids = template_ids(processor, item["SpecialToken"], kWhat);
      if (after_text)
        out.after.insert(out.after.end(), ids.begin(), ids.end());
      else
        out.before.insert(out.before.end(), ids.begin(), ids.end());
    } else {
      fail(ErrorKind::kFormat, "{}: \"single\" must hold Sequence and SpecialToken items", kWhat);
    }
    if (out.before.size() + out.after.size() > kMaxTemplateIds)
      fail(ErrorKind::kFormat, "{}: more than {} special tokens", kWhat, kMaxTemplateIds);
  }
  if (!after_text) fail(ErrorKind::kUnsupported, "{}: the text does not appear in it", kWhat);
}

void add_post_processor(const Json& processor, PostProcessor& out) {
  if (processor.is_null()) return;
  const auto type = json_get<std::string>(processor, "type", "post_processor");
  if (type == "Sequence") {
    for (const Json& part : json_array(processor, "processors", "post_processor Sequence"))
      add_post_processor(part, out);
  } else if (type == "TemplateProcessing") {
    PostProcessor outer;
    add_template(processor, outer);  // its tokens go around what earlier ones added
    out.before.insert(out.before.begin(), outer.before.begin(), outer.before.end());
    out.after.insert(out.after.end(), outer.after.begin(), outer.after.end());
  } else if (type != "ByteLevel") {  // ByteLevel only moves offsets, which we do not keep
    fail(ErrorKind::kUnsupported, "post_processor \"{}\" (known: TemplateProcessing, ByteLevel, Sequence)",
         type);
  }
}

/// Puts the added tokens together as Hugging Face does: those of tokenizer.json, then what
/// tokenizer_config.json adds or changes. Ids are given by the vocabulary or counted on, not taken from the
/// files.
class AddedTokensBuilder {
 public:
  explicit AddedTokensBuilder(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

  void add(AddedToken token) {
    if (token.content.empty()) return;
    const std::int64_t stated = token.id;
    token.id = id_of(token.content);
    if (stated >= 0 && stated != token.id)
      log_warning("text", "added token \"{}\" has the id {}, not {} as its file says", token.content,
                  token.id, stated);
    tokens_.add(std::move(token));
  }
  const AddedToken* find(std::string_view content) const { return tokens_.find(content); }
  AddedTokens finish(const Normalizer& normalizer) && {
    tokens_.finish(normalizer);
    return std::move(tokens_);
  }

 private:
  std::int64_t id_of(const std::string& content) const {
    if (const AddedToken* known = tokens_.find(content)) return known->id;
    if (const std::int32_t id = vocabulary_.find(content); id >= 0) return id;
    return std::max(static_cast<std::int64_t>(vocabulary_.num_tokens()), tokens_.end_id());
  }

  const Vocabulary& vocabulary_;
  AddedTokens tokens_;
};

AddedTokens read_added_tokens(const Json& json, const TokenizerConfig& config, const Vocabulary& vocabulary,
                              const Normalizer& normalizer) {
  AddedTokensBuilder builder(vocabulary);
  if (const auto it = json.find("added_tokens"); it != json.end() && !it->is_null()) {
    if (!it->is_array()) fail(ErrorKind::kFormat, "\"added_tokens\" must be an array");
    for (const Json& item : *it) {
      AddedToken token = added_token_from_json(item, "added token");
      token.id = json_get_or<std::int64_t>(item, "id", -1, "added token");
      builder.add(std::move(token));
    }
  }
  const auto is_named_special = [&](const std::string& content) {
    return std::any_of(config.special_tokens.begin(), config.special_tokens.end(),
                       [&](const auto& named) { return named.second.content == content; });
  };
  for (AddedToken token : config.added_tokens) {
    token.special = token.special || is_named_special(token.content);
    builder.add(std::move(token));
  }
  for (const auto& [role, token] : config.special_tokens)
    if (builder.find(token.content) == nullptr) builder.add(token);
  return std::move(builder).finish(normalizer);
}

const Json& part(const Json& json, const char* key) {
  static const Json null;
  const auto it = json.find(key);
  return it == json.end() ? null : *it;
}

/// The parts that LlamaTokenizerFast replaces when tokenizer_config.json has add_prefix_space: it then
/// rebuilds them from the sentencepiece rules instead of reading them.
Json with_llama_prefix_rules(Json json, const TokenizerConfig& config) {
  const bool prefix = *config.add_prefix_space;
  const Json space{{"String", " "}}, mark = "\xE2\x96\x81";
  Json steps = Json::array();
  if (prefix) steps.push_back({{"type", "Prepend"}, {"prepend", mark}});
  steps.push_back({{"type", "Replace"}, {"pattern", space}, {"content", mark}});
  json["normalizer"] = config.legacy ? Json{{"type", "Sequence"}, {"normalizers", steps}} : Json();
  json["pre_tokenizer"] = config.legacy ? Json()
                                        : Json{{"type", "Metaspace"},
                                               {"replacement", mark},
                                               {"prepend_scheme", prefix ? "first" : "never"},
                                               {"split", false}};
  return json;
}

/// AutoTokenizer sets a top-level ByteLevel's add_prefix_space to the config's, which is false where it
/// says nothing.
Json with_byte_level_prefix(Json json, const TokenizerConfig& config) {
  const auto it = json.find("pre_tokenizer");
  if (it != json.end() && it->is_object() && it->value("type", Json()) == "ByteLevel")
    (*it)["add_prefix_space"] = config.add_prefix_space.value_or(false);
  return json;
}

PostProcessor llama_post_processor(const TokenizerConfig& config, const Tokenizer& tokenizer) {
  PostProcessor out;
  const auto add = [&](bool wanted, const char* role, std::vector<std::int64_t>& ids) {
    if (!wanted) return;
    const auto token = config.special(role);
    const auto id = token ? tokenizer.token_to_id(*token) : std::nullopt;
    if (!id)
      fail(ErrorKind::kFormat, "tokenizer_config.json: add_{} is set, but there is no {}", role, role);
    ids.push_back(*id);
  };
  add(config.add_bos_token, "bos_token", out.before);
  add(config.add_eos_token, "eos_token", out.after);
  return out;
}

std::shared_ptr<const Tokenizer> build(const Json& json, const TokenizerConfig& config, bool is_hf) {
  TokenizerPipeline::Parts parts{.model = bpe_from_json(part(json, "model"))};
  parts.normalizer = Normalizer::from_json(part(json, "normalizer"));
  parts.pre_tokenizer = PreTokenizer::from_json(part(json, "pre_tokenizer"));
  parts.decoder = TokenDecoder::from_json(part(json, "decoder"), config.clean_up_tokenization_spaces);
  parts.added = read_added_tokens(json, config, parts.model.vocabulary(), parts.normalizer);
  PostProcessor post;
  add_post_processor(part(json, "post_processor"), post);
  const std::string unk = parts.model.options().unk_token;
  auto tokenizer = std::make_shared<TokenizerPipeline>(std::move(parts));
  if (is_hf && config.is_llama_class()) post = llama_post_processor(config, *tokenizer);
  tokenizer->set_template(std::move(post.before), std::move(post.after));
  const auto id_of = [&](const char* role) -> std::optional<std::int64_t> {
    const auto token = config.special(role);
    return token ? tokenizer->token_to_id(*token) : std::nullopt;
  };
  auto unk_id = id_of("unk_token");
  if (!unk_id && !unk.empty()) unk_id = tokenizer->token_to_id(unk);
  tokenizer->set_special_ids({id_of("bos_token"), id_of("eos_token"), unk_id, id_of("pad_token")});
  return tokenizer;
}

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_from_json(const Json& tokenizer_json,
                                                     const Json& tokenizer_config) {
  if (!tokenizer_json.is_object()) fail(ErrorKind::kFormat, "tokenizer.json: expected a JSON object");
  const TokenizerConfig config = TokenizerConfig::from_json(tokenizer_config);
  return with_context("tokenizer.json", [&]() -> std::shared_ptr<const Tokenizer> {
    const bool is_hf = tokenizer_config.is_object() && !tokenizer_config.empty();
    if (!is_hf) return build(tokenizer_json, config, is_hf);
    if (config.is_llama_class() && config.add_prefix_space)
      return build(with_llama_prefix_rules(tokenizer_json, config), config, is_hf);
    return build(with_byte_level_prefix(tokenizer_json, config), config, is_hf);
  });
}

}  // namespace llava
