#include "judge/critic.h"

#include <gtest/gtest.h>

#include <random>

namespace llava {
namespace {

TEST(Critic, PromptsAreThoseOfTheTrainingData) {
  EXPECT_EQ(pairwise_prompt("Q?", "one", "two"),
            "Given an image and a corresponding question, please serve as an unbiased and fair judge to evaluate the quality of "
            "the answers provided by a Large Multimodal Model (LMM). Determine which answer is better and explain your "
            "reasoning with specific details. Your task is provided as follows:\nQuestion: [Q?]\nThe first response: [one]\n"
            "The second response: [two]\nASSISTANT:\n");
  const std::string point = pointwise_prompt("Q {0}?", "an {answer}");
  EXPECT_NE(point.find("the quality of answer answers provided"), std::string::npos);
  EXPECT_TRUE(point.ends_with("Question: [Q {0}?]\nThe LMM response: [an {answer}]\nASSISTANT:\n "));
}

struct Said {
  const char* text;
  const char* verdict;  ///< "" for none
};

class Verdict : public testing::TestWithParam<Said> {};

TEST_P(Verdict, IsFoundInAJudgesWords) {
  const auto found = parse_preference(GetParam().text);
  EXPECT_STREQ(found ? to_string(*found) : "", GetParam().verdict) << GetParam().text;
}

INSTANTIATE_TEST_SUITE_P(
    Words, Verdict,
    testing::Values(
        Said{"The first response is better. The second response misses the dog.", "first"},
        Said{"The second response is better because the first response is better only in length.", "second"},
        Said{"**The second answer is slightly better.**", "second"},
        Said{"Two responses are equally good.", "tie"}, Said{"Both answers are equally bad, sadly", "tie"},
        Said{"Response B is superior to Response A.", "second"}, Said{"I prefer the first response.", "first"},
        Said{"The better response is the second answer", "second"}, Said{"[[A]]", "first"}, Said{"[[C]]", "tie"},
        Said{"Verdict: second", "second"}, Said{"The first response is worse.", "second"},
        Said{"Answer 1 outperforms answer 2", "first"}, Said{"It is a tie", "tie"},
        Said{"Neither response is better than the other", "tie"}, Said{"A dog is running in a field.", ""},
        Said{"", ""}));

struct Scored {
  const char* text;
  double score;  ///< -1 for none
};

class Score : public testing::TestWithParam<Scored> {};

TEST_P(Score, IsFoundInAJudgesWords) {
  EXPECT_DOUBLE_EQ(parse_score(GetParam().text).value_or(-1), GetParam().score) << GetParam().text;
}

INSTANTIATE_TEST_SUITE_P(
    Words, Score,
    testing::Values(Scored{"Score: 85\nThe answer names the dog.", 85}, Scored{"85", 85}, Scored{"8.5/10", 85},
                    Scored{"I would give this a score of 70 out of 100.", 70}, Scored{"**Score:** 90/100", 90},
                    Scored{"Rating: 4/5", 80}, Scored{"The response deserves 75/100 for detail.", 75},
                    Scored{"score is (60)", 60}, Scored{"Score: 850", -1}, Scored{"no number here", -1},
                    Scored{"", -1}, Scored{"Score: -5", -1}));

TEST(Critic, AnyTextIsReadWithoutHarm) {
  std::mt19937 random(7);
  const std::string words[] = {"response ", "first ", "better", "score", ": ", "[[", "1e999", "/", "\n", "the ", "\xff", "9"};
  for (int i = 0; i < 300; ++i) {
    std::string text;
    for (int k = 0; k < 200; ++k) text += words[random() % std::size(words)];
    const auto score = parse_score(text);
    EXPECT_TRUE(!score || (*score >= 0 && *score <= 100)) << text;
    parse_preference(text);
  }
}

TEST(Critic, AVeryLongReplyIsReadInBoundedTime) {
  for (const std::string word : {"a", "first response ", "the first answer is ", "score ", "score: ", " "}) {
    std::string text;
    while (text.size() < (std::size_t{1} << 20)) text += word;
    EXPECT_FALSE(parse_score(text));
    parse_preference(text);
    EXPECT_EQ(parse_preference("The second response is better.\n" + text), Preference::kSecond) << word;
  }
}

}  // namespace
}  // namespace llava
