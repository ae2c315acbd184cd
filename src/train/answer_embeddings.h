#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "data/prepare.h"
#include "model/llava_model.h"

namespace llava {

/// Where the connector's outputs should lie so that the decoder reads them as words of the answers, without
/// a decoder pass: the token embeddings of an image's answers, weighted by how rarely images share a token
/// (tf-idf), less their mean, less the mean of the image's data source (else "a photo with captions" drowns
/// what the photo shows).
class AnswerEmbeddings {
 public:
  /// Counts tokens over the data set: at most kMaxCounted samples, evenly spread; unusable ones are passed
  /// over.
  AnswerEmbeddings(LlavaModel& model, const Dataset& dataset, const SamplePreparer& prepare);
  static constexpr std::size_t kMaxCounted = 20000;

  /// Unit direction [D] of a sample's labelled tokens; zeros if they say nothing that others do not.
  at::Tensor direction(const std::vector<std::int64_t>& labels, std::uint32_t source) const;
  /// Connector outputs [n,D] as directions times length: 1 is the mean length of token embeddings.
  at::Tensor centred(const at::Tensor& outputs) const;

 private:
  at::Tensor weighted_sum(const std::vector<std::int64_t>& labels) const;

  at::Tensor embeddings_;  ///< [V,D] float32, the model's own or a copy
  at::Tensor mean_;        ///< [D]
  double length_ = 1;
  std::int64_t counted_ = 0;
  std::unordered_map<std::int64_t, std::int64_t> images_with_;  ///< by token
  std::vector<at::Tensor> source_means_;
};

}  // namespace llava
