#include "train/checkpoint.h"

#include <fcntl.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "base/files.h"
#include "base/hash.h"
#include "base/log.h"
#include "formats/tensor_file.h"
#include "tensor/convert.h"
#include "train/stage_setup.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFiles[] = {"weights.safetensors", "optimizer.safetensors", "state.json",
                                  "config.yaml"};
constexpr const char* kPrefix = "checkpoint-";

std::optional<std::int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (name.rfind(kPrefix, 0) != 0) return std::nullopt;
  std::int64_t step = 0;
  const char* begin = name.data() + std::string_view(kPrefix).size();
  const auto [end, error] = std::from_chars(begin, name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return step;
}

/// Checkpoints of a run by step.
std::map<std::int64_t, fs::path> list_checkpoints(const fs::path& output) {
  std::map<std::int64_t, fs::path> found;
  if (!fs::is_directory(output)) return found;
  for (const auto& entry : fs::directory_iterator(output))
    if (const auto step = step_of(entry.path()); step && entry.is_directory()) found[*step] = entry.path();
  return found;
}

std::uint64_t file_hash(const fs::path& path) {
  const MappedFile file(path);
  return hash_bytes(file.bytes());
}

void sync_folder(const fs::path& folder) {
  const int handle = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY);
  if (handle < 0) return;
  ::fsync(handle);
  ::close(handle);
}

void write_weights(const fs::path& path, const TrainState& state, LlavaModel& model) {
  TensorWriter writer;
  for (const NamedParameter& p : model.parameters())
    if (is_lora_name(p.name) || state.touched.contains(p.name)) writer.add(p.name, p.tensor);
  writer.write(path);
}

at::Tensor random_state() {
  auto generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  return generator.get_state();
}

void write_optimizer(const fs::path& path, const Optimizer& optimizer) {
  TensorWriter writer;
  for (const NamedParameter& t : optimizer.state_tensors()) writer.add(t.name, t.tensor);
  writer.add("random_state", random_state());
  writer.write(path);
}

void write_manifest(const fs::path& folder) {
  OrderedJson manifest = OrderedJson::object();
  for (const char* name : kFiles) {
    const fs::path file = folder / name;
    if (!fs::exists(file)) continue;
    manifest[name] = {{"bytes", fs::file_size(file)}, {"hash", fmt::format("{:016x}", file_hash(file))}};
  }
  write_file_atomic(folder / "manifest.json", manifest.dump(1) + "\n");
}

void remove_old(const fs::path& output, std::int64_t keep) {
  if (keep <= 0) return;
  auto found = list_checkpoints(output);
  while (found.size() > static_cast<std::size_t>(keep)) {
    std::error_code ignored;  // a checkpoint that cannot be removed does no harm
    fs::remove_all(found.begin()->second, ignored);
    found.erase(found.begin());
  }
}

}  // namespace

fs::path save_checkpoint(const fs::path& output, const TrainState& state, LlavaModel& model,
                         const Optimizer* optimizer, const std::string& config_yaml, std::int64_t keep) {
  const fs::path target = output / fmt::format("{}{}", kPrefix, state.global_step);
  const fs::path building = output / fmt::format("tmp-{}{}", kPrefix, state.global_step);
  try {
    fs::remove_all(building);
    fs::create_directories(building);
    write_weights(building / "weights.safetensors", state, model);
    if (optimizer != nullptr) write_optimizer(building / "optimizer.safetensors", *optimizer);
    OrderedJson json = to_fields(state);
    json["touched"] = state.touched;
    write_file_atomic(building / "state.json", json.dump(1) + "\n");
    write_file_atomic(building / "config.yaml", config_yaml);
    write_manifest(building);
    sync_folder(building);
    fs::remove_all(target);
    fs::rename(building, target);
    sync_folder(output);
  } catch (const fs::filesystem_error& e) {
    fail(ErrorKind::kResource, "cannot save {}: {}", target.string(), e.what());
  }
  remove_old(output, keep);
  return target;
}

void verify_checkpoint(const fs::path& folder) {
  if (!fs::is_directory(folder)) fail(ErrorKind::kInput, "{}: no such checkpoint folder", folder.string());
  const Json manifest = read_json_file(folder / "manifest.json");
  if (!manifest.is_object() || !manifest.contains("state.json") ||
      !manifest.contains("weights.safetensors"))
    fail(ErrorKind::kFormat, "{}/manifest.json: not a checkpoint's manifest", folder.string());
  for (const auto& [name, facts] : manifest.items()) {
    const fs::path file = folder / fs::path(name).filename();
    if (!fs::is_regular_file(file)) fail(ErrorKind::kFormat, "{}: is missing", file.string());
    const auto bytes = json_get<std::uint64_t>(facts, "bytes", "manifest.json");
    if (fs::file_size(file) != bytes)
      fail(ErrorKind::kFormat, "{}: has {} bytes, not {}", file.string(), fs::file_size(file), bytes);
    if (fmt::format("{:016x}", file_hash(file)) != json_get<std::string>(facts, "hash", "manifest.json"))
      fail(ErrorKind::kFormat, "{}: its content is damaged", file.string());
  }
}

std::optional<fs::path> find_checkpoint(const fs::path& output) {
  const auto found = list_checkpoints(output);
  for (auto it = found.rbegin(); it != found.rend(); ++it) {
    try {
      verify_checkpoint(it->second);
      return it->second;
    } catch (const Error& e) {
      log_warning("train", "skipping {}: {}", it->second.string(), e.what());
    }
  }
  return std::nullopt;
}

TrainState read_state(const fs::path& folder) {
  const std::string what = (folder / "state.json").string();
  OrderedJson json = parse_ordered_json(read_file(folder / "state.json"), what);
  std::set<std::string> touched;
  if (json.is_object() && json.contains("touched")) {
    const auto names = from_fields<std::vector<std::string>>(json["touched"], what + ": touched");
    touched.insert(names.begin(), names.end());
    json.erase("touched");
  }
  auto state = with_context(what, [&] { return from_fields<TrainState>(json); });
  state.touched = std::move(touched);
  return state;
}

void load_weights(const fs::path& folder, LlavaModel& model) {
  const at::NoGradGuard no_grad;
  const std::shared_ptr<const TensorFile> file = open_safetensors(folder / "weights.safetensors");
  std::map<std::string, at::Tensor> parameters;
  for (NamedParameter& p : model.parameters()) parameters.emplace(p.name, p.tensor);
  std::vector<std::string> wrong;
  for (const TensorView& view : file->tensors()) {
    const auto it = parameters.find(view.name);
    if (it == parameters.end() || it->second.sizes().vec() != view.shape) {
      wrong.push_back(view.name);
      continue;
    }
    make_writable(it->second);
    it->second.copy_(to_tensor(view, file));
  }
  if (!wrong.empty())
    fail(ErrorKind::kFormat, "{}: tensors that do not fit the model: {}", file->path().string(),
         fmt::join(wrong, ", "));
}

void load_optimizer(const fs::path& folder, Optimizer& optimizer) {
  const at::NoGradGuard no_grad;
  const std::shared_ptr<const TensorFile> file = open_safetensors(folder / "optimizer.safetensors");
  const auto restore = [&](const std::string& name, at::Tensor into) {
    const TensorView* view = file->find(name);
    if (view == nullptr || view->shape != into.sizes().vec())
      fail(ErrorKind::kFormat, "{}: \"{}\" is missing or has another shape; was `train` or `lora` changed?",
           file->path().string(), name);
    into.copy_(to_tensor(*view, file));
  };
  std::size_t expected = 1;
  for (const NamedParameter& t : optimizer.state_tensors()) {
    restore(t.name, t.tensor);
    ++expected;
  }
  if (file->tensors().size() != expected)
    fail(ErrorKind::kFormat, "{}: holds {} tensors, the stage needs {}; was `train` changed?",
         file->path().string(), file->tensors().size(), expected);
  auto generator = at::detail::getDefaultCPUGenerator();
  at::Tensor state = random_state();
  restore("random_state", state);
  const std::lock_guard lock(generator.mutex());
  generator.set_state(state);
}

}  // namespace llava
