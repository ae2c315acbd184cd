#include <CLI/CLI.hpp>

#include <fstream>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "base/signals.h"
#include "cli/chat_modes.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "judge/critic.h"

namespace llava {

namespace {

struct JudgeArgs {
  OpenOptions open;
  SessionOptions session;
  std::string input, output;
  int threads = 0;
};

constexpr std::size_t kMaxInputBytes = std::size_t{1} << 30;

/// One line of the input: what is judged.
struct Case {
  Json id;
  std::vector<std::string> images;
  std::string question;
  std::vector<std::string> answers;
};

Case read_case(const std::string& text) {
  const Json line = parse_json(text, "this line");
  if (!line.is_object()) fail(ErrorKind::kFormat, "this line is not a JSON object");
  Case c;
  if (line.contains("id")) c.id = line.at("id");
  c.question = json_get<std::string>(line, "question", "this line");
  c.images = image_list(line);
  if (line.contains("answers")) {
    if (!line.at("answers").is_array()) fail(ErrorKind::kFormat, "\"answers\" must be a list of texts");
    for (const Json& answer : line.at("answers")) {
      if (!answer.is_string()) fail(ErrorKind::kFormat, "\"answers\" holds {}, not a text", answer.dump().substr(0, 40));
      c.answers.push_back(answer.get<std::string>());
    }
  } else {
    c.answers.push_back(json_get<std::string>(line, "answer", "this line"));
  }
  if (c.answers.empty() || c.answers.size() > 2)
    fail(ErrorKind::kFormat, "\"answers\" holds {} texts; one is scored, two are compared", c.answers.size());
  return c;
}

OrderedJson judge_case(ChatSession& session, const Case& c) {
  session.clear();
  for (const std::string& image : c.images) session.add_image(image);
  const bool pair = c.answers.size() == 2;
  const Answer answer = session.ask(pair ? pairwise_prompt(c.question, c.answers[0], c.answers[1])
                                         : pointwise_prompt(c.question, c.answers[0]),
                                    {}, &stop_flag());
  if (answer.reason == StopReason::kCancelled) fail(ErrorKind::kStopped, "stopped");
  OrderedJson json = {{"id", OrderedJson(c.id)}, {"verdict", nullptr}, {"score", nullptr}};
  if (pair) {
    if (const auto verdict = parse_preference(answer.text)) json["verdict"] = to_string(*verdict);
  } else if (const auto score = parse_score(answer.text)) {
    json["score"] = *score;
  }
  json["reason"] = answer.text;
  return json;
}

/// Results go to `output` line by line, so that an interrupted run keeps what it has; to stdout without one.
class Results {
 public:
  explicit Results(const std::string& path) : path_(path) {
    if (path_.empty()) return;
    file_.open(path_, std::ios::binary);
    if (!file_) fail(ErrorKind::kInput, "{}: cannot be written", path_);
  }
  void add(const OrderedJson& line) {
    if (path_.empty()) {
      write_json_line(line);
      return;
    }
    file_ << to_json_text(line) << "\n" << std::flush;
    if (!file_) fail(ErrorKind::kResource, "{}: cannot write: is the disk full?", path_);
  }

 private:
  std::string path_;
  std::ofstream file_;
};

std::vector<std::string> input_lines(const std::string& path) {
  const std::string text = path.empty() || path == "-" ? read_stdin() : read_file(path, kMaxInputBytes);
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    if (text.find_first_not_of(" \t\r", begin) < end) lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

int run_judge(JudgeArgs& args) {
  set_threads(args.threads);
  const std::vector<std::string> lines = input_lines(args.input);
  CheckpointInfo checkpoint = open_checkpoint(args.open);
  check_can_chat(checkpoint);
  Results results(args.output);
  ModelBundle bundle = load_bundle(std::move(checkpoint), args.open);
  ChatSession session(bundle, args.session);
  Progress progress("judged", static_cast<std::int64_t>(lines.size()));
  bool failed = false;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    Case c;
    try {
      c = read_case(lines[i]);
      results.add(judge_case(session, c));
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kStopped) return exit_code(ErrorKind::kStopped);
      if (error.kind() == ErrorKind::kInternal || error.kind() == ErrorKind::kResource) throw;
      results.add({{"id", OrderedJson(c.id)}, {"line", i + 1}, {"error", error.what()}});
      failed = true;
    }
    progress.update(static_cast<std::int64_t>(i + 1));
  }
  return failed ? 1 : 0;
}

}  // namespace

std::function<int()> setup_judge(CLI::App& app) {
  auto args = std::make_shared<JudgeArgs>();
  args->session.sampling.max_new_tokens = 512;
  app.footer(
      "Input lines: {\"id\", \"image\" or \"images\", \"question\", \"answer\"} are scored 0 to 100;\n"
      "             {\"id\", \"image\" or \"images\", \"question\", \"answers\": [A, B]} are compared.\n"
      "Output lines: {\"id\", \"verdict\": first | second | tie | null, \"score\": number | null, \"reason\"}.\n"
      "The prompts are LLaVA-Critic's; any model can judge.");
  app.add_option("--input", args->input, "JSON lines; without it, or -: standard input");
  app.add_option("--output", args->output, "file for the verdicts; without it: standard output");
  app.add_option("--max-new-tokens", args->session.sampling.max_new_tokens, "longest reason")->capture_default_str();
  add_checkpoint_options(app, args->open);
  add_compute_options(app, args->open, args->threads);
  return [args] { return run_judge(*args); };
}

}  // namespace llava
