#include "train/parallel_stage.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "train/slices.h"

namespace llava {

namespace {

bool cuts(ShardStrategy strategy) { return strategy != ShardStrategy::kDdp; }

/// A rank's slice of a tensor: a view on its memory, which an update changes in place.
at::Tensor own_slice(const at::Tensor& tensor, const Collectives& group) {
  const at::NoGradGuard no_grad;
  const Slice slice = slice_of(tensor.numel(), group.size(), group.rank());
  return tensor.detach().view(-1).narrow(0, slice.begin, slice.length);
}

/// The norm of the gradients is a sum in the optimizer's order: the same order makes it the same number.
void sort_like(const std::vector<NamedParameter>& trained, std::vector<NamedParameter>& owned) {
  std::map<std::string, std::size_t> place;
  for (const NamedParameter& p : trained) place.emplace(p.name, place.size());
  std::stable_sort(owned.begin(), owned.end(), [&](const NamedParameter& a, const NamedParameter& b) {
    return place.at(a.name) < place.at(b.name);
  });
}

}  // namespace

ParallelStage::ParallelStage(Collectives& group, LlavaModel& model,
                             const std::vector<NamedParameter>& trained, const PatternNumbers& lr,
                             const OptimConfig& optim, const DistributedConfig& config)
    : group_(group), config_(config) {
  if (cuts(config.strategy) && !make_update_rule(optim)->elementwise())
    throw Error(ErrorKind::kInput,
                fmt::format("distributed.strategy: optimizer \"{}\" needs whole matrices, and zero strategies "
                            "cut them",
                            to_fields(optim)["name"].get<std::string>()),
                "use strategy ddp, or an optimizer that moves each element by itself (adamw, adamw_8bit, lion…)");
  check_same_weights(model);
  for (const NamedParameter& p : trained) {
    at::Tensor tensor = p.tensor;
    tensor.requires_grad_(true);
  }
  std::vector<NamedParameter> owned;
  if (config.strategy == ShardStrategy::kZero3) {
    layers_ = std::make_unique<ShardedLayers>(group, model, trained);
    owned = layers_->own_slices();
  }
  for (const NamedParameter& p : trained)
    if (!layers_ || !layers_->has(p.name)) replicated_.push_back(p);
  for (NamedParameter& p : cuts(config.strategy) ? own_slices(replicated_) : replicated_)
    owned.push_back(std::move(p));
  sort_like(trained, owned);
  made_ = std::make_unique<Optimizer>(owned, lr, optim);
  optimizer_ = made_.get();
  GradientBuckets::Options options;
  options.bucket_bytes = config.bucket_bytes;
  options.scatter = cuts(config.strategy);
  options.every_round = config.strategy == ShardStrategy::kZero2 || config.strategy == ShardStrategy::kZero3;
  // gathers of layers and buckets would mix in an order that depends on the samples
  options.overlap = config.overlap && !layers_;
  buckets_ = std::make_unique<GradientBuckets>(group, replicated_, *made_, options);
  if (layers_) layers_->connect(*made_);
}

ParallelStage::~ParallelStage() = default;

/// Ranks that start from different weights (another file on another machine) would train different models.
void ParallelStage::check_same_weights(LlavaModel& model) {
  const at::NoGradGuard no_grad;
  std::vector<NamedParameter> all = model.parameters();
  std::vector<at::Tensor> sums;
  for (const NamedParameter& p : all) sums.push_back(p.tensor.detach().to(at::kFloat).sum());
  const at::Tensor host = at::stack(sums).to(at::kCPU).to(at::kDouble);
  const double* values = host.const_data_ptr<double>();
  const std::vector<double> own(values, values + host.numel());
  const auto rows = group_.exchange(own, "weights");
  for (std::size_t i = 0; i < all.size(); ++i)
    for (int r = 1; r < group_.size(); ++r)
      if (!(rows[static_cast<std::size_t>(r)][i] == rows[0][i]))
        throw Error(ErrorKind::kResource,
                    fmt::format("rank {} starts with another {} than rank 0", r, all[i].name),
                    "all machines must read the same model folder and run the same program");
}

std::vector<NamedParameter> ParallelStage::own_slices(const std::vector<NamedParameter>& trained) const {
  std::vector<NamedParameter> slices;
  for (const NamedParameter& p : trained) {
    at::Tensor slice = own_slice(p.tensor, group_);
    if (slice.numel() > 0) slices.push_back({p.name, std::move(slice)});
  }
  return slices;
}

StepShare ParallelStage::begin_step(const StepShare& own) {
  const auto rows = group_.exchange({own.terms, own.micro_batches, own.samples, own.tokens,
                                     own.supervised_tokens, own.images, own.bad_samples, own.views, own.attended_pairs},
                                    "step");
  StepShare all;
  most_micro_batches_ = 1;
  for (const auto& row : rows) {
    all.terms += row[0], all.micro_batches += row[1], all.samples += row[2], all.tokens += row[3];
    all.supervised_tokens += row[4], all.images += row[5], all.bad_samples += row[6];
    all.views += row[7], all.attended_pairs += row[8];
    most_micro_batches_ = std::max(most_micro_batches_, static_cast<std::int64_t>(row[1]));
  }
  return all;
}

std::int64_t ParallelStage::rounds(std::int64_t own_micro_batches) const {
  const bool together =
      config_.strategy == ShardStrategy::kZero2 || config_.strategy == ShardStrategy::kZero3;
  return together ? most_micro_batches_ : std::max<std::int64_t>(own_micro_batches, 1);
}

void ParallelStage::begin_round(bool last, double factor) {
  buckets_->begin_round(last, factor);
  if (layers_) layers_->set_factor(factor);
}

void ParallelStage::end_round() { buckets_->end_round(); }

double ParallelStage::gradient_norm(const Optimizer& optimizer) {
  LLAVA_ASSERT(&optimizer == optimizer_, "the stage's own optimizer");
  std::vector<float> flags = buckets_->take_flags();
  const std::size_t whole = flags.size();
  if (layers_)
    for (const float flag : layers_->take_flags()) flags.push_back(flag);
  const at::Tensor all = at::tensor(flags, at::kFloat).to(group_.device());
  if (all.numel() > 0) group_.all_reduce(all, "which gradients", Reduction::kMax).wait();
  const at::Tensor host = all.to(at::kCPU);
  std::set<std::string> without;  // no rank had a gradient: no update, no decay, as in one process
  const float* flag = host.const_data_ptr<float>();
  for (std::size_t i = 0; i < whole; ++i)
    if (flag[i] == 0) without.insert(replicated_[replicated_.size() - 1 - i].name);
  if (layers_)
    for (const std::string& name : layers_->names_without(flag + whole)) without.insert(name);
  for (TrainedParameter& p : optimizer_->parameters())
    if (without.contains(p.name)) p.grad.reset();
  const double norm = optimizer.gradient_norm();
  if (!cuts(config_.strategy)) return norm;
  return std::sqrt(group_.sum({norm * norm}, "gradient norm")[0]);
}

void ParallelStage::spread() {
  if (!cuts(config_.strategy)) return;
  const at::NoGradGuard no_grad;
  // as many tensors together as a bucket of gradients has
  for (std::size_t begin = 0; begin < replicated_.size();) {
    std::size_t end = begin;
    std::int64_t room = 0, bytes = 0;
    for (; end < replicated_.size() && (end == begin || bytes < config_.bucket_bytes); ++end) {
      const at::Tensor& t = replicated_[end].tensor;
      if (t.scalar_type() != replicated_[begin].tensor.scalar_type()) break;
      room += slice_room(t.numel(), group_.size());
      bytes = room * group_.size() * static_cast<std::int64_t>(t.element_size());
    }
    const at::Tensor own = at::zeros({room}, replicated_[begin].tensor.options().requires_grad(false));
    const at::Tensor all = at::empty({group_.size(), room}, own.options());
    std::int64_t offset = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const at::Tensor slice = own_slice(replicated_[i].tensor, group_);
      own.narrow(0, offset, slice.numel()).copy_(slice);
      offset += slice_room(replicated_[i].tensor.numel(), group_.size());
    }
    group_.all_gather(all.view(-1), own, "weights").wait();
    offset = 0;
    for (std::size_t i = begin; i < end; ++i) {
      at::Tensor whole = replicated_[i].tensor.detach();
      const std::int64_t part = slice_room(whole.numel(), group_.size());
      whole.copy_(join_slices(all.narrow(1, offset, part), whole.sizes()));
      offset += part;
    }
    begin = end;
  }
}

double ParallelStage::end_step(double loss, bool& stop) {
  const auto total = group_.sum({loss, stop ? 1.0 : 0.0}, "loss");
  stop = total[1] > 0;
  return total[0];
}

void ParallelStage::finish() {
  buckets_.reset();
  if (layers_) layers_->restore();
}

}  // namespace llava
