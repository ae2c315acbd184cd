#include <iostream>

#include "base/error.h"
#include "base/signals.h"
#include "cli/chat_modes.h"
#include "cli/output.h"
#include "judge/critic.h"

namespace llava {

namespace {

struct Round {
  std::string answer, critique;
  std::optional<double> score;
};

/// A question of its own about the same media: nothing of the conversation before it is seen.
std::string ask_alone(ChatSession& session, const ChatArguments& args, const std::string& question) {
  session.clear();
  for (const std::string& image : args.images) session.add_image(image);
  add_film(session, args.film.path, args.film.options);
  const Answer answer = session.ask(question, {}, &stop_flag());
  if (answer.reason == StopReason::kCancelled) fail(ErrorKind::kStopped, "stopped");
  const std::size_t begin = std::min(answer.text.find_first_not_of(' '), answer.text.size());
  return answer.text.substr(begin);
}

std::string revision_prompt(const std::string& question, const Round& last) {
  return fmt::format(
      "{}\n\nAn earlier answer was: {}\nA judge said about it: {}\nWrite a better answer to the question. Keep what is right, "
      "correct what is wrong.",
      question, last.answer, last.critique);
}

void show(const char* title, const std::string& text) { write_out(fmt::format("{}: {}\n", title, text)); }

}  // namespace

int chat_self_correct(ChatSession& session, const ChatArguments& args, int rounds) {
  std::vector<Round> history;
  OrderedJson list = OrderedJson::array();
  for (int i = 0; i <= rounds; ++i) {
    Round round;
    round.answer = ask_alone(session, args, i == 0 ? args.question : revision_prompt(args.question, history.back()));
    if (!args.json) show(i == 0 ? "answer" : "revision", round.answer);
    if (i < rounds) {
      round.critique = ask_alone(session, args, pointwise_prompt(args.question, round.answer));
      round.score = parse_score(round.critique);
      if (!args.json) show("critique", round.critique);
    }
    OrderedJson json = {{"answer", round.answer}};
    if (i < rounds) {
      json["critique"] = round.critique;
      json["score"] = round.score ? OrderedJson(*round.score) : OrderedJson(nullptr);
    }
    list.push_back(std::move(json));
    history.push_back(std::move(round));
  }
  if (args.json) write_json_line({{"answer", history.back().answer}, {"rounds", list}});
  return 0;
}

}  // namespace llava
