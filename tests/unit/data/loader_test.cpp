#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <map>
#include <set>

#include "base/rng.h"
#include "support/golden.h"

namespace llava {
namespace {

/// `count` records (and `second` of another file), every third without an image, of 1 + i*7%13 words.
Dataset make_dataset(const std::string& name, int count, double weight, int second = 0) {
  const auto folder = test::scratch_dir(name);
  std::vector<DataSourceConfig> sources;
  for (const int n : {count, second}) {
    if (n == 0) continue;
    const auto path = folder / fmt::format("{}.jsonl", sources.size());
    std::ofstream file(path);
    for (int i = 0; i < n; ++i) {
      Json record = {{"conversations", {{{"from", "human"}, {"value", ""}}}}};
      std::string text;
      for (int w = 0; w <= i * 7 % 13; ++w) text += "w ";
      record["conversations"][0]["value"] = text;
      if (i % 3 != 0) record["image"] = "x.png";
      file << record.dump() << "\n";
    }
    sources.push_back({path.string(), "", sources.empty() ? weight : 1.0, 0});
  }
  return Dataset(sources);
}

SampleOrder::Indices sorted(SampleOrder::Indices items) {
  std::sort(items.begin(), items.end());
  return items;
}

TEST(SampleOrder, TakesEverySampleOnceAnEpochInEveryMode) {
  const Dataset data = make_dataset("order", 101, 1.0);
  for (const SamplerKind kind :
       {SamplerKind::kRandom, SamplerKind::kLength, SamplerKind::kModality, SamplerKind::kSequential,
        SamplerKind::kLlavaLength, SamplerKind::kLlavaModality}) {
    const SampleOrder order(data, kind, 8, 5);
    EXPECT_EQ(order.steps_per_epoch(), 13);
    EXPECT_EQ(order.step_samples(12).size(), 5u);
    const auto epoch = order.epoch(3);
    SampleOrder::Indices all(101);
    for (std::uint32_t i = 0; i < all.size(); ++i) all[i] = i;
    EXPECT_EQ(sorted(epoch), all);
    EXPECT_EQ(order.epoch(3), epoch);
    if (kind == SamplerKind::kSequential) {
      EXPECT_EQ(epoch, all);
    } else {
      EXPECT_NE(order.epoch(4), epoch);
      EXPECT_NE(SampleOrder(data, kind, 8, 6).epoch(3), epoch);
    }
  }
}

TEST(SampleOrder, CountsSteps) {
  const Dataset data = make_dataset("steps", 20, 1.0);
  const SampleOrder order(data, SamplerKind::kRandom, 8, 0);
  EXPECT_EQ(order.total_steps(0, 2), 6);
  EXPECT_EQ(order.total_steps(0, 0.5), 2);
  EXPECT_EQ(order.total_steps(7, 2), 7);
}

TEST(SampleOrder, WeighsSourcesAndRedrawsTheFraction) {
  const Dataset data = make_dataset("weights", 10, 2.5, 4);
  const SampleOrder order(data, SamplerKind::kRandom, 4, 1);
  EXPECT_EQ(order.samples_per_epoch(), 29);
  std::set<SampleOrder::Indices> draws;
  for (int e = 0; e < 5; ++e) {
    std::map<std::size_t, int> seen;
    for (const std::size_t i : order.epoch(e)) ++seen[i];
    for (std::size_t i = 0; i < 14; ++i) EXPECT_TRUE(i >= 10 ? seen[i] == 1 : seen[i] == 2 || seen[i] == 3);
    draws.insert(sorted(order.epoch(e)));
  }
  EXPECT_GT(draws.size(), 1u);
}

TEST(SampleOrder, KeepsRandomWeightsExactly) {
  Rng rng(3);
  for (int trial = 0; trial < 40; ++trial) {
    const int first = 1 + static_cast<int>(rng.below(40)), second = static_cast<int>(rng.below(20));
    const double weight = 0.05 + 3 * rng.uniform();
    const Dataset data = make_dataset("mixture", first, weight, second);
    const auto kind = static_cast<SamplerKind>(rng.below(6));
    const SampleOrder order(data, {kind, 1 + static_cast<std::int64_t>(rng.below(5)), 4, rng.next()});
    const std::int64_t wanted =
        std::llround((weight - std::floor(weight)) * first) + std::llround(std::floor(weight)) * first;
    if (wanted + second == 0) continue;
    std::map<std::size_t, int> seen;
    for (std::int64_t step = 0; step < order.steps_per_epoch(); ++step)
      for (const std::size_t i : order.step_samples(step)) ++seen[i];
    std::int64_t of_first = 0;
    for (const auto& [index, times] : seen) {
      if (index < static_cast<std::size_t>(first)) {
        of_first += times;
        EXPECT_TRUE(times == std::floor(weight) || times == std::floor(weight) + 1) << weight;
      } else {
        EXPECT_EQ(times, 1);
      }
    }
    EXPECT_EQ(of_first, wanted);
    EXPECT_EQ(order.samples_per_epoch(), wanted + second);
  }
}

TEST(SampleOrder, GroupsByLengthAndModality) {
  const Dataset data = make_dataset("groups", 512, 1.0);
  const auto spread = [&](SamplerKind kind, bool& mixed) {
    const SampleOrder order(data, kind, 8, 2);
    std::int64_t padding = 0;
    mixed = false;
    for (std::int64_t s = 0; s + 1 < order.steps_per_epoch(); ++s) {
      std::int32_t longest = 0;
      int with_media = 0;
      const auto step = order.step_samples(s);
      for (const std::size_t i : step) longest = std::max(longest, data.info(i).length);
      for (const std::size_t i : step)
        padding += longest - data.info(i).length, with_media += data.info(i).has_media;
      mixed |= with_media != 0 && with_media != static_cast<int>(step.size());
    }
    return padding;
  };
  bool mixed = false;
  const std::int64_t random = spread(SamplerKind::kRandom, mixed);
  EXPECT_TRUE(mixed);
  EXPECT_LT(spread(SamplerKind::kLength, mixed) * 5, random);
  EXPECT_LT(spread(SamplerKind::kModality, mixed) * 5, random);
  EXPECT_FALSE(mixed);
}

PreparedSample slow_prepare(std::size_t index) {
  std::this_thread::sleep_for(std::chrono::microseconds(index * 37 % 400));
  PreparedSample sample;
  sample.prompt.ids = {static_cast<std::int64_t>(index)};
  return sample;
}

std::vector<std::size_t> run(const Dataset& data, std::int64_t threads, std::int64_t first,
                             Loader::Prepare prepare) {
  const SampleOrder order(data, SamplerKind::kRandom, 5, 9);
  Loader loader(order, std::move(prepare), {threads, first, 12, 2, 9, data.size()});
  std::vector<std::size_t> out;
  for (std::int64_t s = first; s < 12; ++s) {
    const LoadedStep step = loader.next();
    EXPECT_EQ(step.step, s);
    for (const PreparedSample& sample : step.samples) {
      EXPECT_EQ(sample.prompt.ids[0], static_cast<std::int64_t>(sample.index));
      out.push_back(sample.index);
    }
  }
  return out;
}

TEST(Loader, KeepsTheOrderWhateverTheThreadsDo) {
  const Dataset data = make_dataset("loader", 23, 1.0);
  const auto one = run(data, 1, 0, slow_prepare);
  EXPECT_EQ(one.size(), 5u * 4 + 3 + 5u * 4 + 3 + 5 * 2);
  EXPECT_EQ(run(data, 4, 0, slow_prepare), one);
  const auto late = run(data, 3, 7, slow_prepare);
  EXPECT_EQ(late,
            std::vector<std::size_t>(one.end() - static_cast<std::ptrdiff_t>(late.size()), one.end()));
}

TEST(Loader, ReplacesBadSamplesTheSameWayEveryTime) {
  const Dataset data = make_dataset("replace", 23, 1.0);
  const auto prepare = [](std::size_t index) {
    if (index % 4 == 0) fail(ErrorKind::kInput, "bad {}", index);
    return slow_prepare(index);
  };
  const auto first = run(data, 1, 0, prepare);
  EXPECT_EQ(run(data, 4, 0, prepare), first);
  for (const std::size_t i : first) EXPECT_NE(i % 4, 0u);
  const SampleOrder order(data, SamplerKind::kSequential, 5, 9);
  Loader loader(order, prepare, {2, 0, 1, 2, 9, data.size()});
  const LoadedStep step = loader.next();
  ASSERT_GE(step.bad.size(), 2u);
  EXPECT_EQ(step.bad[0].index, 0u);
  EXPECT_EQ(step.bad[0].reason, "bad 0");
}

TEST(Loader, GivesTwoRanksWhatOneProcessSeesBadSamplesIncluded) {
  const Dataset data = make_dataset("ranks", 23, 1.0);
  const auto prepare = [](std::size_t index) {
    if (index % 4 == 0) fail(ErrorKind::kInput, "bad {}", index);
    return slow_prepare(index);
  };
  const OrderOptions options{SamplerKind::kLength, 3, 2, 4};
  const SampleOrder order(data, options), of_first(data, options), of_second(data, options);
  Loader one(order, prepare, {2, 0, 4, 2, 9, data.size()}),
      first(of_first, prepare, {2, 0, 4, 2, 9, data.size(), 0, 2}),
      second(of_second, prepare, {2, 0, 4, 2, 9, data.size(), 1, 2});
  for (int s = 0; s < 4; ++s) {
    std::multiset<std::size_t> all, parts;
    for (const PreparedSample& sample : one.next().samples) all.insert(sample.index);
    for (Loader* rank : {&first, &second})
      for (const PreparedSample& sample : rank->next().samples) parts.insert(sample.index);
    EXPECT_EQ(all, parts);
  }
}

TEST(Loader, GivesUpWhenNothingIsUsable) {
  const Dataset data = make_dataset("hopeless", 5, 1.0);
  const SampleOrder order(data, SamplerKind::kRandom, 5, 9);
  Loader loader(order, [](std::size_t) -> PreparedSample { fail(ErrorKind::kInput, "no"); },
                {2, 0, 3, 2, 9, data.size()});
  EXPECT_THROW(loader.next(), Error);
}

TEST(Loader, StopsWhileWorkIsQueued) {
  const Dataset data = make_dataset("stop", 23, 1.0);
  const SampleOrder order(data, SamplerKind::kRandom, 5, 9);
  std::atomic<int> prepared = 0;
  {
    Loader loader(order,
                  [&](std::size_t i) {
                    ++prepared;
                    return slow_prepare(i);
                  },
                  {3, 0, 1000000, 2, 9, data.size()});
    loader.next();
  }
  EXPECT_LE(prepared, 5 * 4 + 3);
}

}  // namespace
}  // namespace llava
