// Loads a checkpoint through the installed libraries and prints its parameters' names and sizes.
#include <cstdio>

#include "checkpoint/checkpoint.h"
#include "loader/load_model.h"

int main(int, char** arguments) {
  const auto model = llava::load_model(llava::read_checkpoint(llava::find_model(arguments[1])), {});
  for (const llava::NamedParameter& p : model->parameters())
    std::printf("%s %lld\n", p.name.c_str(), static_cast<long long>(p.tensor.numel()));
}
