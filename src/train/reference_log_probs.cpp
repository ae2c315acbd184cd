#include "train/reference_log_probs.h"

#include <torch/torch.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "formats/tensor_file.h"
#include "tensor/convert.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr const char* kTensor = "ref_log_probs";

}  // namespace

ReferenceLogProbs::ReferenceLogProbs(fs::path file, std::string key, std::size_t num_samples)
    : file_(std::move(file)),
      key_(std::move(key)),
      values_(2 * num_samples, std::numeric_limits<float>::quiet_NaN()) {
  if (!fs::exists(file_)) return;
  const std::shared_ptr<const TensorFile> tensors = open_safetensors(file_);
  const TensorView* view = tensors->find(kTensor);
  if (view == nullptr) fail(ErrorKind::kFormat, "{}: has no tensor {}", file_.string(), kTensor);
  if (tensors->metadata().value("key", "") != key_)
    throw Error(
        ErrorKind::kInput,
        fmt::format("{}: was made for other data, another tokenisation or other weights", file_.string()),
        "remove it to compute it again, or name another file with ref_log_probs_path");
  const at::Tensor values = to_tensor(*view, tensors).contiguous();
  if (values.scalar_type() != at::kFloat || values.numel() != static_cast<std::int64_t>(values_.size()))
    fail(ErrorKind::kFormat, "{}: {} has another size than the data", file_.string(), kTensor);
  std::copy_n(values.data_ptr<float>(), values_.size(), values_.begin());
  complete_ = true;
}

bool ReferenceLogProbs::has(std::size_t sample) const {
  return !std::isnan(values_.at(2 * sample)) && !std::isnan(values_.at(2 * sample + 1));
}

void ReferenceLogProbs::set(std::size_t sample, float first, float second) {
  values_.at(2 * sample) = first;
  values_.at(2 * sample + 1) = second;
}

void ReferenceLogProbs::finish() {
  TensorWriter writer;
  writer.add(kTensor, at::tensor(values_).view({-1, 2}));
  writer.set_metadata({{"key", key_}});
  if (file_.has_parent_path()) fs::create_directories(file_.parent_path());
  writer.write(file_);
  complete_ = true;
}

std::string data_key(const Dataset& dataset, const StageConfig& config) {
  std::uint64_t hash = hash_text(fmt::format(
      "{} {} {} {} {}", dataset.size(), static_cast<int>(config.objective),
      config.chat_template.value_or("-"), static_cast<int>(config.tokenisation), config.max_length));
  for (const DataSourceConfig& source : dataset.sources()) {
    hash = hash_text(fmt::format("{} {}", source.limit, source.image_root), hash);
    if (!fs::is_regular_file(source.path)) {
      hash = hash_text(source.path, hash);
      continue;
    }
    const MappedFile file(source.path);
    hash = hash_bytes(file.bytes(), hash);
  }
  return fmt::format("{:016x}", hash);
}

}  // namespace llava
