#include "text/llama_slow_decoder.h"

#include <utility>

#include "text/space_mark.h"

namespace llava {

LlamaSlowDecoder::LlamaSlowDecoder(const SentencePiece& model, Options options)
    : model_(model),
      options_(options),
      chunk_(model, model.model().add_dummy_prefix),
      clean_up_decoder_(TokenDecoder::from_json(Json{{"type", "Fuse"}}, options.clean_up)),
      clean_up_(std::make_unique<TokenDecoder::Stream>(clean_up_decoder_)) {}

void LlamaSlowDecoder::push(std::string token, bool special, bool apart, std::string& out) {
  if (!apart) {
    push_to_group(std::move(token), special);
  } else {
    end_group(false);
    write(token);
    group_has_text_ = false;
  }
  drain(out);
}

void LlamaSlowDecoder::push_to_group(std::string token, bool special) {
  const std::size_t index = num_in_group_++;
  if (index == 0 && options_.prefix_space && token.starts_with(kSpaceMark))
    token.erase(0, kSpaceMark.size());
  if (special) {
    if (!after_special_ && index != 0 && options_.legacy) write(" ");
    end_chunk();
    write(token);
    after_special_ = true;
    return;
  }
  if (after_special_ && index == 1 && options_.prefix_space && !token.starts_with(kSpaceMark)) write(" ");
  after_special_ = false;
  chunk_.push(token, held_);
  if (!options_.legacy) write(std::exchange(held_, {}));
}

void LlamaSlowDecoder::end_chunk() {
  chunk_.flush(held_);
  write(std::exchange(held_, {}));
  chunk_ = SentencePieceDecoder(model_, model_.model().add_dummy_prefix);
}

/// The last group joins the parts even if it has no text; the reference leaves out only earlier empty ones.
void LlamaSlowDecoder::end_group(bool at_end) {
  end_chunk();
  if (at_end && num_in_group_ > 0 && !group_has_text_ && any_part_) ready_.push_back(' ');
  num_in_group_ = 0;
  after_special_ = group_has_text_ = false;
}

/// Writes text of the current part, with a space between it and the part before.
void LlamaSlowDecoder::write(std::string_view text) {
  if (text.empty()) return;
  if (!std::exchange(group_has_text_, true) && std::exchange(any_part_, true)) ready_.push_back(' ');
  ready_.append(text);
}

void LlamaSlowDecoder::drain(std::string& out) {
  if (!ready_.empty()) clean_up_->push(std::exchange(ready_, {}), out);
}

void LlamaSlowDecoder::finish(std::string& out) {
  end_group(true);
  drain(out);
  clean_up_->finish(out);
}

}  // namespace llava
