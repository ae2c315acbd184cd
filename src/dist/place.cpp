#include "dist/place.h"

#include <charconv>
#include <cstdlib>

#include "base/error.h"

namespace llava {

namespace {

constexpr int kDefaultPort = 29500;

int number(const std::string& text, const char* name) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    fail(ErrorKind::kUsage, "{}=\"{}\" is not a number of processes or of a process", name, text);
  return value;
}

/// How one launcher names things; nullptr: it has no such variable.
struct Names {
  const char *launcher, *rank, *size, *local_rank, *local_size;
};

// SLURM_STEP_NUM_TASKS, not SLURM_NTASKS: a batch script has the latter too, and it is one process.
constexpr Names kLaunchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", nullptr},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};

/// Slurm counts tasks of a node as "4" or "4(x2),3".
int slurm_local_size(const Environment& environment) {
  const auto text = environment("SLURM_STEP_TASKS_PER_NODE");
  return text ? number(text->substr(0, text->find_first_of("(,")), "SLURM_STEP_TASKS_PER_NODE") : 1;
}

void find_master(Place& place, const Environment& environment) {
  const auto host = environment("MASTER_ADDR"), port = environment("MASTER_PORT");
  place.master_port = port ? number(*port, "MASTER_PORT") : kDefaultPort;
  if (host) {
    place.master_host = *host;
  } else if (place.local_size == place.size) {
    place.master_host = "127.0.0.1";
  } else if (const auto nodes = environment("SLURM_STEP_NODELIST"); nodes && place.launcher == "Slurm") {
    place.master_host = first_host(*nodes);
  } else {
    throw Error(ErrorKind::kUsage,
                fmt::format("{} started {} processes on several machines, and MASTER_ADDR is not set",
                            place.launcher, place.size),
                "set MASTER_ADDR to the machine of process 0 and MASTER_PORT to a free port there");
  }
  if (place.master_port < 1 || place.master_port > 65535)
    fail(ErrorKind::kUsage, "MASTER_PORT={} is not a port", place.master_port);
}

}  // namespace

Environment process_environment() {
  return [](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  };
}

std::string first_host(const std::string& node_list) {
  const std::size_t open = node_list.find_first_of("[,");
  if (open == std::string::npos || node_list[open] == ',') return node_list.substr(0, open);
  const std::size_t end = node_list.find_first_of("-,]", open);
  return node_list.substr(0, open) + node_list.substr(open + 1, end - open - 1);
}

Place find_place(const Environment& environment) {
  for (const Names& names : kLaunchers) {
    const auto rank = environment(names.rank), size = environment(names.size);
    if (std::string_view(names.launcher) == "torchrun" && rank.has_value() != size.has_value())
      fail(ErrorKind::kUsage, "{} is set and {} is not", rank ? "RANK" : "WORLD_SIZE",
           rank ? "WORLD_SIZE" : "RANK");
    if (!rank || !size) continue;
    Place place;
    place.launcher = names.launcher;
    place.rank = number(*rank, names.rank);
    place.size = number(*size, names.size);
    if (place.size < 1 || place.rank >= place.size)
      fail(ErrorKind::kUsage, "{}={} with {}={}: ranks count from 0 to one below the number of processes",
           names.rank, *rank, names.size, *size);
    if (!place.several() && place.launcher != "torchrun") return {};
    if (const auto local = environment(names.local_rank))
      place.local_rank = number(*local, names.local_rank);
    if (names.local_size == nullptr) {
      place.local_size = slurm_local_size(environment);
    } else if (const auto local = environment(names.local_size)) {
      place.local_size = number(*local, names.local_size);
    }
    find_master(place, environment);
    place.session = environment("TORCHELASTIC_RESTART_COUNT").value_or("0");
    place.store_runs = environment("TORCHELASTIC_USE_AGENT_STORE").value_or("") == "True";
    return place;
  }
  return {};
}

}  // namespace llava
