#include "train/reference_policy.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"
#include "formats/tensor_file.h"
#include "tensor/convert.h"
#include "train/stage_setup.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

bool pairs_are_new(const std::vector<NamedParameter>& trained) {
  return std::all_of(trained.begin(), trained.end(), [](const NamedParameter& p) {
    return p.name.find(".lora_B.") == std::string::npos ||
           p.tensor.count_nonzero().item<std::int64_t>() == 0;
  });
}

bool any_pair(const std::vector<NamedParameter>& parameters) {
  return std::any_of(parameters.begin(), parameters.end(),
                     [](const NamedParameter& p) { return is_lora_name(p.name); });
}

}  // namespace

ReferencePolicy::ReferencePolicy(LlavaModel& model, std::vector<NamedParameter> trained, fs::path file,
                                 bool resumed)
    : model_(model), file_(std::move(file)) {
  shares_tower_ = std::none_of(trained.begin(), trained.end(),
                               [](const auto& p) { return p.name.rfind("vision_tower.", 0) == 0; });
  const bool has_pairs = any_pair(trained);
  if (resumed) {
    // What the file lacks was not needed: pairs that began at zero.
    if (fs::exists(file_)) {
      read_file();
      const bool kept_pairs = std::any_of(first_.begin(), first_.end(),
                                          [](const auto& item) { return is_lora_name(item.first); });
      pairs_off_ = has_pairs && !kept_pairs;
    } else {
      pairs_off_ = has_pairs;
    }
  } else {
    pairs_off_ = has_pairs && pairs_are_new(trained);
  }
  if (pairs_off_) std::erase_if(trained, [](const NamedParameter& p) { return is_lora_name(p.name); });
  trained_ = std::move(trained);
  if (resumed) {
    for (const NamedParameter& p : trained_)
      if (!first_.contains(p.name))
        throw Error(
            ErrorKind::kInput,
            fmt::format("{}: the weights that the stage began with are needed as reference, but {} is "
                        "not there",
                        file_.string(), p.name),
            "start the stage again, or restore the file");
    return;
  }
  fs::remove(file_);
  if (trained_.empty()) return;
  TensorWriter writer;
  for (const NamedParameter& p : trained_) writer.add(p.name, p.tensor);
  writer.write(file_);
}

void ReferencePolicy::read_file() {
  const std::shared_ptr<const TensorFile> file = open_safetensors(file_);
  for (const NamedParameter& p : model_.parameters()) {
    const TensorView* view = file->find(p.name);
    if (view == nullptr) continue;
    const at::Tensor value = to_tensor(*view, file).to(p.tensor.options().requires_grad(false));
    if (value.sizes() != p.tensor.sizes())
      fail(ErrorKind::kFormat, "{}: {} has another shape than the model's", file_.string(), p.name);
    first_[p.name] = value;
  }
}

void ReferencePolicy::swap_in() {
  for (NamedParameter& p : trained_) {
    at::Tensor& other = first_.at(p.name);
    const at::Tensor present = p.tensor.detach();
    p.tensor.set_data(other);
    other = present;
  }
}

void ReferencePolicy::run(const std::function<void()>& pass) {
  const at::NoGradGuard no_grad;
  if (!trained_.empty() && first_.empty()) read_file();
  if (pairs_off_) model_.set_lora_enabled(false);
  swap_in();
  const auto restore = [&] {
    swap_in();
    if (pairs_off_) model_.set_lora_enabled(true);
  };
  try {
    pass();
  } catch (...) {
    restore();
    throw;
  }
  restore();
}

std::uint64_t ReferencePolicy::hash() {
  std::uint64_t hash = 0;
  run([&] {
    for (const NamedParameter& p : model_.parameters()) {
      if (pairs_off_ && is_lora_name(p.name)) continue;
      const at::Tensor t = p.tensor.detach().cpu().contiguous();
      hash = hash_text(p.name, hash);
      hash = hash_bytes({static_cast<const std::byte*>(t.data_ptr()), t.nbytes()}, hash);
    }
  });
  return hash;
}

}  // namespace llava
