// LibTorch's process groups. gloo's code is in LibTorch, its headers are Debian's: the few types that cross
// (a device pointer) are only passed on.
#define USE_C10D_GLOO 1
#ifdef LLAVA_DIST_NCCL
#define USE_C10D_NCCL 1
#endif
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef LLAVA_DIST_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "base/error.h"
#include "dist/transport.h"

namespace llava {

namespace {

class C10dPending final : public PendingTransfer {
 public:
  C10dPending(c10::intrusive_ptr<c10d::Work> work, std::vector<at::Tensor> kept)
      : work_(std::move(work)), kept_(std::move(kept)) {}
  void wait() override { work_->wait(); }
  bool done() override { return work_->isCompleted(); }

 private:
  c10::intrusive_ptr<c10d::Work> work_;
  std::vector<at::Tensor> kept_;  ///< alive until the transfer is waited for
};

c10::intrusive_ptr<c10d::Store> open_store(const Place& place, bool server, std::chrono::seconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(place.master_port);
  options.isServer = server;
  options.waitWorkers = false;
  options.timeout = timeout;
  auto store = c10::make_intrusive<c10d::TCPStore>(place.master_host, options);
  return c10::make_intrusive<c10d::PrefixStore>("llava/" + place.session, std::move(store));
}

c10::intrusive_ptr<c10d::Backend> make_backend(const c10::intrusive_ptr<c10d::Store>& store,
                                               const Place& place, c10::Device device,
                                               std::chrono::seconds timeout) {
  if (device.is_cuda()) {
#ifdef LLAVA_DIST_NCCL
    c10::impl::getDeviceGuardImpl(device.type())->setDevice(device);  // of this process, from now on
    return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, place.rank, place.size);
#else
    throw Error(ErrorKind::kUnsupported, "this build has no NCCL: several processes train on CPUs only",
                "build against a CUDA LibTorch with nccl.h on the include path");
#endif
  }
  const auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  // On one machine the loopback device works whatever its host name resolves to.
  options->devices.push_back(place.local_size == place.size
                                 ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                                 : c10d::ProcessGroupGloo::createDefaultDevice());
  options->threads = 2;
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, place.rank, place.size, options);
}

class C10dTransport final : public Transport {
 public:
  C10dTransport(const Place& place, c10::Device device, std::chrono::seconds timeout)
      : store_(open_store(place, place.rank == 0 && !place.store_runs, timeout)),
        table_(open_store(place, false, timeout)),
        backend_(make_backend(store_, place, device, timeout)),
        device_(device) {}
  c10::Device device() const override { return device_; }

  std::unique_ptr<PendingTransfer> all_reduce(at::Tensor tensor, Reduction reduction) override {
    std::vector<at::Tensor> tensors = {tensor};
    c10d::AllreduceOptions options;
    options.reduceOp =
        reduction == Reduction::kSum ? c10d::ReduceOp(c10d::ReduceOp::SUM) : c10d::ReduceOp(c10d::ReduceOp::MAX);
    auto work = backend_->allreduce(tensors, options);
    return pending(std::move(work), {tensor});
  }
  std::unique_ptr<PendingTransfer> all_gather(at::Tensor out, at::Tensor in) override {
    return pending(backend_->_allgather_base(out, in), {out, in});
  }
  std::unique_ptr<PendingTransfer> reduce_scatter(at::Tensor out, at::Tensor in) override {
    return pending(backend_->_reduce_scatter_base(out, in), {out, in});
  }
  std::unique_ptr<PendingTransfer> broadcast(at::Tensor tensor, int root) override {
    std::vector<at::Tensor> tensors = {tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return pending(backend_->broadcast(tensors, options), {tensor});
  }
  void post(const std::string& key, const std::string& value) override {
    table_->set(key, std::vector<std::uint8_t>(value.begin(), value.end()));
  }
  std::optional<std::string> look(const std::string& key) override {
    if (!table_->check({key})) return std::nullopt;
    const auto value = table_->get(key);
    return std::string(value.begin(), value.end());
  }

 private:
  static std::unique_ptr<PendingTransfer> pending(c10::intrusive_ptr<c10d::Work> work,
                                                  std::vector<at::Tensor> kept) {
    return std::make_unique<C10dPending>(std::move(work), std::move(kept));
  }
  c10::intrusive_ptr<c10d::Store> store_;  ///< on rank 0 the server lives in it
  c10::intrusive_ptr<c10d::Store> table_;  ///< a second connection: the first may be waiting
  c10::intrusive_ptr<c10d::Backend> backend_;
  c10::Device device_;
};

}  // namespace

std::unique_ptr<Transport> connect(const Place& place, c10::Device device, std::chrono::seconds timeout) {
  try {
    return std::make_unique<C10dTransport>(place, device, timeout);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw Error(ErrorKind::kResource,
                fmt::format("rank {} of {} could not meet the others at {}:{}: {}", place.rank, place.size,
                            place.master_host, place.master_port, e.what()),
                "all processes must be started within the timeout, with the same MASTER_ADDR and MASTER_PORT");
  }
}

}  // namespace llava
