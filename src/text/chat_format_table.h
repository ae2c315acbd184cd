#pragma once
#include <string>
#include <utility>
#include <vector>

#include "text/chat_format.h"

namespace llava {

/// The separator styles of spec 3.1; headers covers MPT, ChatML, Llama 3 and Gemma.
enum class ChatStyle {
  kSingle,   ///< system sep, then "role: text" sep
  kTwo,      ///< as kSingle, but `sep` and `end` in turn
  kHeaders,  ///< prefix, then header text end newline, the system's text alike
  kLlama2,   ///< [INST] <<SYS>>…
  kPlain,    ///< text and sep, no roles
};

/// One row of the table of named formats.
struct NamedFormat {
  std::vector<std::string> names;  ///< the first is the format's name, the others aliases
  ChatStyle style = ChatStyle::kTwo;
  std::string system;           ///< default system text
  std::string user, assistant;  ///< role names; kHeaders: headers with what follows them
  std::string sep;              ///< behind system and user texts
  std::string end;              ///< behind an answer; the loss covers it
  std::vector<std::string> stop;
  std::string prefix = {};         ///< kHeaders: before everything
  std::string system_header = {};  ///< kHeaders
  std::string newline = {};        ///< kHeaders: behind every end
  bool strips = false;             ///< white space around every message is dropped
  std::vector<std::pair<std::string, std::string>> examples =
      {};  ///< question and answer before the conversation
  UpstreamMask upstream = {};
};

const std::vector<NamedFormat>& named_formats();

}  // namespace llava
