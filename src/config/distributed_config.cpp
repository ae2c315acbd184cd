#include "config/distributed_config.h"

#include "base/error.h"

namespace llava {

void check_distributed(const DistributedConfig& config) {
  if (config.bucket_bytes < 1024 || config.bucket_bytes > (std::int64_t{1} << 36))
    fail(ErrorKind::kInput, "distributed.bucket_bytes: must be in [1024, 68719476736]");
  if (!(config.timeout_seconds >= 1 && config.timeout_seconds <= 7 * 86400))
    fail(ErrorKind::kInput, "distributed.timeout_seconds: must be in [1, 604800]");
}

}  // namespace llava
