#include "train/accelerators.h"

#include "base/fields.h"

namespace llava {

namespace {

constexpr double kGibibyte = 1024.0 * 1024.0 * 1024.0, kTera = 1e12;

const std::vector<Accelerator>& accelerators() {
  static const std::vector<Accelerator> all = {
      {"rtx3090", 24 * kGibibyte, 71 * kTera},   {"rtx4090", 24 * kGibibyte, 165 * kTera},
      {"a10", 23 * kGibibyte, 125 * kTera},      {"a6000", 48 * kGibibyte, 155 * kTera},
      {"l40s", 45 * kGibibyte, 362 * kTera},     {"v100-32", 32 * kGibibyte, 112 * kTera},
      {"a100-40", 40 * kGibibyte, 312 * kTera},  {"a100-80", 80 * kGibibyte, 312 * kTera},
      {"h100", 80 * kGibibyte, 989 * kTera},     {"h200", 140 * kGibibyte, 989 * kTera},
      {"mi300x", 192 * kGibibyte, 1307 * kTera}, {"b200", 180 * kGibibyte, 2250 * kTera},
  };
  return all;
}

}  // namespace

std::vector<std::string> accelerator_names() {
  std::vector<std::string> names;
  for (const Accelerator& card : accelerators()) names.push_back(card.name);
  return names;
}

const Accelerator& find_accelerator(const std::string& name) {
  for (const Accelerator& card : accelerators())
    if (card.name == name) return card;
  const std::vector<std::string> names = accelerator_names();
  throw Error(ErrorKind::kUsage,
              fmt::format("--gpu \"{}\" is not known{}", name, did_you_mean(name, names)),
              fmt::format("one of {}", fmt::join(names, ", ")));
}

}  // namespace llava
