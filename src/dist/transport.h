#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "dist/place.h"

/// What moves tensors between processes. Collectives is the only user; everything else talks to that.
namespace llava {

enum class Reduction { kSum, kMax };

/// A collective under way.
class PendingTransfer {
 public:
  virtual ~PendingTransfer() = default;
  /// Returns when the result may be used (CUDA: by what is put on the current stream). std::exception when a
  /// partner is gone.
  virtual void wait() = 0;
  virtual bool done() = 0;
};

/// Every call starts a collective in which all ranks must take part in the same order. Tensors are
/// contiguous and on device().
class Transport {
 public:
  virtual ~Transport() = default;
  virtual c10::Device device() const = 0;
  virtual std::unique_ptr<PendingTransfer> all_reduce(at::Tensor tensor, Reduction reduction) = 0;
  /// in [n] of every rank -> out [W*n], by rank.
  virtual std::unique_ptr<PendingTransfer> all_gather(at::Tensor out, at::Tensor in) = 0;
  /// in [W*n] -> out [n]: the sum over ranks of this rank's part.
  virtual std::unique_ptr<PendingTransfer> reduce_scatter(at::Tensor out, at::Tensor in) = 0;
  virtual std::unique_ptr<PendingTransfer> broadcast(at::Tensor tensor, int root) = 0;

  /// A table that all processes share, over a connection of its own: usable while a collective hangs. Throws
  /// std::exception when the process that keeps it is gone.
  virtual void post(const std::string& key, const std::string& value) = 0;
  virtual std::optional<std::string> look(const std::string& key) = 0;
};

/// Meets the other processes. Error{kResource} if they do not come within `timeout`, Error{kUnsupported} in a
/// build without LLAVA_DIST or, for CUDA, without NCCL.
std::unique_ptr<Transport> connect(const Place& place, c10::Device device, std::chrono::seconds timeout);

}  // namespace llava
