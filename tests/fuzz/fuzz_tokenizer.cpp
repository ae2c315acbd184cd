// tokenizer.json, sentencepiece models and GGUF vocabularies from hostile bytes, then a text through them
// and back. The first byte says which; the text stands behind the last zero byte.
#include <string_view>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace {

using namespace llava;

void round_trip(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {true, false}) {
    const auto ids = tokenizer.encode(text, {.add_special_tokens = true, .parse_special = parse_special});
    Detokenizer stream(tokenizer, !parse_special);
    std::string streamed;
    for (const auto id : ids) streamed += stream.push(id);
    LLAVA_ASSERT(streamed + stream.flush() == tokenizer.decode(ids, !parse_special),
                 "streaming differs from decode");
    LLAVA_ASSERT(unicode::is_valid(tokenizer.decode(ids)), "decoded text is not UTF-8");
  }
}

std::vector<std::string> split_lines(std::string_view data) {
  std::vector<std::string> out;
  while (!data.empty()) {
    const std::size_t end = std::min(data.find('\n'), data.size());
    out.emplace_back(data.substr(0, end));
    data.remove_prefix(std::min(end + 1, data.size()));
  }
  return out;
}

GgufVocabulary vocabulary_from(std::string_view data) {
  GgufVocabulary v;
  v.model = data.size() % 2 == 0 ? "gpt2" : "llama";
  v.pre = "default";
  for (std::string& line : split_lines(data)) {
    if (line.starts_with('+')) {
      v.merges.push_back(line.substr(1));
      continue;
    }
    v.token_types.push_back(line.empty() ? 1 : line[0] % 7);
    v.scores.push_back(line.empty() ? 0.0F : static_cast<float>(line[line.size() - 1]));
    v.tokens.push_back(std::move(line));
  }
  return v;
}

std::shared_ptr<const Tokenizer> load(unsigned char kind, std::string_view data) {
  const Json config{{"tokenizer_class", "LlamaTokenizer"},
                    {"legacy", (kind & 4) != 0},
                    {"clean_up_tokenization_spaces", true}};
  switch (kind % 4) {
    case 0:
      return tokenizer_from_json(parse_json(data, "fuzz"));
    case 1:
      return tokenizer_from_sentencepiece(data, Json(), Json());
    case 2:
      return tokenizer_from_sentencepiece(data, config, {{"<image>", 4000}});
    default:
      return tokenizer_from_gguf(vocabulary_from(data));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size < 2) return 0;
  const std::string_view input(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  const std::size_t zero = input.rfind('\0');
  const std::string_view text = zero == std::string_view::npos ? "a <s>b\xFF 12" : input.substr(zero + 1);
  const std::string_view data = zero == std::string_view::npos ? input : input.substr(0, zero);
  try {
    round_trip(*load(bytes[0], data), text);
  } catch (const llava::Error& e) {
    if (e.kind() == llava::ErrorKind::kInternal)
      __builtin_trap();  // a bug of ours; the others are what bad input gets
  }
  return 0;
}
