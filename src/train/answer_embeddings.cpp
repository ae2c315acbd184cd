#include "train/answer_embeddings.h"

#include <torch/torch.h>

#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "prompt/prompt.h"
#include "train/connector_init.h"

namespace llava {

namespace {

at::Tensor unit(const at::Tensor& x) { return x / x.norm(2, -1, true).clamp_min(1e-12); }

}  // namespace

AnswerEmbeddings::AnswerEmbeddings(LlavaModel& model, const Dataset& dataset,
                                   const SamplePreparer& prepare) {
  const at::NoGradGuard no_grad;
  embeddings_ = token_embeddings(model).detach().to(at::kFloat);
  mean_ = embeddings_.mean(0);
  length_ = embeddings_.norm(2, 1).mean().item<double>();
  const std::size_t step = std::max<std::size_t>(1, dataset.size() / kMaxCounted);
  std::vector<std::pair<std::uint32_t, std::vector<std::int64_t>>> samples;
  Progress progress("counting words", static_cast<std::int64_t>(dataset.size()));
  for (std::size_t i = 0; i < dataset.size(); i += step) {
    progress.update(static_cast<std::int64_t>(i + 1));
    auto sample = try_outcome([&] { return prepare(i); });
    if (!sample) continue;
    const auto& labels = sample.value().prompt.labels;
    for (const std::int64_t token : std::set<std::int64_t>(labels.begin(), labels.end()))
      ++images_with_[token];
    samples.emplace_back(dataset.info(i).source, labels);
  }
  progress.finish();
  counted_ = static_cast<std::int64_t>(samples.size());
  std::vector<std::int64_t> counts(dataset.sources().size());
  std::vector<at::Tensor> sums(counts.size(), at::zeros_like(mean_));
  for (const auto& [source, labels] : samples) {
    sums[source] = sums[source] + unit(weighted_sum(labels));
    ++counts[source];
  }
  for (std::size_t s = 0; s < sums.size(); ++s)
    source_means_.push_back(sums[s] / static_cast<double>(std::max<std::int64_t>(1, counts[s])));
}

at::Tensor AnswerEmbeddings::weighted_sum(const std::vector<std::int64_t>& labels) const {
  std::map<std::int64_t, std::int64_t> times;
  for (const std::int64_t token : labels)
    if (token != kIgnoreIndex) ++times[token];
  std::vector<std::int64_t> tokens;
  std::vector<float> weights;
  for (const auto& [token, count] : times) {
    const auto seen = images_with_.find(token);
    if (seen == images_with_.end() || seen->second < 2)
      continue;  // a token of one image is nothing to learn
    tokens.push_back(token);
    weights.push_back(
        static_cast<float>(std::sqrt(static_cast<double>(count)) *
                           std::log(static_cast<double>(counted_) / static_cast<double>(seen->second))));
  }
  if (tokens.empty()) return at::zeros_like(mean_);
  const at::Tensor rows =
      embeddings_.index_select(0, torch::tensor(tokens).to(embeddings_.device())) - mean_;
  return torch::tensor(weights).to(embeddings_.device()).matmul(rows);
}

at::Tensor AnswerEmbeddings::direction(const std::vector<std::int64_t>& labels,
                                       std::uint32_t source) const {
  const at::NoGradGuard no_grad;
  const at::Tensor sum = unit(weighted_sum(labels));
  return unit(sum - source_means_.at(source));
}

at::Tensor AnswerEmbeddings::centred(const at::Tensor& outputs) const {
  return (outputs.to(at::kFloat) - mean_.to(outputs.device())) / length_;
}

}  // namespace llava
