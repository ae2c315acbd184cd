#include "dist/collectives.h"

#include <torch/torch.h>

#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "dist/watchdog.h"

namespace llava {

namespace {

std::uint64_t mix(std::uint64_t hash, std::string_view text) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

/// A 64-bit hash as doubles, which hold 53 bits exactly.
std::vector<double> as_doubles(std::uint64_t hash) {
  return {static_cast<double>(hash >> 32), static_cast<double>(hash & 0xffffffffu)};
}

}  // namespace

Collectives::Collectives(std::unique_ptr<Transport> transport, const Place& place, Options options)
    : place_(place), options_(options), transport_(std::move(transport)) {
  Watchdog::Options watch;
  watch.timeout = options_.timeout;
  watchdog_ = std::make_unique<Watchdog>(*transport_, place_, watch);
}

Collectives::~Collectives() {
  watchdog_.reset();
  if (failed_) {
    // A group whose partner is gone may wait for it in its destructor.
    static_cast<void>(transport_.release());
    return;
  }
  try {
    transport_->all_reduce(at::zeros({1}, at::TensorOptions().device(device())), Reduction::kSum)->wait();
  } catch (const std::exception& e) {
    log_warning("dist", "rank {}: the others did not end together: {}", place_.rank, e.what());
  }
}

c10::Device Collectives::device() const { return transport_->device(); }
std::string Collectives::last_call() const { return watchdog_->last(); }

void Collectives::Pending::wait() {
  if (!transfer_) return;
  const auto transfer = std::move(transfer_);
  try {
    transfer->wait();
  } catch (const std::exception& e) {
    owner_->explain(sequence_, e.what());
  }
  if (!owner_->device().is_cuda()) owner_->watchdog_->finished(sequence_);
}

void Collectives::explain(std::uint64_t sequence, const std::string& what) {
  failed_ = true;
  const std::string last = watchdog_->last();
  const std::string reason =
      Watchdog::wait_for_reason(*transport_, std::chrono::milliseconds(3000));
  throw Error(ErrorKind::kResource,
              fmt::format("rank {} of {}: collective {} failed ({}); the last one it started: {}", place_.rank, place_.size,
                          sequence, reason.empty() ? what : reason, last),
              "another process has ended or cannot be reached; its own message says why. Start all again "
              "with --resume auto");
}

Collectives::Pending Collectives::start(std::string_view kind, std::string_view name,
                                        const at::Tensor& tensor,
                                        std::unique_ptr<PendingTransfer> (*run)(Transport&, const at::Tensor&,
                                                                                const at::Tensor&, int),
                                        const at::Tensor& other, int argument) {
  LLAVA_ASSERT(tensor.is_contiguous() && (!other.defined() || other.is_contiguous()),
               "collectives work on contiguous tensors");
  const std::string what = fmt::format("{} {}, {} elements of {} bytes", kind, name, tensor.numel(),
                                       tensor.element_size());
  if (options_.check) compare_call(what);
  Pending pending;
  pending.owner_ = this;
  pending.sequence_ = ++sequence_;
  hash_ = mix(hash_, what);
  try {
    pending.transfer_ = run(*transport_, tensor, other, argument);
  } catch (const std::exception& e) {
    explain(pending.sequence_, e.what());
  }
  watchdog_->started(pending.sequence_, what, pending.transfer_, options_.timeout);
  return pending;
}

void Collectives::compare_call(const std::string& what) {
  const std::uint64_t hash = mix(hash_, what);
  const at::Tensor mine = at::tensor(as_doubles(hash), at::kDouble).to(device());
  const at::Tensor all = at::empty({2 * size()}, mine.options());
  transport_->all_gather(all, mine)->wait();
  const at::Tensor rows = all.cpu().view({size(), 2});
  for (int r = 0; r < size(); ++r)
    if (!at::equal(rows[r], mine.cpu()))
      fail(ErrorKind::kInternal, "rank {} is about to call {}, rank {} something else (call {})", place_.rank,
           what, r, sequence_ + 1);
}

Collectives::Pending Collectives::all_reduce(const at::Tensor& tensor, std::string_view name,
                                             Reduction reduction) {
  return start(
      "all_reduce", name, tensor,
      [](Transport& t, const at::Tensor& x, const at::Tensor&, int r) {
        return t.all_reduce(x, static_cast<Reduction>(r));
      },
      {}, static_cast<int>(reduction));
}

Collectives::Pending Collectives::all_gather(const at::Tensor& out, const at::Tensor& in,
                                             std::string_view name) {
  LLAVA_ASSERT(out.numel() == in.numel() * size(), "room for every rank's part");
  return start(
      "all_gather", name, out,
      [](Transport& t, const at::Tensor& x, const at::Tensor& part, int) { return t.all_gather(x, part); }, in,
      0);
}

Collectives::Pending Collectives::reduce_scatter(const at::Tensor& out, const at::Tensor& in,
                                                 std::string_view name) {
  LLAVA_ASSERT(in.numel() == out.numel() * size(), "a part for every rank");
  return start(
      "reduce_scatter", name, in,
      [](Transport& t, const at::Tensor& x, const at::Tensor& part, int) { return t.reduce_scatter(part, x); },
      out, 0);
}

Collectives::Pending Collectives::broadcast(const at::Tensor& tensor, int root, std::string_view name) {
  return start(
      "broadcast", name, tensor,
      [](Transport& t, const at::Tensor& x, const at::Tensor&, int r) { return t.broadcast(x, r); }, {}, root);
}

std::vector<std::vector<double>> Collectives::exchange(const std::vector<double>& values,
                                                       std::string_view name) {
  const at::Tensor mine = at::tensor(values, at::kDouble).to(device());
  const at::Tensor all = at::empty({size() * mine.numel()}, mine.options());
  all_gather(all, mine, name).wait();
  const at::Tensor host = all.cpu();
  const double* data = host.const_data_ptr<double>();
  std::vector<std::vector<double>> rows;
  for (int r = 0; r < size(); ++r)
    rows.emplace_back(data + static_cast<std::size_t>(r) * values.size(),
                      data + static_cast<std::size_t>(r + 1) * values.size());
  return rows;
}

std::vector<double> Collectives::sum(const std::vector<double>& values, std::string_view name) {
  // gathered and added in rank order: every rank gets the same bits
  std::vector<double> total(values.size());
  for (const auto& row : exchange(values, name))
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += row[i];
  return total;
}

void Collectives::barrier(std::string_view name) {
  const at::Tensor one = at::ones({1}, at::TensorOptions().device(device()));
  start(
      "barrier", name, one,
      [](Transport& t, const at::Tensor& x, const at::Tensor&, int) {
        return t.all_reduce(x, Reduction::kSum);
      },
      {}, 0)
      .wait();
  if (device().is_cuda()) one.cpu();
}

void Collectives::wait_for_all(std::string_view name) {
  // Not a collective: those have timeouts of their own, and a rank may work for hours. Rank 0 looks for all.
  const auto wait_for = [&](const std::string& key) {
    for (int ms = 1; !transport_->look(key); ms = std::min(2 * ms, 200))
      std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  };
  const auto key = [&](int r) { return fmt::format("here/{}/{}/{}", sequence_, name, r); };
  try {
    if (!is_main()) transport_->post(key(rank()), "");
    for (int r = 1; is_main() && r < size(); ++r) wait_for(key(r));
    if (is_main()) transport_->post(key(0), "");
    if (!is_main()) wait_for(key(0));
  } catch (const std::exception& e) {
    explain(sequence_, e.what());
  }
  barrier(name);
}

bool Collectives::same_sequence() {
  const auto mine = as_doubles(hash_);
  bool same = true;
  for (const auto& row : exchange(mine, "sequence")) same = same && row == mine;
  return same;
}

void Collectives::give_up(const std::string& reason) {
  failed_ = true;
  try {
    Watchdog::post_reason(*transport_, place_, reason);
  } catch (const std::exception&) {
    // the table is gone with rank 0, which the others see for themselves
  }
}

}  // namespace llava
