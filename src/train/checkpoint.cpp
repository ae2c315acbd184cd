#include "train/checkpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <torch/torch.h>
#include <unistd.h>

#include <array>
#include <map>

#include "base/files.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/progress.h"
#include "formats/tensor_file.h"
#include "tensor/convert.h"
#include "train/random_state.h"
#include "train/retention.h"
#include "train/stage_setup.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr const char* kManifest = "manifest.json";

std::uint64_t file_hash(const fs::path& path) {
  const MappedFile file(path);
  return hash_bytes(file.bytes());
}

void sync_folder(const fs::path& folder) {
  const int handle = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle < 0) return;
  ::fsync(handle);
  ::close(handle);
}

/// Whether a weight has no memory here: zero3 has cut it, and its parts are in the rank files.
bool is_elsewhere(const at::Tensor& t) {
  return t.numel() > 1 && t.storage().nbytes() == static_cast<std::size_t>(t.element_size());
}

/// A tensor as a checkpoint keeps it.
at::Tensor host_tensor(const at::Tensor& tensor, bool copy) {
  const at::NoGradGuard no_grad;
  const at::Tensor host = tensor.detach().to(at::kCPU);
  return copy && host.is_alias_of(tensor) ? host.clone(at::MemoryFormat::Contiguous) : host;
}

void write_manifest(const fs::path& folder, const CheckpointContent& content) {
  OrderedJson manifest = OrderedJson::object();
  const auto note = [&](const std::string& name) {
    const fs::path file = folder / name;
    manifest[name] = {{"bytes", fs::file_size(file)}, {"hash", fmt::format("{:016x}", file_hash(file))}};
  };
  for (const CheckpointFile& file : content.files) note(file.name);
  for (const auto& text : content.texts) note(text.first);
  for (const fs::path& file : content.ready) note(file.filename().string());
  write_file_atomic(folder / kManifest, manifest.dump(1) + "\n");
}

void check_space(const fs::path& output, std::int64_t bytes) {
  constexpr std::uint64_t kSpare = std::uint64_t{16} << 20;  // metrics and logs go on
  std::error_code failure;
  const fs::space_info space = fs::space(output, failure);
  if (failure || space.available >= static_cast<std::uint64_t>(bytes) + kSpare) return;
  throw Error(ErrorKind::kResource,
              fmt::format("{}: a checkpoint needs {}, {} are free", output.string(),
                          format_bytes(static_cast<double>(bytes)),
                          format_bytes(static_cast<double>(space.available))),
              "free some space, or keep fewer checkpoints with save_total_limit");
}

/// Puts `building` where `target` is or is not, in one step where the file system can exchange names.
void put_in_place(const fs::path& building, const fs::path& target) {
  if (!fs::exists(target)) return fs::rename(building, target);
  if (::renameat2(AT_FDCWD, building.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
    std::error_code ignored;
    fs::remove_all(building, ignored);
    return;
  }
  const fs::path old = target.parent_path() / ("tmp-old-" + target.filename().string());
  fs::remove_all(old);
  fs::rename(target, old);
  fs::rename(building, target);
  fs::remove_all(old);
}

/// The names of a RandomState's tensors in optimizer.safetensors.
void add_random_state(const RandomState& random, std::vector<NamedParameter>& into) {
  constexpr std::array kNames = {"random_state", "random_state_device"};
  for (std::size_t i = 0; i < random.states().size(); ++i)
    into.push_back({kNames.at(i), random.states()[i]});
}

}  // namespace

std::int64_t CheckpointContent::bytes() const {
  std::int64_t total = 0;
  for (const CheckpointFile& file : files)
    for (const NamedParameter& p : file.tensors)
      total += static_cast<std::int64_t>(p.tensor.nbytes()) + 256;
  for (const auto& text : texts) total += static_cast<std::int64_t>(text.second.size());
  return total;
}

CheckpointContent take_content(const TrainState& state, LlavaModel& model, const RunningState* running,
                               const std::string& config_yaml, bool copy) {
  CheckpointContent content;
  content.step = state.global_step;
  const auto add = [&](const char* name, const std::vector<NamedParameter>& tensors) {
    CheckpointFile& file = content.files.emplace_back(CheckpointFile{name, {}});
    for (const NamedParameter& p : tensors) file.tensors.push_back({p.name, host_tensor(p.tensor, copy)});
  };
  std::vector<NamedParameter> weights;
  for (const NamedParameter& p : model.parameters())
    if ((is_lora_name(p.name) || state.touched.contains(p.name)) && !is_elsewhere(p.tensor))
      weights.push_back(p);
  add("weights.safetensors", weights);
  if (running != nullptr) {
    std::vector<NamedParameter> states = running->optimizer->state_tensors();
    add_random_state(RandomState(model.device()), states);
    add("optimizer.safetensors", states);
    if (!running->averages.empty()) add("ema.safetensors", running->averages);
  }
  OrderedJson json = to_fields(state);
  json["touched"] = state.touched;
  content.texts = {{"state.json", json.dump(1) + "\n"}, {"config.yaml", config_yaml}};
  return content;
}

fs::path write_checkpoint(const fs::path& output, const CheckpointContent& content,
                          const std::function<void(std::string_view)>& on_phase) {
  const fs::path target = output / fmt::format("checkpoint-{}", content.step);
  const fs::path building = output / fmt::format("tmp-checkpoint-{}", content.step);
  const auto phase = [&](std::string_view name) {
    if (on_phase) on_phase(name);
  };
  try {
    check_space(output, content.bytes());
    fs::remove_all(building);
    fs::create_directories(building);
    phase("files");
    for (const CheckpointFile& file : content.files) {
      TensorWriter writer;
      for (const NamedParameter& p : file.tensors) writer.add(p.name, p.tensor);
      writer.write(building / file.name);
    }
    for (const auto& [name, text] : content.texts) write_file_atomic(building / name, text);
    for (const fs::path& file : content.ready) fs::rename(file, building / file.filename());
    std::error_code not_empty;
    if (!content.ready.empty()) fs::remove(content.ready.front().parent_path(), not_empty);
    phase("manifest");
    write_manifest(building, content);
    sync_folder(building);
    phase("rename");
    put_in_place(building, target);
    sync_folder(output);
    return target;
  } catch (const std::exception& e) {
    std::error_code ignored;  // what was written in vain would only hold space
    fs::remove_all(building, ignored);
    const auto* error = dynamic_cast<const Error*>(&e);
    throw Error(ErrorKind::kResource, fmt::format("cannot save {}: {}", target.string(), e.what()),
                error != nullptr ? error->hint() : "");
  }
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

void load_tensors(const fs::path& folder, const std::string& name,
                  const std::vector<NamedParameter>& into) {
  const at::NoGradGuard no_grad;
  const std::shared_ptr<const TensorFile> file = open_safetensors(folder / name);
  for (const NamedParameter& p : into) {
    const TensorView* view = file->find(p.name);
    if (view == nullptr || view->shape != p.tensor.sizes().vec())
      fail(ErrorKind::kFormat, "{}: \"{}\" is missing or has another shape; was `train` or `lora` changed?",
           file->path().string(), p.name);
    at::Tensor target = p.tensor;
    target.copy_(to_tensor(*view, file));
  }
  if (file->tensors().size() != into.size())
    fail(ErrorKind::kFormat, "{}: holds {} tensors, the stage needs {}; was `train` changed?",
         file->path().string(), file->tensors().size(), into.size());
}

void load_optimizer(const fs::path& folder, Optimizer& optimizer, c10::Device device) {
  std::vector<NamedParameter> states = optimizer.state_tensors();
  const RandomState random(device);
  add_random_state(random, states);
  load_tensors(folder, "optimizer.safetensors", states);
  random.restore();
}

}  // namespace llava
