#include "base/signals.h"

#include <unistd.h>

#include <csignal>

namespace llava {

namespace {

std::atomic<bool> g_stop{false};
std::atomic<bool> g_terminate{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

void on_stop(int signal) {
  if (signal == SIGINT && g_stop.load()) ::_exit(130);
  g_stop.store(true);
  if (signal == SIGTERM) g_terminate.store(true);
}

}  // namespace

void install_stop_handlers() {
  struct sigaction action {};
  action.sa_handler = on_stop;  // without SA_RESTART: a blocked read returns, so that the flag is seen
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);  // a file size limit is then an error of write(), which keeps what was saved
}

std::atomic<bool>& stop_flag() { return g_stop; }

bool terminate_requested() { return g_terminate.load(); }

}  // namespace llava
