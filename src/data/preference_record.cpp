#include "data/preference_record.h"

#include "base/error.h"
#include "data/dataset.h"

namespace llava {

namespace {

constexpr const char* kMark = "<image>";

bool has(const Json& record, const char* key) { return record.contains(key) && !record[key].is_null(); }

/// The text of a key, or "".
std::string text_at(const Json& object, const char* key) {
  const bool there = object.is_object() && object.contains(key) && object[key].is_string();
  return there ? object[key].get<std::string>() : "";
}

/// The text of a message's content: a text, or parts of which images become marks.
std::string content_text(const Json& content, const char* what) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) fail(ErrorKind::kInput, "{}: expected a text", what);
  std::string text;
  for (const Json& part : content) {
    const std::string type = text_at(part, "type");
    if (type == "image" || type == "image_url")
      text += std::string(kMark) + "\n";
    else if (type == "text" && part.contains("text") && part["text"].is_string())
      text += part["text"].get<std::string>();
    else
      fail(ErrorKind::kInput, "{}: a part is neither a text nor an image", what);
  }
  return text;
}

Json turn(const char* from, std::string value) { return {{"from", from}, {"value", std::move(value)}}; }

/// A turn of either spelling as LLaVA's.
Json as_turn(const Json& message, const char* what) {
  if (!message.is_object()) fail(ErrorKind::kInput, "{}: a message is not an object", what);
  const std::string role = text_at(message, message.contains("from") ? "from" : "role");
  const Json content = message.value(message.contains("value") ? "value" : "content", Json());
  const bool asks = role == "human" || role == "user";
  if (!asks && role != "gpt" && role != "assistant" && role != "llava" && role != "system")
    fail(ErrorKind::kInput, "{}: \"{}\" is not a role", what, role);
  return turn(asks ? "human" : role == "system" ? "system" : "gpt", content_text(content, what));
}

Json as_turns(const Json& messages, const char* what) {
  Json turns = Json::array();
  for (const Json& message : messages) turns.push_back(as_turn(message, what));
  return turns;
}

bool asks_last(const Json& turns) { return !turns.empty() && turns.back()["from"] == "human"; }

/// RLHF-V keeps question and answers as a JSON text; LLaVA-RLHF says by number which output is better.
Json with_plain_keys(const Json& given) {
  Json record = given;
  if (!has(record, "chosen") && has(record, "text") && record["text"].is_string()) {
    const Json inner = Json::parse(record["text"].get_ref<const std::string&>(), nullptr, false);
    if (inner.is_object())
      for (const char* key : {"question", "chosen", "rejected"})
        if (inner.contains(key)) record[key] = inner[key];
  }
  if (!has(record, "chosen") && has(record, "output_1") && has(record, "output_2")) {
    const Json preferred = record.value("preference", Json());
    if (preferred != 1 && preferred != 2)
      fail(ErrorKind::kInput, "\"preference\" must be 1 or 2, which of output_1 and output_2 is better");
    record["chosen"] = record[preferred == 1 ? "output_1" : "output_2"];
    record["rejected"] = record[preferred == 1 ? "output_2" : "output_1"];
  }
  return record;
}

/// An answer's text: a text, one turn, or messages that end with it.
std::string answer_text(const Json& record, const char* key) {
  if (!has(record, key)) fail(ErrorKind::kInput, "\"{}\" is missing", key);
  const Json& value = record[key];
  std::string text;
  if (value.is_string()) {
    text = value.get<std::string>();
  } else {
    const Json turns = as_turns(value.is_array() ? value : Json::array({value}), key);
    if (turns.empty() || turns.back()["from"] != "gpt")
      fail(ErrorKind::kInput, "\"{}\" does not end with an answer", key);
    text = turns.back()["value"].get<std::string>();
  }
  if (text.find_first_not_of(" \t\r\n") == std::string::npos)
    fail(ErrorKind::kInput, "\"{}\" is empty", key);
  return text;
}

Json prompt_turns(const Json& record) {
  if (has(record, "conversations")) {
    if (!record["conversations"].is_array()) fail(ErrorKind::kInput, "\"conversations\" is not a list");
    return as_turns(record["conversations"], "conversations");
  }
  for (const char* key : {"prompt", "question"}) {
    if (!has(record, key)) continue;
    if (record[key].is_array()) return as_turns(record[key], key);
    return Json::array({turn("human", content_text(record[key], key))});
  }
  if (has(record, "chosen") && record["chosen"].is_array()) {  // whole conversations that differ at the end
    Json turns = as_turns(record["chosen"], "chosen");
    if (!turns.empty()) turns.erase(turns.size() - 1);
    return turns;
  }
  fail(ErrorKind::kInput, "no prompt: \"conversations\", \"prompt\" or \"question\" is missing");
}

std::size_t num_images(const Json& record) {
  std::size_t count = 0;
  for (const char* key : {"image", "images"})
    if (has(record, key) && record[key] != "") count += record[key].is_array() ? record[key].size() : 1;
  return count;
}

/// Marks before the first question where nobody wrote any.
void add_image_marks(Json& turns, std::size_t count) {
  for (const Json& t : turns)
    if (t["value"].get_ref<const std::string&>().find(kMark) != std::string::npos) return;
  std::string marks;
  for (std::size_t i = 0; i < count; ++i) marks += std::string(kMark) + "\n";
  for (Json& t : turns)
    if (t["from"] == "human") {
      t["value"] = marks + t["value"].get<std::string>();
      return;
    }
}

Sample with_answer(const Json& record, const Json& turns, const std::string* answer,
                   const std::filesystem::path& root) {
  Json full = record;
  full["conversations"] = turns;
  if (answer != nullptr) full["conversations"].push_back(turn("gpt", *answer));
  return sample_from_record(full, root, TurnMode::kConversation);
}

bool read_label(const Json& record) {
  if (!has(record, "label")) fail(ErrorKind::kInput, "\"label\" is missing");
  const Json& label = record["label"];
  if (label.is_boolean()) return label.get<bool>();
  if (label.is_number_integer() && (label == 0 || label == 1)) return label == 1;
  fail(ErrorKind::kInput, "\"label\" must be true or false, not {}", label.dump().substr(0, 40));
}

Sample read_prompt(const Json& record, Json turns, const std::filesystem::path& root) {
  std::string answer;
  if (!turns.empty() && turns.back()["from"] == "gpt") {
    answer = turns.back()["value"].get<std::string>();
    turns.erase(turns.size() - 1);
  }
  for (const char* key : {"solution", "answer"})
    if (has(record, key)) answer = answer_text(record, key);
  if (!asks_last(turns)) fail(ErrorKind::kInput, "the prompt does not end with a question");
  Sample sample = with_answer(record, turns, nullptr, root);
  sample.answer = std::move(answer);
  return sample;
}

}  // namespace

Sample preference_from_record(const Json& given, const std::filesystem::path& image_root, RecordKind kind) {
  if (!given.is_object()) fail(ErrorKind::kInput, "a record is not an object");
  const Json record = with_plain_keys(given);
  Json turns = prompt_turns(record);
  add_image_marks(turns, num_images(record));
  if (kind == RecordKind::kPrompt) return read_prompt(record, std::move(turns), image_root);
  if (!asks_last(turns)) fail(ErrorKind::kInput, "the prompt does not end with a question");
  if (kind == RecordKind::kLabelled) {
    const std::string completion = answer_text(record, "completion");
    Sample sample = with_answer(record, turns, &completion, image_root);
    sample.desirable = read_label(record);
    return sample;
  }
  const std::string chosen = answer_text(record, "chosen"), rejected = answer_text(record, "rejected");
  if (chosen == rejected) fail(ErrorKind::kInput, "\"chosen\" and \"rejected\" are the same");
  Sample sample = with_answer(record, turns, &chosen, image_root);
  sample.rejected = with_answer(record, turns, &rejected, image_root).conversation;
  return sample;
}

}  // namespace llava
