#include "train/sharded_checkpoint.h"

#include <torch/torch.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/log.h"
#include "tensor/convert.h"
#include "train/random_state.h"
#include "train/slices.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr const char* kWhole = "optimizer.safetensors";
constexpr std::string_view kWeight = "weight/";

std::string rank_file_name(int rank, int world) {
  return fmt::format("optimizer-rank-{}-of-{}.safetensors", rank, world);
}

/// W of "optimizer-rank-R-of-W.safetensors"; 0 for other names.
int world_of(const std::string& name) {
  const std::size_t at = name.find("-of-");
  if (!name.starts_with("optimizer-rank-") || at == std::string::npos) return 0;
  int world = 0;
  std::from_chars(name.data() + at + 4, name.data() + name.size(), world);
  return world;
}

std::string random_name(std::size_t i) { return fmt::format("random_state/{}", i); }

/// A checkpoint's states, whichever number of ranks wrote them.
class StateFiles {
 public:
  explicit StateFiles(const fs::path& folder) : folder_(folder), world_(ranks_of_checkpoint(folder)) {
    if (fs::exists(folder / kWhole)) whole_ = open_safetensors(folder / kWhole);
    for (int r = 0; r < world_; ++r) ranks_.push_back(open_safetensors(folder / rank_file_name(r, world_)));
  }
  int world() const { return world_; }
  const TensorFile& rank(int r) const { return *ranks_[static_cast<std::size_t>(r)]; }
  at::Tensor own(int r, const std::string& name) const {
    const TensorView* view = rank(r).find(name);
    return view == nullptr ? at::Tensor() : to_tensor(*view, ranks_[static_cast<std::size_t>(r)]);
  }

  /// Fills `into`, the values of elements [begin, begin+length) of a tensor with `numel` elements; a state may
  /// have one value for a block of 256 of them, or one for all.
  void read(const std::string& name, at::Tensor into, std::int64_t numel, const Slice& slice) const {
    const bool single = into.dim() == 0;
    const std::int64_t per = single || into.numel() == slice.length ? 1 : kSliceGrain;
    at::Tensor flat = into.detach().view(-1);
    if (whole_) {
      if (const TensorView* view = whole_->find(name)) {
        const at::Tensor all = to_tensor(*view, whole_).reshape(-1);
        return copy(name, flat, 0, all, single ? 0 : slice.begin / per, flat.numel());
      }
    }
    bool found = false;
    for (int r = 0; r < world_; ++r) {
      const at::Tensor part = own(r, name);
      if (!part.defined()) continue;
      found = true;
      if (single) return copy(name, flat, 0, part.reshape(-1), 0, 1);
      const Slice theirs = slice_of(numel, world_, r);
      const std::int64_t begin = std::max(slice.begin, theirs.begin),
                         end = std::min(slice.begin + slice.length, theirs.begin + theirs.length);
      if (begin >= end) continue;
      copy(name, flat, (begin - slice.begin) / per, part.reshape(-1), (begin - theirs.begin) / per,
           (end - begin + per - 1) / per);
    }
    if (!found) missing(name);
  }

 private:
  [[noreturn]] void missing(const std::string& name) const {
    fail(ErrorKind::kFormat, "{}: \"{}\" is missing or has another shape; was `train`, `lora` or `optim` changed?",
         folder_.string(), name);
  }
  void copy(const std::string& name, const at::Tensor& into, std::int64_t at, const at::Tensor& from,
            std::int64_t begin, std::int64_t length) const {
    if (begin + length > from.numel() || at + length > into.numel()) missing(name);
    into.narrow(0, at, length).copy_(from.narrow(0, begin, length));
  }
  fs::path folder_;
  int world_;
  std::shared_ptr<const TensorFile> whole_;
  std::vector<std::shared_ptr<const TensorFile>> ranks_;
};

void load_states(const StateFiles& files, const std::map<std::string, std::int64_t>& sizes,
                 Optimizer& optimizer, bool cut, int rank, int world) {
  for (TrainedParameter& p : optimizer.parameters()) {
    const std::int64_t numel = sizes.at(p.name);
    const Slice slice = cut ? slice_of(numel, world, rank) : Slice{0, numel};
    if (p.copied()) files.read("master/" + p.name, p.master, numel, slice);
    for (auto& [key, tensor] : p.state) files.read(key + "/" + p.name, tensor, numel, slice);
  }
}

/// Weights that only the rank files hold: those that zero3 cut.
void load_layers(const StateFiles& files, LlavaModel& model, ParallelStage* parallel, int rank, int world) {
  std::set<std::string> saved;
  for (int r = 0; r < files.world(); ++r)
    for (const TensorView& view : files.rank(r).tensors())
      if (view.name.starts_with(kWeight)) saved.insert(view.name.substr(kWeight.size()));
  std::map<std::string, at::Tensor> shards;
  if (parallel != nullptr && parallel->layers() != nullptr)
    for (const NamedParameter& p : parallel->layers()->all_slices()) shards.emplace(p.name, p.tensor);
  for (NamedParameter& p : model.parameters()) {
    if (!saved.contains(p.name)) continue;
    const std::int64_t numel = p.tensor.numel();
    const bool is_cut = parallel != nullptr && parallel->layers() != nullptr && parallel->layers()->has(p.name);
    if (is_cut) {
      if (shards.contains(p.name))
        files.read(std::string(kWeight) + p.name, shards.at(p.name), numel, slice_of(numel, world, rank));
      continue;
    }
    if (!p.tensor.requires_grad()) make_writable(p.tensor);  // else the stage has done it
    files.read(std::string(kWeight) + p.name, p.tensor, numel, {0, numel});
  }
}

}  // namespace

std::vector<NamedParameter> rank_tensors(const ParallelStage& parallel, const Optimizer& optimizer,
                                         const std::set<std::string>& touched, c10::Device device) {
  std::vector<NamedParameter> tensors;
  const RandomState random(device);
  for (const at::Tensor& state : random.states()) tensors.push_back({random_name(tensors.size()), state});
  if (parallel.strategy() == ShardStrategy::kDdp) return tensors;
  for (NamedParameter& p : optimizer.state_tensors()) tensors.push_back(std::move(p));
  if (parallel.layers() != nullptr)
    for (const NamedParameter& p : parallel.layers()->all_slices())
      if (touched.contains(p.name)) tensors.push_back({std::string(kWeight) + p.name, p.tensor});
  return tensors;
}

fs::path write_rank_file(const fs::path& folder, int rank, int world,
                         const std::vector<NamedParameter>& tensors) {
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (failure) fail(ErrorKind::kResource, "cannot make {}: {}", folder.string(), failure.message());
  TensorWriter writer;
  for (const NamedParameter& p : tensors) writer.add(p.name, p.tensor.detach());
  writer.write(folder / rank_file_name(rank, world));
  return folder / rank_file_name(rank, world);
}

std::vector<fs::path> rank_files(const fs::path& folder, int world) {
  std::vector<fs::path> files;
  for (int r = 0; r < world; ++r) files.push_back(folder / rank_file_name(r, world));
  return files;
}

int ranks_of_checkpoint(const fs::path& folder) {
  int world = 0;
  for (const auto& entry : fs::directory_iterator(folder))
    world = std::max(world, world_of(entry.path().filename().string()));
  for (const fs::path& file : rank_files(folder, world))
    if (!fs::exists(file)) fail(ErrorKind::kFormat, "{}: is missing", file.string());
  return world;
}

void load_rank_files(const fs::path& folder, LlavaModel& model, const std::vector<NamedParameter>& trained,
                     Optimizer& optimizer, ParallelStage* parallel, int rank, int world) {
  const at::NoGradGuard no_grad;
  const StateFiles files(folder);
  std::map<std::string, std::int64_t> sizes;
  for (const NamedParameter& p : trained) sizes[p.name] = p.tensor.numel();
  load_layers(files, model, parallel, rank, world);
  const bool cut = parallel != nullptr && parallel->strategy() != ShardStrategy::kDdp;
  load_states(files, sizes, optimizer, cut, rank, world);
  if (files.world() != world) {
    log_warning("train", "{} was saved by {} processes and {} go on: dropout draws other numbers",
                folder.string(), std::max(files.world(), 1), world);
    return;
  }
  const RandomState random(model.device());
  for (std::size_t i = 0; i < random.states().size(); ++i) {
    const at::Tensor saved = files.own(rank, random_name(i));
    if (saved.defined()) at::Tensor(random.states()[i]).copy_(saved);
  }
  random.restore();
}

}  // namespace llava
