#include "train/gradient_buckets.h"

#include <torch/csrc/autograd/variable.h>
#include <torch/torch.h>

#include <map>

#include "base/error.h"
#include "train/slices.h"

namespace llava {

namespace {

constexpr std::size_t kUnderWay = 4;  ///< buckets whose memory exists at once

}  // namespace

/// Tells the buckets that a tensor's gradient is complete.
class GradientBuckets::Hook final : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(GradientBuckets& owner, std::size_t index) : owner_(owner), index_(index) {}
  void operator()(const torch::autograd::Variable&) override { owner_.arrived(index_); }

 private:
  GradientBuckets& owner_;
  std::size_t index_;
};

GradientBuckets::GradientBuckets(Collectives& group, const std::vector<NamedParameter>& trained,
                                 Optimizer& optimizer, const Options& options)
    : group_(group), options_(options) {
  std::map<std::string, TrainedParameter*> own;
  for (TrainedParameter& p : optimizer.parameters()) own[p.name] = &p;
  for (auto it = trained.rbegin(); it != trained.rend(); ++it) {  // the backward pass comes from the end
    Member& member = members_.emplace_back();
    member.whole = *it;
    member.room = slice_room(it->tensor.numel(), group.size());
    if (const auto found = own.find(it->name); found != own.end()) member.own = found->second;
  }
  cut_buckets(options.bucket_bytes);
  for (std::size_t i = 0; i < members_.size(); ++i)
    torch::autograd::impl::set_post_acc_grad_hooks(members_[i].whole.tensor,
                                                   std::make_unique<Hook>(*this, i));
}

GradientBuckets::~GradientBuckets() {
  for (Member& member : members_)
    torch::autograd::impl::set_post_acc_grad_hooks(member.whole.tensor, nullptr);
}

void GradientBuckets::cut_buckets(std::int64_t bucket_bytes) {
  for (std::size_t i = 0; i < members_.size(); ++i) {
    Member& member = members_[i];
    const auto bytes = [&](std::int64_t room) { return room * group_.size() * std::int64_t{4}; };
    // the first bucket is small: sending starts early
    const std::int64_t limit = buckets_.size() <= 1 ? std::min<std::int64_t>(bucket_bytes, 1 << 20) : bucket_bytes;
    if (buckets_.empty() || bytes(buckets_.back().room + member.room) > limit) buckets_.emplace_back();
    member.bucket = buckets_.size() - 1;
    member.offset = buckets_.back().room;
    buckets_.back().room += member.room;
    buckets_.back().members.push_back(i);
  }
}

void GradientBuckets::begin_round(bool last, double factor) {
  last_ = last;
  factor_ = factor;
  in_round_ = true;
  next_ = received_ = 0;
  for (Member& member : members_) member.arrivals = 0;
  for (Bucket& bucket : buckets_) bucket.ready = 0, bucket.sent = false;
}

void GradientBuckets::arrived(std::size_t index) {
  const at::NoGradGuard no_grad;
  LLAVA_ASSERT(in_round_, "a backward pass outside of a round");
  Member& member = members_[index];
  Bucket& bucket = buckets_[member.bucket];
  if (bucket.sent)
    throw Error(ErrorKind::kInternal,
                fmt::format("the gradient of {} came in several parts and late", member.whole.name),
                "set distributed.overlap: false");
  take(member);
  if (++member.arrivals > 1) {
    repeated_ = true;
  } else {
    ++bucket.ready;
  }
  if (!options_.overlap || !known_ || repeated_ || !reduces()) return;
  while (next_ < buckets_.size() && buckets_[next_].ready == buckets_[next_].members.size())
    send(buckets_[next_]);
}

void GradientBuckets::take(Member& member) {
  at::Tensor& fresh = member.whole.tensor.mutable_grad();
  if (!fresh.defined()) return;
  const at::Tensor wide = fresh.to(at::kFloat);
  if (member.sum.defined()) {
    member.sum.add_(wide, factor_);
  } else {
    member.sum = factor_ == 1.0 ? wide : wide * factor_;
  }
  member.flag = true;
  fresh.reset();
}

void GradientBuckets::send(Bucket& bucket) {
  while (next_ - received_ >= kUnderWay) receive(buckets_[received_]);
  const std::int64_t world = group_.size();
  bucket.buffer = at::empty({world, bucket.room}, at::TensorOptions().dtype(at::kFloat).device(group_.device()));
  for (const std::size_t i : bucket.members) {
    Member& member = members_[i];
    at::Tensor part = bucket.buffer.narrow(1, member.offset, member.room);
    if (member.sum.defined()) {
      put_in_slices(member.sum, part);
    } else {
      part.zero_();
    }
    member.sum.reset();
  }
  const std::string name = fmt::format("gradients {}", next_);
  if (options_.scatter) {
    bucket.received = at::empty({bucket.room}, bucket.buffer.options());
    bucket.pending = group_.reduce_scatter(bucket.received, bucket.buffer.view(-1), name);
  } else {
    bucket.pending = group_.all_reduce(bucket.buffer, name);
  }
  bucket.sent = true;
  ++next_;
}

void GradientBuckets::receive(Bucket& bucket) {
  bucket.pending.wait();
  ++received_;
  for (const std::size_t i : bucket.members) {
    Member& member = members_[i];
    if (member.own == nullptr) continue;
    TrainedParameter& own = *member.own;
    const at::Tensor sum =
        options_.scatter
            ? bucket.received.narrow(0, member.offset, own.master.numel()).view(own.master.sizes())
            : join_slices(bucket.buffer.narrow(1, member.offset, member.room), own.master.sizes());
    const at::Tensor placed = sum.to(own.master.device());
    if (own.grad.defined()) {
      own.grad.add_(placed);
    } else {
      own.grad = options_.scatter ? placed.clone() : placed;  // not a view that keeps the bucket
    }
  }
  bucket.buffer.reset(), bucket.received.reset();
}

void GradientBuckets::end_round() {
  const at::NoGradGuard no_grad;
  for (Member& member : members_) take(member);
  if (reduces()) {
    while (next_ < buckets_.size()) send(buckets_[next_]);
    while (received_ < buckets_.size()) receive(buckets_[received_]);
  }
  known_ = true;
  in_round_ = false;
}

std::vector<float> GradientBuckets::take_flags() {
  std::vector<float> flags;
  for (Member& member : members_) flags.push_back(std::exchange(member.flag, false) ? 1.0f : 0.0f);
  return flags;
}

}  // namespace llava
