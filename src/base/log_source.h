#pragma once
#include <string>

namespace llava {

/// Put before every log line, "rank 1": which of several processes speaks. Call it before other threads log.
void set_log_source(std::string source);

}  // namespace llava
