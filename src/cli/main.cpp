#include "base/signals.h"
#include "cli/verbs.h"

int main(int argc, char** argv) {
  llava::install_stop_handlers();
  return llava::run_command_line({argv + 1, argv + argc});
}
