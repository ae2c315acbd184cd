#include <CLI/CLI.hpp>

#include <iostream>
#include <new>
#include <string>

#include "base/error.h"
#include "base/fields.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "cli/version.h"

namespace llava {

namespace {

using Arguments = std::vector<std::string_view>;

void print_error(const std::string& message, const std::string& hint) {
  std::cerr << "llava: error: " << message << "\n";
  if (!hint.empty()) std::cerr << "hint: " << hint << "\n";
}

void print_help(const std::vector<Verb>& table, const std::string& prefix) {
  std::string text = fmt::format("Usage: {} VERB [OPTIONS]\n\n", prefix);
  for (const Verb& verb : table) text += fmt::format("  {:<10} {}\n", verb.name, verb.summary);
  text += fmt::format("\n{} VERB --help shows the options of a verb.\n", prefix);
  if (prefix == "llava") text += "llava --version prints the version and the commit it was built from.\n";
  write_out(text);
}

const Verb& find_verb(const std::vector<Verb>& table, std::string_view name, const std::string& prefix) {
  std::vector<std::string> names;
  for (const Verb& verb : table) {
    if (verb.name == name) return verb;
    names.emplace_back(verb.name);
  }
  throw Error(ErrorKind::kUsage,
              fmt::format("{}: no verb \"{}\"{}", prefix, name, did_you_mean(name, names)),
              fmt::format("{} --help lists the verbs", prefix));
}

/// The first argument that looks like an option and that the verb does not have, with the nearest one it
/// has.
std::string unknown_option_hint(const CLI::App& app, const Arguments& arguments,
                                const std::string& command) {
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  for (std::string_view argument : arguments) {
    const std::string_view name = argument.substr(0, argument.find('='));
    if (!name.starts_with("--") || std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string nearest = nearest_name(name, known);
    if (!nearest.empty())
      return fmt::format("did you mean {}? {} --help lists the options", nearest, command);
  }
  return command + " --help lists the options";
}

int run_verb(const Verb& verb, const std::string& prefix, const Arguments& arguments) {
  const std::string command = fmt::format("{} {}", prefix, verb.name);
  CLI::App app(std::string(verb.summary), command);
  app.get_formatter()->column_width(34);
  const std::function<int()> run = verb.setup(app);
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    write_out(app.help());
    return 0;
  } catch (const CLI::ParseError& error) {
    throw Error(ErrorKind::kUsage, fmt::format("{}: {}", command, error.what()),
                unknown_option_hint(app, arguments, command));
  }
  return run();
}

int dispatch(const std::vector<Verb>& table, const std::string& prefix, const Arguments& arguments) {
  const bool help =
      !arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help");
  if (help) {
    print_help(table, prefix);
    return 0;
  }
  if (arguments.empty())
    throw Error(ErrorKind::kUsage, fmt::format("{}: a verb is missing", prefix),
                fmt::format("{} --help lists the verbs", prefix));
  const Arguments rest(arguments.begin() + 1, arguments.end());
  if (prefix == "llava" && arguments[0] == "inspect")
    return dispatch(inspect_table(), "llava inspect", rest);
  return run_verb(find_verb(table, arguments[0], prefix), prefix, rest);
}

/// verb_table() and inspect, which has a table of its own.
std::vector<Verb> top_level() {
  std::vector<Verb> table = verb_table();
  table.push_back(
      {"inspect", "looks inside: tokens, template, image, prompt, forward, weights, recipe", nullptr});
  return table;
}

}  // namespace

int run_command_line(const Arguments& arguments) {
  try {
    if (!arguments.empty() && (arguments[0] == "--version" || arguments[0] == "version")) {
      write_out(version_text() + "\n");
      return 0;
    }
    return dispatch(top_level(), "llava", arguments);
  } catch (const Error& error) {
    print_error(error.what(), error.hint());
    return exit_code(error.kind());
  } catch (const std::bad_alloc&) {
    print_error("out of memory", "a smaller model, --dtype bfloat16, or a shorter prompt needs less");
  } catch (const std::exception& error) {
    // LibTorch's messages continue with a C++ stack, which helps nobody here.
    std::string text = error.what();
    print_error(text.substr(0, text.find("\nException raised from")), "");
  }
  return exit_code(ErrorKind::kInternal);
}

}  // namespace llava
