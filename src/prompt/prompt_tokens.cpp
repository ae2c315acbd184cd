#include "prompt/prompt_tokens.h"

#include <algorithm>

#include "base/error.h"

namespace llava {

namespace {

/// Tokenises stretches of the segments into one stream.
class Stream {
 public:
  Stream(const std::vector<Segment>& segments, const Tokenizer& tokenizer, const MediaTokenIds& media_ids,
         const PromptTokensOptions& options)
      : segments_(segments), tokenizer_(tokenizer), media_ids_(media_ids), options_(options) {}

  PromptTokens run() {
    switch (options_.tokenisation) {
      case ImageTokenisation::kWholeString:
        add_whole(0, segments_.size());
        break;
      case ImageTokenisation::kChunks:
        add_chunks(0, segments_.size());
        break;
      case ImageTokenisation::kSegments:
        add_stretches();
        break;
    }
    add_post_processor();
    return std::move(out_);
  }

 private:
  std::int64_t media_id(const Segment& segment) const {
    return segment.kind == Segment::Kind::kVideo ? media_ids_.video : media_ids_.image;
  }

  /// Whether the tokenizer has the placeholders of [first, last) as tokens.
  bool knows_media(std::size_t first, std::size_t last) const {
    return std::all_of(segments_.begin() + static_cast<std::ptrdiff_t>(first),
                       segments_.begin() + static_cast<std::ptrdiff_t>(last), [&](const Segment& s) {
                         return !s.is_media() || tokenizer_.token_to_id(s.text).has_value();
                       });
  }

  void add_whole(std::size_t first, std::size_t last) {
    if (knows_media(first, last))
      add_text(first, last);
    else
      add_chunks(first, last);
  }

  void add_chunks(std::size_t first, std::size_t last) {
    for (std::size_t begin = first; begin < last;) {
      if (segments_[begin].is_media()) {
        out_.push(media_id(segments_[begin]), static_cast<int>(begin), true);
        ++begin;
        continue;
      }
      std::size_t end = begin;
      while (end < last && !segments_[end].is_media()) ++end;
      add_text(begin, end);
      begin = end;
    }
  }

  void add_stretches() {
    for (std::size_t begin = 0; begin < segments_.size();) {
      std::size_t end = begin;
      while (end < segments_.size() && segments_[end].trained == segments_[begin].trained) ++end;
      add_whole(begin, end);
      begin = end;
    }
  }

  /// Encodes the texts of [first, last) as one string.
  void add_text(std::size_t first, std::size_t last) {
    std::string text;
    std::vector<std::size_t> ends;  // of each segment in `text`
    std::vector<TextRange> literal;
    for (std::size_t i = first; i < last; ++i) {
      const Segment& segment = segments_[i];
      const std::size_t begin = text.size();
      const bool drop_space = i == first && segment.trained && segment.text.starts_with(' ') &&
                              options_.tokenisation == ImageTokenisation::kSegments && adds_prefix();
      text += drop_space ? segment.text.substr(1) : segment.text;
      ends.push_back(text.size());
      if (segment.user_text && !options_.user_text_special && text.size() > begin)
        literal.push_back({begin, text.size()});
    }
    add_encoding(tokenizer_.encode_spans(text, {false, true}, literal), text.size(), ends, first);
  }

  void add_encoding(const Encoding& encoding, std::size_t size, const std::vector<std::size_t>& ends,
                    std::size_t first) {
    std::size_t begin = 0, media_found = 0;
    for (std::size_t i = 0; i < encoding.ids.size(); begin = encoding.ends[i++]) {
      const std::size_t end = encoding.ends[i];
      const std::size_t byte = end > begin ? end - 1 : std::min(begin, size == 0 ? 0 : size - 1);
      std::size_t owner = owner_of(byte, ends);
      bool is_media = false;
      for (std::size_t k = owner_of(begin, ends); k <= owner;
           ++k) {  // a placeholder may take the white space beside it along
        const Segment& segment = segments_[first + k];
        if (!segment.is_media() || end == begin || tokenizer_.token_to_id(segment.text) != encoding.ids[i])
          continue;
        is_media = true;
        owner = k;
        break;
      }
      media_found += is_media;
      out_.push(is_media ? media_id(segments_[first + owner]) : encoding.ids[i], static_cast<int>(first + owner),
                is_media);
    }
    const auto wanted = std::count_if(segments_.begin() + static_cast<std::ptrdiff_t>(first),
                                      segments_.begin() + static_cast<std::ptrdiff_t>(first + ends.size()),
                                      [](const Segment& s) { return s.is_media(); });
    if (static_cast<std::size_t>(wanted) != media_found)
      fail(ErrorKind::kUnsupported, "the tokenizer keeps {} of {} media placeholders in one piece",
           media_found, wanted);
  }

  static std::size_t owner_of(std::size_t byte, const std::vector<std::size_t>& ends) {
    const auto it = std::upper_bound(ends.begin(), ends.end(), byte);
    return it == ends.end() ? ends.size() - 1 : static_cast<std::size_t>(it - ends.begin());
  }

  /// Whether the tokenizer puts "▁" before a text of its own accord.
  bool adds_prefix() const {
    const std::vector<std::int64_t> ids = tokenizer_.encode("a", {false, false});
    return !ids.empty() && tokenizer_.id_to_token(ids[0]).starts_with("\xE2\x96\x81");
  }

  void add_post_processor() {
    const std::vector<std::int64_t> added = tokenizer_.encode("", {true, true});
    const auto bos = tokenizer_.bos_id(), eos = tokenizer_.eos_id();
    const bool has_bos = !added.empty() && bos && added.front() == *bos;
    const bool is_rendered =
        options_.keep_rendered_bos && has_bos && !out_.ids.empty() && out_.ids.front() == *bos;
    if (has_bos && !is_rendered) {
      out_.ids.insert(out_.ids.begin(), *bos);
      out_.owners.insert(out_.owners.begin(), -1);
      out_.is_media.insert(out_.is_media.begin(), false);
    }
    if (options_.add_end && added.size() > (has_bos ? 1U : 0U) && eos && added.back() == *eos)
      out_.push(*eos, -1);
  }

  const std::vector<Segment>& segments_;
  const Tokenizer& tokenizer_;
  MediaTokenIds media_ids_;
  const PromptTokensOptions& options_;
  PromptTokens out_;
};

}  // namespace

MediaTokenIds media_token_ids(const ModelConfig& model) {
  const std::int64_t video = model.media.video_token_id;
  return {model.image_token_id, video >= 0 ? video : model.image_token_id};
}

PromptTokens tokenise(const std::vector<Segment>& segments, const Tokenizer& tokenizer,
                      const MediaTokenIds& media_ids, const PromptTokensOptions& options) {
  return Stream(segments, tokenizer, media_ids, options).run();
}

}  // namespace llava
