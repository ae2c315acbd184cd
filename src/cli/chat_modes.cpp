#include "cli/chat_modes.h"

#include <cmath>
#include <iostream>

#include "base/error.h"
#include "base/log.h"
#include "base/signals.h"
#include "cli/output.h"

namespace llava {

namespace {

/// Tokens a second, 0 where no time passed.
double rate(std::int64_t tokens, double milliseconds) {
  return milliseconds > 0 ? 1000.0 * static_cast<double>(tokens) / milliseconds : 0.0;
}

double tenths(double value) { return std::round(value * 10) / 10; }

/// The first token belongs to the prefill.
std::int64_t decoded(const GenerationStats& stats) {
  return std::max<std::int64_t>(stats.new_tokens - 1, 0);
}

OrderedJson answer_json(const Answer& answer, const ChatArguments& args, const ModelBundle& bundle) {
  OrderedJson json = {{"answer", answer.text},
                      {"reason", to_string(answer.reason)},
                      {"ids", answer.ids},
                      {"model", args.open.model},
                      {"recipe", bundle.checkpoint.recipe}};
  json["stats"] = stats_json(answer.stats);
  return json;
}

/// Asks and prints. The answer streams to stdout, or comes as one JSON line.
Answer ask_and_print(ChatSession& session, const ChatArguments& args, const ModelBundle& bundle,
                     const std::string& question) {
  bool at_start = true;
  const auto print = [&](std::string_view text) {
    if (args.json) return;
    // Sentencepiece models begin with a space that belongs to the prompt's end.
    if (at_start) text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (text.empty()) return;
    at_start = false;
    write_out(text);
  };
  const Answer answer = session.ask(question, print, &stop_flag());
  if (args.json) {
    write_json_line(answer_json(answer, args, bundle));
  } else {
    write_out("\n");
  }
  if (args.stats) std::cerr << stats_text(answer.stats) << "\n";
  if (answer.reason == StopReason::kContextFull)
    std::cerr << fmt::format("[chat] the context of {} tokens is full: the answer ends here\n",
                             session.context_length());
  return answer;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

constexpr const char* kHelp =
    "/image FILE  look at an image with the next question\n"
    "/video FILE  the same with a film or a folder of frames\n"
    "/clear       forget the conversation and its images\n"
    "/stats       show or hide times and token counts\n"
    "/help        this text\n"
    "/exit        end (so does Ctrl-D); Ctrl-C stops an answer\n";

/// The interactive session's state between lines.
class Repl {
 public:
  Repl(ChatSession& session, const ChatArguments& args, const ModelBundle& bundle)
      : session_(session),
        args_(args),
        bundle_(bundle),
        prompt_(stdin_is_terminal() && stdout_is_terminal()) {}

  int run() {
    if (prompt_) std::cerr << "Ask, or /help. /image FILE shows the model a picture.\n";
    std::string line;
    for (;;) {
      if (prompt_) write_out("> ");
      const LineReader::Status status = reader_.next(line);
      if (status == LineReader::Status::kEnd) break;
      if (status == LineReader::Status::kInterrupted) {
        if (terminate_requested() || !prompt_) return exit_code(ErrorKind::kStopped);
        stop_flag().store(false);
        write_out("\n");
        continue;
      }
      if (!handle(trimmed(line))) break;
      if (terminate_requested()) return exit_code(ErrorKind::kStopped);
      stop_flag().store(false);
    }
    if (prompt_) write_out("\n");
    return failed_ && !prompt_ ? 1 : 0;
  }

 private:
  /// False ends the session. An Error in a line is printed; the session goes on.
  bool handle(std::string_view line) {
    try {
      if (line.empty()) return true;
      if (line[0] != '/') {
        ask_and_print(session_, args_, bundle_, std::string(line));
        return true;
      }
      return command(line.substr(0, line.find(' ')),
                     trimmed(line.substr(std::min(line.find(' '), line.size()))));
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInternal || error.kind() == ErrorKind::kResource) throw;
      std::cerr << "llava: error: " << error.what() << "\n";
      if (!error.hint().empty()) std::cerr << "hint: " << error.hint() << "\n";
      failed_ = true;
      return true;
    }
  }

  bool command(std::string_view name, std::string_view argument) {
    if (name == "/exit" || name == "/quit") return false;
    if (name == "/help") {
      write_out(kHelp);
    } else if (name == "/clear") {
      session_.clear();
    } else if (name == "/stats") {
      args_.stats = !args_.stats;
    } else if (name == "/image") {
      if (argument.empty()) fail(ErrorKind::kUsage, "/image needs a file");
      session_.add_image(argument);
    } else if (name == "/video") {
      if (argument.empty()) fail(ErrorKind::kUsage, "/video needs a film or a folder of frames");
      if (const std::string problem = session_.add_video(argument, args_.film.options); !problem.empty())
        std::cerr << problem << "\n";
    } else {
      fail(ErrorKind::kUsage, "no command {}; /help lists them", name);
    }
    return true;
  }

  ChatSession& session_;
  ChatArguments args_;
  const ModelBundle& bundle_;
  LineReader reader_;
  bool prompt_, failed_ = false;
};

OrderedJson answer_line(ChatSession& session, const ChatArguments& args, const std::string& text,
                        Json& id) {
  const Json line = parse_json(text, "this line");
  if (!line.is_object()) fail(ErrorKind::kFormat, "this line is not a JSON object");
  if (line.contains("id")) id = line.at("id");
  const auto question = json_get<std::string>(line, "question", "this line");
  session.clear();
  for (const std::string& file : image_list(line)) session.add_image(file);
  add_film(session, json_get_or<std::string>(line, "video", "", "this line"), args.film.options);
  const Answer answer = session.ask(question, {}, &stop_flag());
  if (answer.reason == StopReason::kCancelled) fail(ErrorKind::kStopped, "stopped");
  OrderedJson json = {{"id", OrderedJson(id)}, {"answer", std::string(trimmed(answer.text))}};
  if (args.stats) json["stats"] = stats_json(answer.stats);
  return json;
}

}  // namespace

std::vector<std::string> image_list(const Json& line) {
  const char* key = line.contains("images") ? "images" : "image";
  if (!line.contains(key) || line.at(key).is_null()) return {};
  if (line.at(key).is_string()) return {line.at(key).get<std::string>()};
  std::vector<std::string> files;
  if (!line.at(key).is_array())
    fail(ErrorKind::kFormat, "\"{}\" must be a file name or a list of them", key);
  for (const Json& file : line.at(key)) {
    if (!file.is_string()) fail(ErrorKind::kFormat, "\"{}\" holds {}, not a file name", key, file.dump());
    files.push_back(file.get<std::string>());
  }
  return files;
}

OrderedJson stats_json(const GenerationStats& stats) {
  return {{"prompt_tokens", stats.prompt_tokens},
          {"image_tokens", stats.image_tokens},
          {"reused_tokens", stats.reused_tokens},
          {"new_tokens", stats.new_tokens},
          {"image_ms", tenths(stats.image_ms)},
          {"prefill_ms", tenths(stats.prefill_ms)},
          {"decode_ms", tenths(stats.decode_ms)},
          {"first_token_ms", tenths(stats.first_token_ms)},
          {"prefill_tokens_per_second",
           tenths(rate(stats.prompt_tokens - stats.reused_tokens, stats.prefill_ms))},
          {"decode_tokens_per_second", tenths(rate(decoded(stats), stats.decode_ms))}};
}

std::string stats_text(const GenerationStats& stats) {
  return fmt::format(
      "[stats] prompt {} tokens ({} of images, {} reused), image {:.0f} ms, prefill {:.0f} ms ({:.0f} "
      "tokens/s), "
      "first token {:.0f} ms, {} new tokens ({:.1f} tokens/s)",
      stats.prompt_tokens, stats.image_tokens, stats.reused_tokens, stats.image_ms, stats.prefill_ms,
      rate(stats.prompt_tokens - stats.reused_tokens, stats.prefill_ms), stats.first_token_ms,
      stats.new_tokens, rate(decoded(stats), stats.decode_ms));
}

void add_film(ChatSession& session, const std::string& path, const VideoOptions& options) {
  if (path.empty()) return;
  if (const std::string problem = session.add_video(path, options); !problem.empty()) log_warning("chat", "{}", problem);
}

int chat_once(ChatSession& session, const ChatArguments& args, const ModelBundle& bundle) {
  const Answer answer = ask_and_print(session, args, bundle, args.question);
  return answer.reason == StopReason::kCancelled ? exit_code(ErrorKind::kStopped) : 0;
}

int chat_interactive(ChatSession& session, const ChatArguments& args, const ModelBundle& bundle) {
  return Repl(session, args, bundle).run();
}

int chat_jsonl(ChatSession& session, const ChatArguments& args) {
  LineReader reader;
  std::string text;
  bool failed = false;
  for (;;) {
    const LineReader::Status status = reader.next(text);
    if (status == LineReader::Status::kEnd) return failed ? 1 : 0;
    if (status == LineReader::Status::kInterrupted) return exit_code(ErrorKind::kStopped);
    if (trimmed(text).empty()) continue;
    Json id;
    try {
      write_json_line(answer_line(session, args, text, id));
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kStopped) return exit_code(ErrorKind::kStopped);
      if (error.kind() == ErrorKind::kInternal || error.kind() == ErrorKind::kResource) throw;
      write_json_line({{"id", OrderedJson(id)}, {"error", error.what()}});
      failed = true;
    }
  }
}

}  // namespace llava
