#include "config/plan_config.h"

#include <cmath>

namespace llava {

void check_expected(const ExpectedData& e, const std::string& path) {
  const auto check = [&](const char* key, double value, double low) {
    if (!(value >= low && value <= 1e15))
      fail(ErrorKind::kInput, "{}.{}: must be {} or more", path, key, low);
  };
  check("samples", e.samples, 1);
  check("tokens", e.tokens, 1);
  check("supervised_tokens", e.supervised_tokens, 0);
  check("images", e.images, 0);
  check("tiles", e.tiles, 1);
  if (e.supervised_tokens > e.tokens)
    fail(ErrorKind::kInput, "{}.supervised_tokens: {} are more than the {} tokens", path,
         e.supervised_tokens, e.tokens);
}

}  // namespace llava
