#include <CLI/CLI.hpp>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "base/signals.h"
#include "cli/chat_modes.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "http/chat_endpoint.h"
#include "judge/critic.h"
#include "judge/judge.h"

namespace llava {

namespace {

struct JudgeArgs {
  OpenOptions open;
  SessionOptions session;
  EndpointOptions endpoint;
  std::string api_key_env;
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

/// Fills `c` in the order of its members, so that a line with a fault keeps its id.
void read_case(const std::string& text, Case& c) {
  const Json line = parse_json(text, "this line");
  if (!line.is_object()) fail(ErrorKind::kFormat, "this line is not a JSON object");
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
}

/// A model loaded here.
class SessionJudge : public Judge {
 public:
  /// Reads the checkpoint's texts only.
  explicit SessionJudge(const JudgeArgs& args) : args_(args) {
    set_threads(args.threads);
    checkpoint_ = open_checkpoint(args.open);
    check_can_chat(checkpoint_);
  }
  void prepare() override {
    bundle_.emplace(load_bundle(std::move(checkpoint_), args_.open));
    session_.emplace(*bundle_, args_.session);
  }
  std::string ask(const std::vector<std::string>& images, const std::string& prompt) override {
    session_->clear();
    for (const std::string& image : images) session_->add_image(image);
    Answer answer = session_->ask(prompt, {}, &stop_flag());
    if (answer.reason == StopReason::kCancelled) fail(ErrorKind::kStopped, "stopped");
    return std::move(answer.text);
  }

 private:
  const JudgeArgs& args_;
  CheckpointInfo checkpoint_;
  std::optional<ModelBundle> bundle_;
  std::optional<ChatSession> session_;
};

/// A model behind an OpenAI-compatible endpoint.
class EndpointJudge : public Judge {
 public:
  explicit EndpointJudge(EndpointOptions options) : endpoint_(std::move(options)) {}
  std::string ask(const std::vector<std::string>& images, const std::string& prompt) override {
    return endpoint_.ask(images, prompt, &stop_flag());
  }

 private:
  ChatEndpoint endpoint_;
};

std::unique_ptr<Judge> make_judge(const JudgeArgs& args) {
  if (args.endpoint.url.empty()) return std::make_unique<SessionJudge>(args);
  EndpointOptions options = args.endpoint;
  options.max_tokens = args.session.sampling.max_new_tokens;
  if (!args.api_key_env.empty()) {
    const char* key = std::getenv(args.api_key_env.c_str());
    if (key == nullptr || *key == '\0')
      fail(ErrorKind::kUsage, "--api-key-env {}: no such environment variable is set", args.api_key_env);
    options.api_key = key;
  }
  return std::make_unique<EndpointJudge>(std::move(options));
}

OrderedJson judge_case(Judge& judge, const Case& c) {
  const bool pair = c.answers.size() == 2;
  const std::string reason = judge.ask(c.images, pair ? pairwise_prompt(c.question, c.answers[0], c.answers[1])
                                                      : pointwise_prompt(c.question, c.answers[0]));
  OrderedJson json = {{"id", OrderedJson(c.id)}, {"verdict", nullptr}, {"score", nullptr}};
  if (pair) {
    if (const auto verdict = parse_preference(reason)) json["verdict"] = to_string(*verdict);
  } else if (const auto score = parse_score(reason)) {
    json["score"] = *score;
  }
  json["reason"] = reason;
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

int run_judge(const JudgeArgs& args) {
  const std::vector<std::string> lines = input_lines(args.input);
  const std::unique_ptr<Judge> judge = make_judge(args);
  Results results(args.output);
  judge->prepare();
  Progress progress("judged", static_cast<std::int64_t>(lines.size()));
  bool failed = false;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    Case c;
    try {
      read_case(lines[i], c);
      results.add(judge_case(*judge, c));
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

/// An endpoint has its own model, so `local`, what describes a model here, is refused beside it instead of unused.
void add_endpoint_options(CLI::App& app, JudgeArgs& args, std::span<CLI::Option* const> local) {
  CLI::Option* endpoint = app.add_option("--endpoint", args.endpoint.url,
                                        "OpenAI-compatible endpoint instead of a model here: its URL up to /v1");
  for (CLI::Option* option : local) endpoint->excludes(option);
  app.add_option("--endpoint-model", args.endpoint.model, "the endpoint's name of the model")
      ->capture_default_str()
      ->needs(endpoint);
  app.add_option("--api-key-env", args.api_key_env, "environment variable with the endpoint's key; none is sent without")
      ->needs(endpoint);
  app.add_option("--endpoint-timeout", args.endpoint.limits.timeout_seconds, "seconds for one try")
      ->capture_default_str()
      ->needs(endpoint);
  app.add_option("--endpoint-retries", args.endpoint.retries, "more tries without a connection, or after status 429 or 5xx")
      ->capture_default_str()
      ->needs(endpoint);
}

}  // namespace

std::function<int()> setup_judge(CLI::App& app) {
  auto args = std::make_shared<JudgeArgs>();
  args->session.sampling.max_new_tokens = 512;
  app.footer(
      "Input lines: {\"id\", \"image\" or \"images\", \"question\", \"answer\"} are scored 0 to 100;\n"
      "             {\"id\", \"image\" or \"images\", \"question\", \"answers\": [A, B]} are compared.\n"
      "Output lines: {\"id\", \"verdict\": first | second | tie | null, \"score\": number | null, \"reason\"}.\n"
      "The prompts are LLaVA-Critic's; any model can judge, one behind an endpoint too:\n"
      "  llava judge --endpoint https://api.example.com/v1 --endpoint-model NAME --api-key-env OPENAI_API_KEY < lines.jsonl\n"
      "A line that cannot be judged becomes {\"id\", \"line\", \"error\"}, and the exit code is 1.");
  app.add_option("--input", args->input, "JSON lines; without it, or -: standard input");
  app.add_option("--output", args->output, "file for the verdicts; without it: standard output");
  app.add_option("--max-new-tokens", args->session.sampling.max_new_tokens, "longest reason")->capture_default_str();
  const std::size_t num_common = app.get_options().size();
  add_checkpoint_options(app, args->open);
  add_compute_options(app, args->open, args->threads);
  const std::vector<CLI::Option*> options = app.get_options();
  add_endpoint_options(app, *args, std::span(options).subspan(num_common));
  return [args] { return run_judge(*args); };
}

}  // namespace llava
