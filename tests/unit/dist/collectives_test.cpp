#include "dist/collectives.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <torch/torch.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include "base/error.h"

namespace llava {
namespace {

int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

/// Runs `body` as every rank of a group, each in a thread of its own. Returns what each threw.
std::vector<std::string> as_ranks(int size, const std::function<void(Collectives&)>& body, bool check = false) {
  const int port = free_port();
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      Place place;
      place.rank = rank, place.size = place.local_size = size;
      place.master_host = "127.0.0.1", place.master_port = port;
      place.session = "test", place.launcher = "a test";
      try {
        Collectives group(connect(place, c10::kCPU, std::chrono::seconds(30)), place,
                          {std::chrono::seconds(30), check});
        try {
          body(group);
        } catch (const std::exception& e) {
          group.give_up(e.what());
          throw;
        }
      } catch (const std::exception& e) {
        errors[static_cast<std::size_t>(rank)] = e.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

#ifdef LLAVA_HAS_GLOO

TEST(Collectives, EachGivesWhatItsNameSays) {
  const auto errors = as_ranks(3, [](Collectives& group) {
    const auto r = static_cast<float>(group.rank());
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      const at::Tensor x = at::full({5}, r + 1, dtype);
      group.all_reduce(x, "x").wait();
      EXPECT_TRUE(at::equal(x, at::full({5}, 6, dtype)));
      group.all_reduce(x.fill_(r), "max", Reduction::kMax).wait();
      EXPECT_TRUE(at::equal(x, at::full({5}, 2, dtype)));
      const at::Tensor all = at::empty({6}, dtype);
      group.all_gather(all, at::full({2}, r, dtype), "all").wait();
      EXPECT_TRUE(at::equal(all, at::tensor({0, 0, 1, 1, 2, 2}).to(dtype)));
      const at::Tensor own = at::empty({2}, dtype);
      group.reduce_scatter(own, at::arange(6).to(dtype), "own").wait();
      EXPECT_TRUE(at::equal(own, at::tensor({6 * r, 6 * r + 3}).to(dtype)));
      const at::Tensor told = at::full({2}, r, dtype);
      group.broadcast(told, 1, "told").wait();
      EXPECT_TRUE(at::equal(told, at::ones({2}, dtype)));
    }
    EXPECT_EQ(group.sum({1.5, r}, "sum"), (std::vector<double>{4.5, 3}));
    EXPECT_EQ(group.exchange({r}, "exchange")[2][0], 2);
    group.barrier("end");
    if (group.is_main()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    group.wait_for_all("late");
    EXPECT_TRUE(group.same_sequence());
    EXPECT_NE(group.last_call().find("sequence"), std::string::npos);
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

TEST(Collectives, SeveralUnderWayAtOnce) {
  const auto errors = as_ranks(2, [](Collectives& group) {
    std::vector<at::Tensor> tensors;
    std::vector<Collectives::Pending> pending;
    for (int i = 0; i < 20; ++i) {
      tensors.push_back(at::full({1000 + i}, group.rank() + i, at::kFloat));
      pending.push_back(group.all_reduce(tensors.back(), "bucket"));
    }
    for (int i = 19; i >= 0; --i) {
      pending[static_cast<std::size_t>(i)].wait();
      EXPECT_TRUE(tensors[static_cast<std::size_t>(i)].eq(2 * i + 1).all().item<bool>());
    }
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

TEST(Collectives, RanksThatDoDifferentThingsAreToldApart) {
  const auto errors = as_ranks(
      2,
      [](Collectives& group) {
        const at::Tensor x = at::zeros({group.rank() == 0 ? 4 : 5});
        group.all_reduce(x, "x").wait();
      },
      true);
  EXPECT_NE((errors[0] + errors[1]).find("something else"), std::string::npos) << errors[0] << errors[1];
}

#else

TEST(Collectives, ABuildWithoutThemSaysSo) {
  const auto errors = as_ranks(2, [](Collectives&) {});
  EXPECT_NE(errors[0].find("trains in one only"), std::string::npos) << errors[0];
}

#endif

}  // namespace
}  // namespace llava
