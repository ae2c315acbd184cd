#pragma once
#include <string>
#include <vector>

namespace llava {

/// A card that people train on.
struct Accelerator {
  std::string name;
  double memory_bytes = 0;  ///< that a program can have
  double bf16_flops = 0;    ///< dense products a second, as the vendor says
};

/// The card of that name. Error{kUsage} lists the names and says the nearest one.
const Accelerator& find_accelerator(const std::string& name);
std::vector<std::string> accelerator_names();

}  // namespace llava
