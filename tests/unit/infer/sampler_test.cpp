#include "infer/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"

namespace llava {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<bool> kept(const std::vector<float>& logits) {
  std::vector<bool> flags;
  for (const float logit : logits) flags.push_back(logit != -kInf);
  return flags;
}

TEST(Sampler, GreedyTakesTheFirstLargest) {
  Sampler sampler({});
  std::vector<float> logits = {1, 5, 5, -kInf};
  EXPECT_EQ(sampler.sample(logits, {}), 1);
}

TEST(Sampler, RepetitionPenaltyDividesPositiveAndMultipliesNegative) {
  std::vector<float> logits = {2, -2, 3, 1};
  apply_repetition_penalty(logits, std::vector<std::int64_t>{0, 1, 0, -200, 99}, 2.0);
  EXPECT_EQ(logits, (std::vector<float>{1, -4, 3, 1}));
}

TEST(Sampler, RepetitionPenaltyCountsForGreedyToo) {
  SamplingParams params;
  params.repetition_penalty = 2.0;
  std::vector<float> logits = {4, 3};
  EXPECT_EQ(Sampler(params).sample(logits, std::vector<std::int64_t>{0}), 1);
}

TEST(Sampler, TopKKeepsEqualsOfTheKth) {
  std::vector<float> logits = {1, 3, 2, 2, 0};
  apply_top_k(logits, 2);
  EXPECT_EQ(kept(logits), (std::vector<bool>{false, true, true, true, false}));
}

TEST(Sampler, TopKAboveTheVocabularyKeepsAll) {
  std::vector<float> logits = {1, 2};
  apply_top_k(logits, 5);
  EXPECT_EQ(kept(logits), (std::vector<bool>{true, true}));
}

// Probabilities 0.5, 0.25, 0.125, 0.125: what transformers' TopPLogitsWarper keeps at each p.
TEST(Sampler, TopPKeepsTheSmallestSetAboveP) {
  const std::vector<float> all = {std::log(4.0F), std::log(2.0F), 0.0F, 0.0F};
  const std::map<double, std::vector<bool>> expected = {{0.4, {true, false, false, false}},
                                                        {0.6, {true, true, false, false}},
                                                        {0.8, {true, true, false, true}},
                                                        {0.9, {true, true, true, true}},
                                                        {0.01, {true, false, false, false}}};
  for (const auto& [p, flags] : expected) {
    std::vector<float> logits = all;
    apply_top_p(logits, p);
    EXPECT_EQ(kept(logits), flags) << p;
  }
}

TEST(Sampler, MinPDropsBelowAShareOfTheLikeliest) {
  std::vector<float> logits = {std::log(4.0F), std::log(2.0F), 0.0F};
  apply_min_p(logits, 0.4);
  EXPECT_EQ(kept(logits), (std::vector<bool>{true, true, false}));
}

TEST(Sampler, SameSeedSameDraws) {
  SamplingParams params;
  params.temperature = 1.0;
  params.seed = 7;
  const auto draws = [&](std::uint64_t seed) {
    params.seed = seed;
    Sampler sampler(params);
    std::vector<std::int64_t> ids;
    for (int i = 0; i < 64; ++i) {
      std::vector<float> logits(50, 0.0F);
      ids.push_back(sampler.sample(logits, {}));
    }
    return ids;
  };
  EXPECT_EQ(draws(7), draws(7));
  EXPECT_NE(draws(7), draws(8));
}

TEST(Sampler, DrawsFollowTheDistribution) {
  SamplingParams params;
  params.temperature = 2.0;  // halves the logits: probabilities 2/3 and 1/3
  Sampler sampler(params);
  int zeros = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<float> logits = {std::log(4.0F), 0.0F};
    zeros += sampler.sample(logits, {}) == 0;
  }
  EXPECT_NEAR(zeros / 20000.0, 2.0 / 3, 0.02);
}

TEST(Sampler, NeverDrawsAnExcludedId) {
  SamplingParams params;
  params.temperature = 1.0;
  params.top_k = 1;
  Sampler sampler(params);
  for (int i = 0; i < 100; ++i) {
    std::vector<float> logits = {0.0F, 0.1F, -kInf};
    EXPECT_EQ(sampler.sample(logits, {}), 1);
  }
}

TEST(Sampler, LogitsThatAreNotFiniteAreAnError) {
  Sampler sampler({});
  std::vector<float> none = {-kInf, -kInf}, wild = {0.0F, kInf}, nan = {std::nanf(""), std::nanf("")};
  EXPECT_THROW(sampler.sample(none, {}), Error);
  EXPECT_THROW(sampler.sample(wild, {}), Error);
  EXPECT_THROW(sampler.sample(nan, {}), Error);
}

TEST(Sampler, RefusesParametersOutOfRange) {
  SamplingParams params;
  params.top_p = 0;
  EXPECT_THROW(Sampler{params}, Error);
}

}  // namespace
}  // namespace llava
