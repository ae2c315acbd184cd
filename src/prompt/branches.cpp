#include <algorithm>

#include "prompt/prompt_tokens.h"

namespace llava {

namespace {

/// The media of the first question, if all media are there and stand before its text; false otherwise.
bool leading_media(const std::vector<Message>& questions, std::vector<Part>& media) {
  for (std::size_t i = 0; i < questions.size(); ++i) {
    bool text_seen = false;
    for (const Part& part : questions[i].parts) {
      if (part.is_media() && (i > 0 || text_seen)) return false;
      if (part.is_media()) media.push_back(part);
      text_seen = text_seen || !part.is_media();
    }
  }
  return true;
}

}  // namespace

std::vector<Conversation> independent_pairs(const Conversation& conversation) {
  std::vector<Message> head, questions, answers;
  for (const Message& message : conversation.messages) {
    if (message.role == "system" && questions.empty())
      head.push_back(message);
    else if (message.role == "user" && questions.size() == answers.size())
      questions.push_back(conversation.inline_media ? with_separate_media(message) : message);
    else if (message.role == "assistant" && questions.size() == answers.size() + 1 &&
             message.num_media() == 0)
      answers.push_back(message);
    else
      return {};
  }
  std::vector<Part> media;
  if (answers.size() < 2 || questions.size() != answers.size() || !leading_media(questions, media))
    return {};
  std::vector<Conversation> pairs;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    Conversation pair{head, false};
    Message question{"user", media};
    question.parts.push_back({Part::Kind::kText, questions[i].text()});
    pair.messages.push_back(std::move(question));
    pair.messages.push_back(answers[i]);
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

std::size_t shared_prefix(const std::vector<Branch>& branches, std::size_t begin, std::size_t end) {
  const PromptTokens& first = branches[begin].tokens;
  std::size_t len = first.ids.size();
  for (std::size_t i = begin; i < end; ++i) {
    const Branch& branch = branches[i];
    const PromptTokens& tokens = branch.tokens;
    const auto limit = first.ids.begin() + static_cast<std::ptrdiff_t>(std::min(len, tokens.ids.size()));
    len = static_cast<std::size_t>(std::mismatch(first.ids.begin(), limit, tokens.ids.begin()).first -
                                   first.ids.begin());
    const auto trained = std::find_if(branch.labels.begin(), branch.labels.end(),
                                      [](std::int64_t l) { return l != kIgnoreIndex; });
    const auto first_trained = static_cast<std::size_t>(trained - branch.labels.begin());
    len = std::min(len, first_trained == 0 ? 0 : first_trained - 1);
  }
  return len;
}

}  // namespace llava
