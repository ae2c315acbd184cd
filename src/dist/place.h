#pragma once
#include <functional>
#include <optional>
#include <string>

namespace llava {

/// Where this process stands among those that train together.
struct Place {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  ///< on this machine
  std::string master_host;             ///< where rank 0 runs
  int master_port = 0;
  std::string launcher;     ///< "torchrun", "Slurm", "Open MPI", "PMI"; empty: alone
  std::string session;      ///< separates the keys of a restart from those before
  bool store_runs = false;  ///< the launcher keeps the key-value store, rank 0 need not
  bool several() const { return size > 1; }
  /// Whether a launcher wants a group: several processes, or one of torchrun's, which runs what several run.
  bool joins() const { return !launcher.empty(); }
};

/// A variable's value; nullopt where it is not set.
using Environment = std::function<std::optional<std::string>(const char* name)>;
Environment process_environment();

/// Reads RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT (torchrun, Kubernetes'
/// PyTorchJob), else Slurm's step variables (srun), Open MPI's or PMI's. Nothing set: alone. Error{kUsage}
/// for numbers that cannot be, or a master that nothing names.
Place find_place(const Environment& environment);

/// The first host of a Slurm node list: "n[03-05,9],m1" -> "n03".
std::string first_host(const std::string& node_list);

}  // namespace llava
