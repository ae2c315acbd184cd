#pragma once
#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dist/transport.h"

namespace llava {

class Watchdog;

/// The collectives of a training run. Every call has a name and a number; a watchdog knows the last one, and
/// a hash over all of them tells whether the ranks still do the same (same_sequence()). All ranks must make
/// the same calls in the same order with the same sizes, whatever their data.
class Collectives {
 public:
  struct Options {
    std::chrono::seconds timeout{600};
    bool check = false;  ///< compare every call between the ranks before it starts: slow, for finding a bug
  };
  Collectives(std::unique_ptr<Transport> transport, const Place& place, Options options);
  /// Waits for the other ranks unless this one failed.
  ~Collectives();
  Collectives(const Collectives&) = delete;
  Collectives& operator=(const Collectives&) = delete;

  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  bool is_main() const { return place_.rank == 0; }
  const Place& place() const { return place_; }
  c10::Device device() const;

  /// A collective under way; wait() before the tensors are used. Error{kResource} if a partner is gone, with
  /// what it said.
  class Pending {
   public:
    Pending() = default;
    void wait();

   private:
    friend class Collectives;
    Collectives* owner_ = nullptr;
    std::uint64_t sequence_ = 0;
    std::shared_ptr<PendingTransfer> transfer_;
  };

  /// In place. `tensor` is contiguous, like those below.
  Pending all_reduce(const at::Tensor& tensor, std::string_view name, Reduction reduction = Reduction::kSum);
  /// in [n] -> out [W*n].
  Pending all_gather(const at::Tensor& out, const at::Tensor& in, std::string_view name);
  /// in [W*n] -> out [n], summed over ranks.
  Pending reduce_scatter(const at::Tensor& out, const at::Tensor& in, std::string_view name);
  Pending broadcast(const at::Tensor& tensor, int root, std::string_view name);

  /// Every rank's numbers, by rank.
  std::vector<std::vector<double>> exchange(const std::vector<double>& values, std::string_view name);
  /// Sums over ranks.
  std::vector<double> sum(const std::vector<double>& values, std::string_view name);
  /// Returns once all ranks are here.
  void barrier(std::string_view name);
  /// The same where a rank may work for longer than the timeout before it comes.
  void wait_for_all(std::string_view name);
  /// Whether all ranks have made the same calls so far; itself a call.
  bool same_sequence();

  /// Tells the others why this process stops, so that they end too, and lets the destructor not wait.
  void give_up(const std::string& reason);
  std::string last_call() const;

 private:
  Pending start(std::string_view kind, std::string_view name, const at::Tensor& tensor,
                std::unique_ptr<PendingTransfer> (*run)(Transport&, const at::Tensor&, const at::Tensor&, int),
                const at::Tensor& other, int argument);
  void compare_call(const std::string& what);
  [[noreturn]] void explain(std::uint64_t sequence, const std::string& what);

  Place place_;
  Options options_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Watchdog> watchdog_;
  std::uint64_t sequence_ = 0, hash_ = 1469598103934665603ull;
  bool failed_ = false;
};

}  // namespace llava
