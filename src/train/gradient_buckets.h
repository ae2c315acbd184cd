#pragma once
#include <ATen/core/Tensor.h>

#include <deque>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "train/optimizer.h"

namespace llava {

/// Sums gradients over ranks in buckets of flat float32 memory. A bucket leaves as soon as all of its
/// gradients are there, while the backward pass goes on; buckets leave in one fixed order, the last tensors
/// first, and all of them leave in every round, so ranks whose samples touch other tensors do not wait for
/// each other. Layout of a bucket: [W, room of its tensors], rank r's slices in row r (train/slices.h).
class GradientBuckets {
 public:
  struct Options {
    std::int64_t bucket_bytes = 25 << 20;
    bool overlap = true;
    bool scatter = false;  ///< each rank receives its slices only
    bool every_round = false;  ///< reduce after each micro-batch, so that no sum of whole gradients is kept
  };
  /// `trained`: whole tensors, on all ranks the same. `optimizer` has, under the same names, the tensors or
  /// their slices (none where a slice is empty); both outlive this.
  GradientBuckets(Collectives& group, const std::vector<NamedParameter>& trained, Optimizer& optimizer,
                  const Options& options);
  ~GradientBuckets();
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  /// Before a backward pass. `last`: of this rank in this step. Gradients are multiplied with `factor`.
  void begin_round(bool last, double factor);
  /// After it: takes what the hooks have not, and in a round that reduces waits for all buckets; then the
  /// optimizer's gradients are the sums. A round may have had no backward pass.
  void end_round();
  /// For each tensor whether this rank had a gradient since the last call.
  std::vector<float> take_flags();

 private:
  struct Member {
    NamedParameter whole;
    std::int64_t room = 0, offset = 0;
    std::size_t bucket = 0;
    TrainedParameter* own = nullptr;  ///< null: this rank has no slice of it
    at::Tensor sum;                   ///< float32, of this rank; undefined: nothing came
    int arrivals = 0;                 ///< in this round
    bool flag = false;
  };
  struct Bucket {
    std::vector<std::size_t> members;
    std::int64_t room = 0;
    std::size_t ready = 0;
    at::Tensor buffer, received;
    Collectives::Pending pending;
    bool sent = false;
  };
  class Hook;
  void cut_buckets(std::int64_t bucket_bytes);
  void arrived(std::size_t index);
  void take(Member& member);
  bool reduces() const { return last_ || options_.every_round; }
  void send(Bucket& bucket);
  void receive(Bucket& bucket);

  Collectives& group_;
  Options options_;
  std::vector<Member> members_;
  std::vector<Bucket> buckets_;
  std::size_t next_ = 0;      ///< bucket to send
  std::size_t received_ = 0;  ///< buckets whose sums have been taken
  bool last_ = false, in_round_ = false;
  bool known_ = false;     ///< a round has shown how gradients arrive
  bool repeated_ = false;  ///< some tensor's gradient came in several parts: nothing may leave early
  double factor_ = 1;
};

}  // namespace llava
