#pragma once
#include <atomic>

namespace llava {

/// Ctrl-C and SIGTERM set this flag instead of ending the program; whoever works in a loop looks at it. A
/// second Ctrl-C while it is set ends the program at once. SIGPIPE is ignored, so that a closed pipe is an
/// error of the write.
void install_stop_handlers();

/// Set by the handlers; a caller that has dealt with a Ctrl-C stores false.
std::atomic<bool>& stop_flag();

/// True once SIGTERM came: then the program should end, not only the current piece of work.
bool terminate_requested();

}  // namespace llava
