#include <CLI/CLI.hpp>

#include <memory>
#include <string>

#include "base/error.h"
#include "base/yaml.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "recipe/recipe.h"
#include "text/conversation.h"

namespace llava {

namespace {

const Tokenizer& tokenizer_of(const CheckpointInfo& checkpoint) {
  if (!checkpoint.tokenizer)
    fail(ErrorKind::kInput, "{}: no tokenizer.json or tokenizer.model", checkpoint.folder.string());
  return *checkpoint.tokenizer;
}

std::string encode_line(const Tokenizer& tokenizer, const Json& line, const std::string& what,
                        bool special) {
  if (!line.is_string())
    fail(ErrorKind::kInput, "{}: expected a JSON string, not {}", what, line.dump().substr(0, 80));
  Tokenizer::EncodeOptions options;
  options.add_special_tokens = special;
  return Json(tokenizer.encode(line.get<std::string>(), options)).dump();
}

std::string decode_line(const Tokenizer& tokenizer, const Json& line, const std::string& what,
                        bool skip_special) {
  std::vector<std::int64_t> ids;
  if (!line.is_array())
    fail(ErrorKind::kInput, "{}: expected a JSON list of ids, not {}", what, line.dump().substr(0, 80));
  for (const Json& id : line) {
    if (!id.is_number_integer())
      fail(ErrorKind::kInput, "{}: {} is not a token id", what, id.dump().substr(0, 80));
    ids.push_back(id.get<std::int64_t>());
  }
  return to_json_text(OrderedJson(tokenizer.decode(ids, skip_special)));
}

std::string recipe_line(const Recipe& recipe) {
  const ParameterCount count = count_parameters(recipe.model);
  const std::int64_t decoder = recipe.kind == RecipeKind::kVision ? 0 : count.decoder;
  const double millions = static_cast<double>(count.tower + count.connector + decoder) / 1e6;
  const std::int64_t tokens = recipe.kind == RecipeKind::kLlava ? recipe.model.num_image_tokens() : 0;
  return fmt::format("{:<20} {:<8} {:>10.1f} {:>8}  {}\n", recipe.name, to_string(recipe.kind), millions,
                     tokens > 0 ? std::to_string(tokens) : "-", recipe.source);
}

}  // namespace

std::function<int()> setup_inspect_tokens(CLI::App& app) {
  struct Args {
    OpenOptions open;
    bool special = false, decode = false, skip_special = false;
  };
  auto args = std::make_shared<Args>();
  add_checkpoint_options(app, args->open);
  app.add_flag("--special", args->special, "add BOS/EOS as the tokenizer's post-processor does");
  app.add_flag("--decode", args->decode, "stdin has JSON id lists; write JSON strings");
  app.add_flag("--skip-special", args->skip_special, "with --decode: leave special tokens out");
  return [args] {
    const CheckpointInfo checkpoint = open_checkpoint(args->open);
    const Tokenizer& tokenizer = tokenizer_of(checkpoint);
    LineReader reader;
    std::string text;
    for (std::int64_t number = 1; reader.next(text) == LineReader::Status::kLine; ++number) {
      const std::string what = fmt::format("line {}", number);
      const Json line = parse_json(text, what);
      write_out((args->decode ? decode_line(tokenizer, line, what, args->skip_special)
                              : encode_line(tokenizer, line, what, args->special)) +
                "\n");
    }
    return 0;
  };
}

std::function<int()> setup_inspect_template(CLI::App& app) {
  struct Args {
    OpenOptions open;
    bool generate = false;
  };
  auto args = std::make_shared<Args>();
  add_checkpoint_options(app, args->open);
  app.add_flag("--generate", args->generate, "end where the assistant's answer begins");
  return [args] {
    const CheckpointInfo checkpoint = open_checkpoint(args->open);
    if (!checkpoint.chat_format)
      throw Error(ErrorKind::kInput, fmt::format("{}: no chat template", checkpoint.folder.string()),
                  "name a conversation format with --chat-format");
    const Conversation conversation =
        conversation_from_messages(parse_json(read_stdin(), "standard input"));
    write_out(checkpoint.chat_format->render_text(conversation, args->generate));
    return 0;
  };
}

std::function<int()> setup_inspect_recipe(CLI::App& app) {
  struct Args {
    std::string name;
    bool json = false;
  };
  auto args = std::make_shared<Args>();
  app.add_option("NAME", args->name, "a recipe; without it the table is printed");
  app.add_flag("--json", args->json, "JSON instead of YAML or the table");
  return [args] {
    if (!args->name.empty()) {
      const OrderedJson recipe = describe(find_recipe(args->name));
      write_out(args->json ? to_json_text(recipe) + "\n" : to_yaml(recipe));
      return 0;
    }
    std::string text =
        fmt::format("{:<20} {:<8} {:>10} {:>8}  {}\n", "recipe", "kind", "parameters", "image", "source");
    text += fmt::format("{:<20} {:<8} {:>10} {:>8}\n", "", "", "(millions)", "tokens");
    OrderedJson all = OrderedJson::array();
    for (const Recipe& recipe : recipe_table()) {
      text += recipe_line(recipe);
      all.push_back(describe(recipe));
    }
    write_out(args->json ? to_json_text(all) + "\n" : text);
    return 0;
  };
}

}  // namespace llava
