#pragma once
#include <string>
#include <vector>

#include "base/json.h"
#include "cli/frame_policy.h"
#include "infer/session.h"

namespace llava {

/// What `llava chat` was called with.
struct ChatArguments {
  std::string question;
  std::vector<std::string> images;
  FilmArguments film;
  OpenOptions open;
  SessionOptions session;
  int threads = 0;
  std::string context = "drop";
  std::int64_t context_length = 0;
  int self_correct = 0;
  bool stats = false, json = false, jsonl = false;
};

/// Gives the session a film with the next question, if there is one; what could not be read of it is logged.
void add_film(ChatSession& session, const std::string& path, const VideoOptions& options);
/// One question, one answer. Returns the exit code.
int chat_once(ChatSession& session, const ChatArguments& args, const ModelBundle& bundle);
/// One question; then `rounds` times a critique of the answer by the model itself (LLaVA-Critic's prompt) and
/// a revision. All of it is shown.
int chat_self_correct(ChatSession& session, const ChatArguments& args, int rounds);
/// Questions from the terminal (or lines of a pipe) until /exit or the end of input. Ctrl-C ends an answer,
/// not the session.
int chat_interactive(ChatSession& session, const ChatArguments& args, const ModelBundle& bundle);
/// Lines {"id", "images": [...] | "image", "video"?, "question"} to lines {"id", "answer"} or {"id",
/// "error"}, in input order; the model stays loaded, and lines about the same image encode it once. 1 if
/// any line failed.
int chat_jsonl(ChatSession& session, const ChatArguments& args);

/// Files of a line's "images" or "image": a name or a list of names. Error{kFormat} otherwise.
std::vector<std::string> image_list(const Json& line);

/// The "stats" object of --json, and its one-line form for people.
OrderedJson stats_json(const GenerationStats& stats);
std::string stats_text(const GenerationStats& stats);

}  // namespace llava
