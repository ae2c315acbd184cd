#pragma once
#include <functional>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace llava {

/// One word of the command line. `setup` adds its options to `app` and returns what the verb does once they
/// are parsed; that function's result is the exit code, and an Error leaving it is printed by main.
struct Verb {
  std::string_view name;
  std::string_view summary;
  std::function<int()> (*setup)(CLI::App& app);
};

/// All verbs, in the order of `llava --help`. A new verb is one line in verbs.cpp.
const std::vector<Verb>& verb_table();
/// What `inspect` can look at.
const std::vector<Verb>& inspect_table();

std::function<int()> setup_chat(CLI::App& app);
std::function<int()> setup_judge(CLI::App& app);
std::function<int()> setup_train(CLI::App& app);
std::function<int()> setup_convert(CLI::App& app);

std::function<int()> setup_inspect_tokens(CLI::App& app);
std::function<int()> setup_inspect_template(CLI::App& app);
std::function<int()> setup_inspect_image(CLI::App& app);
std::function<int()> setup_inspect_prompt(CLI::App& app);
std::function<int()> setup_inspect_forward(CLI::App& app);
std::function<int()> setup_inspect_weights(CLI::App& app);
std::function<int()> setup_inspect_recipe(CLI::App& app);

/// Runs `llava ARGUMENTS…` (without the program's name) and returns its exit code; errors go to stderr as
/// "llava: error: …" with a hint on the next line.
int run_command_line(const std::vector<std::string_view>& arguments);

}  // namespace llava
