// A filter for tools/reference/tokenizer_fuzz_compare.py with the protocol of `llava inspect tokens`
// (design/cli.md): reads one JSON string a line, writes one JSON id list a line; with --decode the other
// way round.
//   tokenize_driver --model FOLDER|FILE [--special] [--decode] [--skip-special]
// FOLDER is a checkpoint; FILE a sentencepiece .model (alone), or a .json of a GGUF vocabulary as in
// tests/golden/tokenizers.
#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "gguf_vocabulary_json.h"
#include "text/tokenizer.h"

namespace {

std::shared_ptr<const llava::Tokenizer> load(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return llava::load_tokenizer(path);
  if (path.extension() == ".json")
    return llava::tokenizer_from_gguf(llava::test::gguf_vocabulary(llava::read_json_file(path)));
  return llava::tokenizer_from_sentencepiece(llava::read_file(path), llava::Json::object(),
                                             llava::Json::object());
}

void run(const std::filesystem::path& model, bool special, bool decode, bool skip_special) {
  const auto tokenizer = load(model);
  for (std::string line; std::getline(std::cin, line);) {
    const llava::Json input = llava::parse_json(line, "stdin");
    if (decode)
      std::cout
          << llava::Json(tokenizer->decode(input.get<std::vector<std::int64_t>>(), skip_special)).dump()
          << '\n';
    else
      std::cout << llava::Json(tokenizer->encode(input.get<std::string>(), {.add_special_tokens = special}))
                       .dump()
                << '\n';
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string model;
  bool special = false, decode = false, skip_special = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--model" && i + 1 < argc) model = argv[++i];
    if (argument == "--special") special = true;
    if (argument == "--decode") decode = true;
    if (argument == "--skip-special") skip_special = true;
  }
  try {
    run(model, special, decode, skip_special);
  } catch (const llava::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return llava::exit_code(e.kind());
  }
  return 0;
}
