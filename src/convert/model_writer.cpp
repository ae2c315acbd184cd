#include "convert/model_writer.h"

#include <torch/torch.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "convert/layout_config.h"
#include "loader/weight_names.h"
#include "loader/weight_source.h"
#include "model/build_model.h"
#include "tensor/convert.h"
#include "tensor/release_pages.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

using WeightPart = WeightSource::Part;

struct Output {
  std::string canonical;
  const TensorView* view = nullptr;
  std::shared_ptr<const TensorFile> file;
  TensorSpec spec;
};

bool is_vocabulary(const std::string& canonical) {
  return canonical == "language_model.embed_tokens.weight" || canonical == "lm_head.weight";
}

bool is_weight_of_tower(const std::string& canonical) { return canonical.starts_with("vision_tower."); }

/// Buffers and parts of other models that files may hold: no layout needs them.
bool is_left_out(const std::string& canonical, bool same) {
  if (same) return false;
  for (const char* end : {".position_ids", ".rotary_emb.inv_freq"})
    if (canonical.ends_with(end)) return true;
  for (const char* part : {"vision_tower.", "language_model.", "mm_projector.", "lm_head.", "image_newline"})
    if (canonical.starts_with(part)) return false;
  return true;
}

/// What a tensor of a separate file is called inside an original LLaVA checkpoint.
std::string inside_name(const std::string& stored, WeightPart part) {
  if (part == WeightPart::kVisionTower) return "model.vision_tower.vision_tower." + stored;
  if ((part == WeightPart::kConnector || part == WeightPart::kNonLora) && stored.rfind("model.", 0) != 0) {
    const std::size_t at = stored.find("mm_projector.");
    if (at != std::string::npos) return "model." + stored.substr(at);
  }
  return stored;
}

bool is_gguf_file(const TensorFile& file) {
  return file.metadata().is_object() && file.metadata().contains("general.architecture");
}

class WeightWriter {
 public:
  WeightWriter(const CheckpointInfo& base, const ModelWriting& writing)
      : base_(base), writing_(writing), opened_(open_weights(base, &weight_specs)) {
    for (const WeightSpec& spec : weight_specs(opened_.config)) known_[spec.name] = spec.shape;
  }

  /// Tensors that `keep` lets pass, under the names that `name` gives.
  std::vector<Output> list(const std::function<bool(const std::string&)>& keep,
                           const std::function<std::string(const std::string&, const std::string&, WeightPart)>& name);
  void write(const fs::path& folder, std::vector<Output> outputs) const;
  bool text_only() const { return !opened_.config.tower; }

 private:
  TensorSpec spec_of(std::string name, const std::string& canonical, const TensorView& view) const;
  at::Tensor stored(const Output& output, c10::ScalarType dtype) const;
  at::Tensor make(const Output& output) const;
  void write_shard(const fs::path& path, std::span<const Output> outputs) const;

  const CheckpointInfo& base_;
  const ModelWriting& writing_;
  mutable OpenedWeights opened_;
  std::map<std::string, std::vector<std::int64_t>> known_;
};

TensorSpec WeightWriter::spec_of(std::string name, const std::string& canonical, const TensorView& view) const {
  TensorSpec spec{std::move(name), view.dtype, view.shape};
  const c10::ScalarType type = scalar_type(view.dtype);
  spec.dtype = dtype_of(type);  // quantised blocks are written as float32
  if (c10::isFloatingType(type)) {
    if (writing_.dtype) {
      spec.dtype = dtype_of(*writing_.dtype);
    } else if (writing_.changed_dtype && writing_.changed.contains(canonical)) {
      spec.dtype = dtype_of(*writing_.changed_dtype);
    }
  }
  if (writing_.vocab_size > 0 && is_vocabulary(canonical)) spec.shape[0] = writing_.vocab_size;
  return spec;
}

std::vector<Output> WeightWriter::list(
    const std::function<bool(const std::string&)>& keep,
    const std::function<std::string(const std::string&, const std::string&, WeightPart)>& name) {
  std::vector<Output> outputs;
  std::set<std::string> seen;
  for (auto source = base_.weights.rbegin(); source != base_.weights.rend(); ++source) {  // later ones override
    const std::shared_ptr<const TensorFile> file =
        source->file ? source->file : std::shared_ptr<const TensorFile>(open_tensor_file(source->path));
    for (const TensorView& view : file->tensors()) {
      const std::string canonical =
          is_gguf_file(*file) ? canonical_gguf_name(view.name) : canonical_name(view.name, source->part);
      if (!keep(canonical) || !seen.insert(canonical).second) continue;
      outputs.push_back({canonical, &view, file, spec_of(name(canonical, view.name, source->part), canonical, view)});
    }
  }
  std::vector<std::string> lost;
  for (const std::string& changed : writing_.changed)
    if (keep(changed) && !seen.contains(changed)) lost.push_back(changed);
  if (!lost.empty())
    fail(ErrorKind::kInternal, "changed weights that the base's files do not hold: {}", fmt::join(lost, ", "));
  return outputs;
}

/// As the model would read it: differences summed, llama.cpp's row order undone.
at::Tensor WeightWriter::stored(const Output& output, c10::ScalarType dtype) const {
  if (!known_.contains(output.canonical)) return to_tensor(*output.view, output.file, dtype);
  LoadOptions options;
  options.dtype = dtype;
  return StoreReader(opened_, options).read(output.canonical, output.view->shape);
}

at::Tensor WeightWriter::make(const Output& output) const {
  const c10::ScalarType wanted = scalar_type(output.spec.dtype);
  at::Tensor tensor;
  if (writing_.changed.contains(output.canonical)) {
    tensor = writing_.change(output.canonical, [&] { return stored(output, c10::kFloat); });
  } else {
    tensor = stored(output, wanted);
  }
  const std::int64_t rows = output.spec.shape.empty() ? 0 : output.spec.shape[0];
  if (tensor.dim() == 2 && rows < tensor.size(0)) tensor = tensor.narrow(0, 0, rows);
  if (tensor.dim() == 2 && rows > tensor.size(0)) {
    const at::Tensor mean = tensor.to(at::kFloat).mean(0, true).to(tensor.scalar_type());
    tensor = at::cat({tensor, mean.expand({rows - tensor.size(0), tensor.size(1)})});
  }
  return tensor.detach().to(c10::kCPU, wanted).contiguous();
}

void WeightWriter::write_shard(const fs::path& path, std::span<const Output> outputs) const {
  std::vector<TensorSpec> specs;
  for (const Output& output : outputs) specs.push_back(output.spec);
  stream_safetensors(path, specs, {{"format", "pt"}}, [&](std::size_t index, const auto& sink) {
    const at::Tensor tensor = make(outputs[index]);
    LLAVA_ASSERT(tensor.sizes().vec() == outputs[index].spec.shape, "a changed weight keeps its shape");
    sink(std::as_bytes(std::span(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes())));
    release_pages(*outputs[index].view);
  });
}

void WeightWriter::write(const fs::path& folder, std::vector<Output> outputs) const {
  const at::NoGradGuard no_grad;
  const auto bytes_of_output = [](const Output& output) {
    std::int64_t count = 1;
    for (const std::int64_t size : output.spec.shape) count *= size;
    return static_cast<std::int64_t>(byte_size(output.spec.dtype, count));
  };
  std::sort(outputs.begin(), outputs.end(), [](const Output& a, const Output& b) { return a.spec.name < b.spec.name; });
  std::vector<std::size_t> starts = {0};
  std::int64_t total = 0, shard = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::int64_t bytes = bytes_of_output(outputs[i]);
    if (shard > 0 && shard + bytes > writing_.max_shard_bytes) {
      starts.push_back(i);
      shard = 0;
    }
    shard += bytes;
    total += bytes;
  }
  if (starts.size() == 1) return write_shard(folder / "model.safetensors", outputs);
  Json map = Json::object();
  const std::span<const Output> all(outputs);
  for (std::size_t s = 0; s < starts.size(); ++s) {
    const std::size_t end = s + 1 < starts.size() ? starts[s + 1] : outputs.size();
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, starts.size());
    write_shard(folder / name, all.subspan(starts[s], end - starts[s]));
    for (const Output& output : all.subspan(starts[s], end - starts[s])) map[output.spec.name] = name;
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  write_file_atomic(folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace

void write_weights(const fs::path& folder, const CheckpointInfo& base, const ModelWriting& writing) {
  WeightWriter writer(base, writing);
  const bool same = writing.target == TargetLayout::kSame;
  const bool text_only = writer.text_only();
  const auto keep = [&](const std::string& canonical) {
    return !is_left_out(canonical, same) && (writing.with_tower || !is_weight_of_tower(canonical));
  };
  writer.write(folder, writer.list(keep, [&](const std::string& canonical, const std::string& stored, WeightPart part) {
    return same ? inside_name(stored, part) : target_name(canonical, writing.target, text_only);
  }));
}

void write_tower(const fs::path& folder, const CheckpointInfo& base, const ModelWriting& writing) {
  ModelWriting alone = writing;
  std::erase_if(alone.changed, [](const std::string& name) { return !is_weight_of_tower(name); });
  WeightWriter writer(base, alone);
  const auto keep = [](const std::string& canonical) {
    return is_weight_of_tower(canonical) && !canonical.ends_with(".position_ids");
  };
  std::vector<Output> outputs =
      writer.list(keep, [](const std::string& canonical, const std::string&, WeightPart) {
        return "vision_model." + canonical.substr(std::string_view("vision_tower.").size());
      });
  const TowerConfig& tower = *base.model.tower;
  if (blocks_to_delete(tower) > 0) {
    const std::string blocks = "vision_model.encoder.layers.";
    const std::string last = fmt::format("{}{}.", blocks, tower.num_hidden_layers - 1);
    for (std::size_t i = 0, count = outputs.size(); i < count; ++i) {
      if (!outputs[i].spec.name.starts_with(last)) continue;
      outputs.push_back(outputs[i]);
      outputs.back().spec.name = fmt::format("{}{}.{}", blocks, tower.num_hidden_layers,
                                             outputs[i].spec.name.substr(last.size()));
    }
  }
  writer.write(folder, std::move(outputs));
}

}  // namespace llava
