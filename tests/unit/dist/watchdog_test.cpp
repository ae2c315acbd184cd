#include "dist/watchdog.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <atomic>

namespace llava {
namespace {

using std::chrono::milliseconds;

/// A table in memory; transfers are not made here.
class TableOnly final : public Transport {
 public:
  c10::Device device() const override { return c10::kCPU; }
  std::unique_ptr<PendingTransfer> all_reduce(at::Tensor, Reduction) override { return {}; }
  std::unique_ptr<PendingTransfer> all_gather(at::Tensor, at::Tensor) override { return {}; }
  std::unique_ptr<PendingTransfer> reduce_scatter(at::Tensor, at::Tensor) override { return {}; }
  std::unique_ptr<PendingTransfer> broadcast(at::Tensor, int) override { return {}; }
  void post(const std::string& key, const std::string& value) override {
    const std::lock_guard lock(mutex_);
    if (gone) throw std::runtime_error("connection lost");
    values_[key] = value;
  }
  std::optional<std::string> look(const std::string& key) override {
    const std::lock_guard lock(mutex_);
    if (gone) throw std::runtime_error("connection lost");
    if (!values_.contains(key)) return std::nullopt;
    return values_[key];
  }
  std::atomic<bool> gone = false;

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> values_;
};

struct Stuck final : PendingTransfer {
  explicit Stuck(bool ends) : ends_(ends) {}
  void wait() override {}
  bool done() override { return ends_; }
  bool ends_;
};

/// A watchdog whose process does not end but notes why it would.
class WatchdogTest : public testing::Test {
 protected:
  Watchdog::Options options(int missed_beats = 1000) {
    Watchdog::Options o;
    o.beat = milliseconds(5);
    o.grace = milliseconds(20);
    o.missed_beats = missed_beats;
    o.die = [this](const std::string& line) {
      const std::lock_guard lock(mutex_);
      if (line_.empty()) line_ = line;
    };
    return o;
  }
  std::string line_within(milliseconds patience) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < end) {
      {
        const std::lock_guard lock(mutex_);
        if (!line_.empty()) return line_;
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
    return {};
  }
  Place place(int rank) {
    Place p;
    p.rank = rank, p.size = 2;
    return p;
  }
  TableOnly table_;
  std::mutex mutex_;
  std::string line_;
};

TEST_F(WatchdogTest, ACollectiveThatDoesNotEndIsNamed) {
  Watchdog dog(table_, place(0), options());
  dog.started(7, "all_reduce bucket 3", std::make_shared<Stuck>(false), std::chrono::seconds(0));
  const std::string line = line_within(milliseconds(20000));
  EXPECT_NE(line.find("collective 7 (all_reduce bucket 3) has not ended"), std::string::npos) << line;
  EXPECT_NE(line.find("rank 0 of 2"), std::string::npos);
}

TEST_F(WatchdogTest, CollectivesThatEndAreNoReason) {
  Watchdog dog(table_, place(0), options());
  dog.started(1, "done", std::make_shared<Stuck>(true), std::chrono::seconds(0));
  dog.started(2, "waited for", std::make_shared<Stuck>(false), std::chrono::seconds(100));
  dog.finished(2);
  EXPECT_EQ(line_within(milliseconds(200)), "");
  EXPECT_EQ(dog.last(), "2 (waited for)");
}

TEST_F(WatchdogTest, ASilentPartnerIsNamed) {
  Watchdog dog(table_, place(0), options(3));
  const std::string line = line_within(milliseconds(20000));
  EXPECT_NE(line.find("rank 1 has shown no sign of life"), std::string::npos) << line;
  EXPECT_NE(line.find("its last collective: none"), std::string::npos) << line;
}

TEST_F(WatchdogTest, AReasonAnotherRankGaveIsPassedOn) {
  Watchdog dog(table_, place(1), options());
  Watchdog::post_reason(table_, place(0), "the disk is full");
  Watchdog::post_reason(table_, place(0), "a later reason");
  const std::string line = line_within(milliseconds(20000));
  EXPECT_NE(line.find("rank 0 stopped: the disk is full"), std::string::npos) << line;
}

TEST_F(WatchdogTest, TheEndOfTheProcessThatKeepsTheTableIsSeen) {
  Watchdog dog(table_, place(1), options());
  table_.gone = true;
  EXPECT_NE(line_within(milliseconds(20000)).find("rank 0 is gone"), std::string::npos);
}

TEST_F(WatchdogTest, PartnersThatLiveAreLeftAlone) {
  auto quiet = options(100);
  Watchdog first(table_, place(0), quiet);
  Watchdog second(table_, place(1), quiet);
  EXPECT_EQ(line_within(milliseconds(300)), "");
}

}  // namespace
}  // namespace llava
