#include "config/sampling_params.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace llava {
namespace {

TEST(SamplingParams, DefaultsAreGreedyAndValid) { EXPECT_NO_THROW(SamplingParams{}.validate()); }

TEST(SamplingParams, NamesTheValueThatIsOutOfRange) {
  const auto message = [](SamplingParams p) {
    try {
      p.validate();
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(message({.temperature = -1}).find("temperature"), std::string::npos);
  EXPECT_NE(message({.top_p = 0}).find("top_p"), std::string::npos);
  EXPECT_NE(message({.top_k = -2}).find("top_k"), std::string::npos);
  EXPECT_NE(message({.min_p = 2}).find("min_p"), std::string::npos);
  EXPECT_NE(message({.repetition_penalty = 0}).find("repetition_penalty"), std::string::npos);
  EXPECT_NE(message({.max_new_tokens = 0}).find("max_new_tokens"), std::string::npos);
}

}  // namespace
}  // namespace llava
