// The preference losses against closed forms in double precision and against TRL's numbers.
#include "train/preference.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "support/golden.h"
#include "train/rewards.h"

namespace llava {
namespace {

constexpr double kClosedForm = 1e-7;
const std::vector<double> kChosen = {-91.25, -40.5, -3.125, -250.0, -12.0},
                          kRejected = {-95.0, -38.75, -9.5, -190.0, -12.0},
                          kRefChosen = {-93.0, -40.5, -1.0, -244.0, -12.0},
                          kRefRejected = {-94.5, -41.0, -9.25, -230.0, -12.0},
                          kChosenTokens = {21, 10, 2, 60, 3}, kRejectedTokens = {18, 11, 4, 44, 3};

at::Tensor doubles(const std::vector<double>& values) { return at::tensor(values, at::kDouble); }

PairLogProbs pairs() {
  return {doubles(kChosen),      doubles(kRejected),     doubles(kRefChosen),
          doubles(kRefRejected), doubles(kChosenTokens), doubles(kRejectedTokens)};
}

double difference(std::size_t i) { return (kChosen[i] - kRefChosen[i]) - (kRejected[i] - kRefRejected[i]); }
/// log sigmoid without overflow, written differently from at::log_sigmoid.
double log_sigmoid(double x) { return x >= 0 ? -std::log1p(std::exp(-x)) : x - std::log1p(std::exp(x)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

template <class F>
void expect_closed_form(const at::Tensor& losses, F expected) {
  ASSERT_EQ(losses.numel(), 5);
  for (std::size_t i = 0; i < 5; ++i)
    EXPECT_NEAR(losses[static_cast<std::int64_t>(i)].item<double>(), expected(i), kClosedForm) << i;
}

TEST(DpoLoss, SigmoidIsItsClosedForm) {
  for (const double beta : {0.01, 0.1, 2.0})
    expect_closed_form(dpo_losses(PreferenceLoss::kSigmoid, pairs(), beta, 0),
                       [&](auto i) { return -log_sigmoid(beta * difference(i)); });
}

TEST(DpoLoss, IsLogTwoWherePolicyAndReferenceAgree) {
  PairLogProbs same = pairs();
  same.ref_chosen = same.chosen, same.ref_rejected = same.rejected;
  expect_closed_form(dpo_losses(PreferenceLoss::kSigmoid, same, 0.1, 0),
                     [](auto) { return std::log(2.0); });
}

TEST(DpoLoss, ConservativeWeighsBothDirections) {
  expect_closed_form(dpo_losses(PreferenceLoss::kCdpo, pairs(), 0.3, 0.2), [](auto i) {
    return 0.8 * -log_sigmoid(0.3 * difference(i)) + 0.2 * -log_sigmoid(-0.3 * difference(i));
  });
}

TEST(DpoLoss, RobustIsUnbiasedUnderFlippedPairs) {
  const double e = 0.15;
  expect_closed_form(dpo_losses(PreferenceLoss::kRobust, pairs(), 0.3, e), [&](auto i) {
    return (-(1 - e) * log_sigmoid(0.3 * difference(i)) + e * log_sigmoid(-0.3 * difference(i))) /
           (1 - 2 * e);
  });
  // Its mean over pairs of which a part e is the wrong way round is the sigmoid loss.
  PairLogProbs flipped = pairs();
  std::swap(flipped.chosen, flipped.rejected), std::swap(flipped.ref_chosen, flipped.ref_rejected);
  const at::Tensor mean = (1 - e) * dpo_losses(PreferenceLoss::kRobust, pairs(), 0.3, e) +
                          e * dpo_losses(PreferenceLoss::kRobust, flipped, 0.3, e);
  expect_closed_form(mean, [](auto i) { return -log_sigmoid(0.3 * difference(i)); });
}

TEST(DpoLoss, IpoIsSquaredOnMeansOfTokens) {
  expect_closed_form(dpo_losses(PreferenceLoss::kIpo, pairs(), 0.2, 0), [](auto i) {
    const double margin = (kChosen[i] - kRefChosen[i]) / kChosenTokens[i] -
                          (kRejected[i] - kRefRejected[i]) / kRejectedTokens[i];
    return (margin - 2.5) * (margin - 2.5);
  });
}

TEST(DpoLoss, HingeIsZeroBeyondTheMargin) {
  expect_closed_form(dpo_losses(PreferenceLoss::kHinge, pairs(), 0.5, 0),
                     [](auto i) { return std::max(0.0, 1 - 0.5 * difference(i)); });
}

TEST(DpoLoss, GradientsAreThoseOfTheClosedForm) {
  PairLogProbs p = pairs();
  p.chosen.requires_grad_(true), p.rejected.requires_grad_(true);
  dpo_losses(PreferenceLoss::kSigmoid, p, 0.1, 0).sum().backward();
  expect_closed_form(p.chosen.grad(), [](auto i) { return -0.1 * sigmoid(-0.1 * difference(i)); });
  expect_closed_form(p.rejected.grad(), [](auto i) { return 0.1 * sigmoid(-0.1 * difference(i)); });
}

TEST(KtoLoss, IsItsClosedFormWithBothWeights) {
  PreferenceConfig config;
  config.beta = 0.3, config.desirable_weight = 1.5, config.undesirable_weight = 0.7;
  const std::vector<bool> good = {true, false, false, true, false};
  const at::Tensor desirable = at::tensor({1, 0, 0, 1, 0}).to(at::kBool);
  const double kl = 0.8;
  expect_closed_form(kto_losses(doubles(kChosen), doubles(kRefChosen), desirable, kl, config), [&](auto i) {
    const double r = kChosen[i] - kRefChosen[i];
    return good[i] ? 1.5 * (1 - sigmoid(0.3 * (r - kl))) : 0.7 * (1 - sigmoid(0.3 * (kl - r)));
  });
}

TEST(KtoLoss, DivergenceIsTheMeanRatioButNeverNegative) {
  EXPECT_NEAR(kto_kl(doubles({-1, -2, -6}), doubles({-2, -2.5, -6.3})), 0.6, kClosedForm);
  EXPECT_EQ(kto_kl(doubles({-3, -2}), doubles({-2, -2})), 0.0);
}

TEST(GrpoLoss, AdvantagesAreStandardisedWithinTheirGroup) {
  const at::Tensor rewards = doubles({1, 0, 0.5, 2, 2, 2});
  const at::Tensor group = group_advantages(rewards, 3, RewardScale::kGroup);
  const std::vector<double> expected = {0.5 / 0.5001, -0.5 / 0.5001, 0, 0, 0, 0};
  for (std::int64_t i = 0; i < 6; ++i)
    EXPECT_NEAR(group[i].item<double>(), expected[static_cast<std::size_t>(i)], kClosedForm) << i;
  EXPECT_NEAR(group_advantages(rewards, 3, RewardScale::kNone)[0].item<double>(), 0.5, kClosedForm);
  const double mean = 7.5 / 6, all = std::sqrt((1 + 0.25 + 12 - 6 * mean * mean) / 5);
  EXPECT_NEAR(group_advantages(rewards, 3, RewardScale::kBatch)[0].item<double>(), 0.5 / (all + 1e-4),
              kClosedForm);
}

TEST(GrpoLoss, IsItsClosedFormAndClipsOnlyWhereThatIsWorse) {
  GrpoConfig config;
  config.epsilon = 0.2, config.epsilon_high = 0.3, config.beta = 0.05;
  const std::vector<double> policy = {-1, -0.5, -2, -0.1, -3}, old = {-1.4, -0.5, -1.5, -0.9, -2.9},
                            ref = {-1.2, -0.4, -2.5, -0.1, -1}, advantage = {1, 1, -0.5, -2, 0.3};
  for (const bool corrected : {false, true}) {
    config.use_bias_correction_kl = corrected;
    const at::Tensor losses =
        grpo_token_losses({doubles(policy), doubles(old), doubles(ref), doubles(advantage)}, config);
    expect_closed_form(losses, [&](auto i) {
      const double q = std::exp(policy[i] - old[i]), c = std::min(std::max(q, 0.8), 1.3);
      const double t = ref[i] - policy[i], distance = std::exp(t) - t - 1;
      return -std::min(q * advantage[i], c * advantage[i]) + 0.05 * distance * (corrected ? q : 1);
    });
  }
}

TEST(GrpoLoss, EqualsTrlOnClippedRatiosWithItsGradients) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Json golden = read_json_file(folder / "preference.json")["grpo_clipping"];
  for (const auto& [name, run] : golden.items()) {
    GrpoConfig config = from_fields<GrpoConfig>([&] {
      OrderedJson json = OrderedJson::parse(run["config"].dump());
      json["max_completion_length"] = run["max_completion_length"].get<int>();
      return json;
    }());
    const auto lengths = run["lengths"].get<std::vector<std::int64_t>>();
    std::int64_t total = 0;
    for (const std::int64_t n : lengths) total += n;
    const auto tokens = [&](const char* key) {
      std::vector<double> flat;
      for (std::size_t b = 0; b < lengths.size(); ++b)
        for (std::int64_t t = 0; t < lengths[b]; ++t)
          flat.push_back(run[key][b][static_cast<std::size_t>(t)].get<double>());
      return doubles(flat);
    };
    std::vector<double> advantages, weights;
    for (std::size_t b = 0; b < lengths.size(); ++b)
      for (std::int64_t t = 0; t < lengths[b]; ++t) {
        advantages.push_back(run["advantages"][b].get<double>());
        weights.push_back(
            grpo_token_weight(config, lengths[b], static_cast<std::int64_t>(lengths.size()), total));
      }
    GrpoTerms terms{tokens("policy").requires_grad_(true), tokens("old"), tokens("ref"),
                    doubles(advantages)};
    const at::Tensor loss = (grpo_token_losses(terms, config) * doubles(weights)).sum();
    loss.backward();
    EXPECT_GT(run["clipped"].get<double>(), 0.1) << "the case clips nothing";
    EXPECT_NEAR(loss.item<double>(), run["loss"].get<double>(), 1e-6) << name;
    EXPECT_LE((terms.policy.grad() - tokens("grad")).abs().max().item<double>(), 1e-6) << name;
  }
  EXPECT_EQ(golden.size(), 3u);
}

TEST(Rewards, ExactMatchForgivesCaseSpaceAndTheFullStop) {
  EXPECT_EQ(reward_exact_match(" A  red cat.\n", "a red cat"), 1);
  EXPECT_EQ(reward_exact_match("A red cat", "A red dog"), 0);
  EXPECT_EQ(reward_exact_match("", ""), 1);
}

TEST(Rewards, OverlapIsF1OfWords) {
  EXPECT_DOUBLE_EQ(reward_overlap("a (red) cat", "The red cat, red!"), 2.0 * 2 / (3 + 4));
  EXPECT_EQ(reward_overlap("", "a"), 0);
  EXPECT_EQ(reward_overlap("x y", "x y"), 1);
}

TEST(Rewards, FormatIsAPatternAndLengthATriangle) {
  EXPECT_EQ(reward_format("So: <answer>4</answer>", "<answer>\\d+</answer>"), 1);
  EXPECT_EQ(reward_format("4", "<answer>\\d+</answer>"), 0);
  EXPECT_EQ(reward_length("one two three", 3), 1);
  EXPECT_DOUBLE_EQ(reward_length("one", 4), 0.25);
  EXPECT_EQ(reward_length("1 2 3 4 5 6 7 8 9", 4), 0);
}

}  // namespace
}  // namespace llava
