#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "loader/load_model.h"
#include "model/kv_cache.h"

/// Reads the goldens of reference/README.md and runs the model on their inputs.
namespace llava::test {

/// models/<name>.safetensors and .json: tensors "<case>/<name>".
class Golden {
 public:
  explicit Golden(const std::filesystem::path& safetensors);
  /// The tensor, followed through the JSON's "same_as".
  at::Tensor at(const std::string& name) const;
  bool has(const std::string& name) const;
  const Json& info() const { return info_; }

 private:
  std::map<std::string, at::Tensor> tensors_;
  Json info_;
};

std::unique_ptr<LlavaModel> load_folder(const std::filesystem::path& folder,
                                        c10::ScalarType dtype = c10::kFloat);

/// What a case shows the tower: pixels [M,3,S,S], the way from views to prompt rows, planned from the images'
/// sizes, and the id of the media's places. All empty for a text case.
struct GoldenMedia {
  at::Tensor pixels;
  std::vector<MediaLayout> layouts;
  std::int64_t token_id = -1;
};
GoldenMedia media_of(const CheckpointInfo& checkpoint, const Golden& golden, const std::string& key);

/// One unpadded prompt: ids [T] or [1,T]; pixels may be undefined; media rows are where ids equal
/// `image_token`.
MultimodalBatch batch_of(const at::Tensor& ids, const at::Tensor& pixels, std::int64_t image_token);
MultimodalBatch batch_of(const at::Tensor& ids, const GoldenMedia& media);
/// Right-padded rows, media in row order.
MultimodalBatch batch_of_rows(const std::vector<at::Tensor>& rows, const at::Tensor& pixels,
                              std::int64_t image_token);

double max_abs_diff(const at::Tensor& a, const at::Tensor& b);
/// Logits [B,T,V] of a full forward pass without cache.
at::Tensor full_logits(LlavaModel& model, const MultimodalBatch& batch, ForwardTrace* trace = nullptr);

/// Greedy continuation by cached decoding: ids [B,steps] and the logits that chose them [B,steps,V].
struct Greedy {
  at::Tensor ids, logits;
};
Greedy greedy(LlavaModel& model, const MultimodalBatch& prompt, std::int64_t steps);

/// Equal up to the first step whose golden margin is below 1e-3.
void expect_greedy_equal(const at::Tensor& found, const at::Tensor& golden, const at::Tensor& margin,
                         const std::string& what);

/// A Hugging Face (>= 4.52) parameter name as ours.
std::string canonical_of_hf(const std::string& name);

/// Whole VLM or text case against the golden: traces, logits, greedy.
void expect_case_matches(LlavaModel& model, const CheckpointInfo& checkpoint, const Golden& golden,
                         const std::string& key);
/// The same for every case of a golden; returns how many there are.
int expect_all_cases_match(LlavaModel& model, const CheckpointInfo& checkpoint, const Golden& golden);
/// Loss, stored gradients and every gradient norm of a training case.
void expect_gradients_match(LlavaModel& model, const Golden& golden, const std::string& key,
                            const Json& expected, const MultimodalBatch& batch);

}  // namespace llava::test
