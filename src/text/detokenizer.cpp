#include <vector>

#include "text/tokenizer.h"

namespace llava {
namespace {

/// For tokenizers without a decoder that streams: everything comes at the end.
class BufferedStream : public TokenStream {
 public:
  BufferedStream(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}
  void push(std::int64_t id, std::string&) override { ids_.push_back(id); }
  void flush(std::string& out) override {
    out.append(tokenizer_.decode(ids_, skip_special_tokens_));
    ids_.clear();
  }

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  std::vector<std::int64_t> ids_;
};

}  // namespace

std::unique_ptr<TokenStream> Tokenizer::open_stream(bool skip_special_tokens) const {
  return std::make_unique<BufferedStream>(*this, skip_special_tokens);
}

std::string Detokenizer::push(std::int64_t id) {
  std::string out;
  stream_->push(id, out);
  return out;
}

std::string Detokenizer::flush() {
  std::string out;
  stream_->flush(out);
  stream_ = tokenizer_.open_stream(skip_special_tokens_);
  return out;
}

}  // namespace llava
