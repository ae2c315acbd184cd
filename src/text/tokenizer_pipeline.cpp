#include "text/tokenizer_pipeline.h"

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace llava {
namespace {

class PipelineStream : public TokenStream {
 public:
  PipelineStream(const TokenizerPipeline& tokenizer, const TokenDecoder& decoder, bool skip_special_tokens)
      : tokenizer_(tokenizer), stream_(decoder), skip_special_tokens_(skip_special_tokens) {}

  void push(std::int64_t id, std::string& out) override {
    if (skip_special_tokens_ && tokenizer_.is_special(id)) return;
    const std::string token = tokenizer_.id_to_token(id);
    if (!token.empty()) stream_.push(token, out);
  }
  void flush(std::string& out) override { stream_.finish(out); }

 private:
  const TokenizerPipeline& tokenizer_;
  TokenDecoder::Stream stream_;
  bool skip_special_tokens_;
};

}  // namespace

void TokenizerPipeline::set_template(std::vector<std::int64_t> before, std::vector<std::int64_t> after) {
  before_ = std::move(before);
  after_ = std::move(after);
}

std::vector<std::int64_t> TokenizerPipeline::encode(std::string_view text,
                                                    const EncodeOptions& options) const {
  std::vector<std::int64_t> ids;
  if (options.add_special_tokens) ids = before_;
  const std::string valid = unicode::is_valid(text) ? std::string(text) : unicode::replace_invalid(text);
  parts_.added.split(valid, options.parse_special, parts_.normalizer,
                     [&](std::int64_t id, std::string section, bool at_start) {
                       if (id >= 0)
                         ids.push_back(id);
                       else
                         encode_section(std::move(section), at_start, ids);
                     });
  if (options.add_special_tokens) ids.insert(ids.end(), after_.begin(), after_.end());
  return ids;
}

void TokenizerPipeline::encode_section(std::string text, bool at_start,
                                       std::vector<std::int64_t>& ids) const {
  PieceList pieces = PieceList::whole(std::move(text), at_start);
  parts_.pre_tokenizer.apply(pieces);
  for (std::size_t i = 0; i < pieces.ranges.size(); ++i) parts_.model.encode(pieces.piece(i), ids);
}

std::string TokenizerPipeline::decode(std::span<const std::int64_t> ids, bool skip_special_tokens) const {
  PipelineStream stream(*this, parts_.decoder, skip_special_tokens);
  std::string out;
  for (const std::int64_t id : ids) stream.push(id, out);
  stream.flush(out);
  return out;
}

std::unique_ptr<TokenStream> TokenizerPipeline::open_stream(bool skip_special_tokens) const {
  return std::make_unique<PipelineStream>(*this, parts_.decoder, skip_special_tokens);
}

std::int64_t TokenizerPipeline::vocab_size() const {
  return std::max(parts_.model.vocabulary().end_id(), parts_.added.end_id());
}

std::optional<std::int64_t> TokenizerPipeline::token_to_id(std::string_view token) const {
  if (const AddedToken* added = parts_.added.find(token)) return added->id;
  const std::int32_t id = parts_.model.vocabulary().find(token);
  return id < 0 ? std::nullopt : std::optional<std::int64_t>(id);
}

std::string TokenizerPipeline::id_to_token(std::int64_t id) const {
  if (const AddedToken* added = parts_.added.find(id)) return added->content;
  return std::string(parts_.model.vocabulary().token(id));
}

bool TokenizerPipeline::is_special(std::int64_t id) const { return parts_.added.is_special(id); }

}  // namespace llava
