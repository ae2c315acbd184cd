#include "model_golden.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "checkpoint/checkpoint.h"
#include "formats/tensor_file.h"
#include "loader/weight_names.h"
#include "tensor/convert.h"
#include "vision/media_plan.h"

namespace llava::test {

Golden::Golden(const std::filesystem::path& safetensors) {
  const std::shared_ptr<const TensorFile> file = open_safetensors(safetensors);
  for (const TensorView& view : file->tensors()) tensors_[view.name] = to_tensor(view, file).clone();
  auto json = safetensors;
  json.replace_extension(".json");
  if (std::filesystem::exists(json)) info_ = read_json_file(json);
}

bool Golden::has(const std::string& name) const {
  return tensors_.contains(name) || (info_.contains("same_as") && info_["same_as"].contains(name));
}

at::Tensor Golden::at(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it != tensors_.end()) return it->second;
  return tensors_.at(info_.at("same_as").at(name).get<std::string>());
}

std::unique_ptr<LlavaModel> load_folder(const std::filesystem::path& folder, c10::ScalarType dtype) {
  LoadOptions options;
  options.dtype = dtype;
  return load_model(read_checkpoint(folder), options);
}

MultimodalBatch batch_of(const at::Tensor& ids, const at::Tensor& pixels, std::int64_t image_token) {
  return batch_of_rows({ids.flatten()}, pixels, image_token);
}

MultimodalBatch batch_of_rows(const std::vector<at::Tensor>& rows, const at::Tensor& pixels,
                              std::int64_t image_token) {
  std::int64_t longest = 0;
  std::vector<std::int64_t> lengths;
  for (const auto& row : rows) lengths.push_back(row.numel()), longest = std::max(longest, row.numel());
  MultimodalBatch batch;
  const auto n = static_cast<std::int64_t>(rows.size());
  batch.ids = at::zeros({n, longest}, at::kLong);
  for (std::int64_t b = 0; b < n; ++b)
    batch.ids[b]
        .narrow(0, 0, lengths[static_cast<std::size_t>(b)])
        .copy_(rows[static_cast<std::size_t>(b)]);
  batch.positions = at::arange(longest, at::kLong).expand({n, longest}).contiguous();
  batch.lengths = at::tensor(lengths, at::kLong);
  if (pixels.defined()) {
    batch.pixels = pixels;
    batch.media_rows = batch.ids.flatten().eq(image_token).nonzero().squeeze(1);
    batch.ids.masked_fill_(batch.ids.eq(image_token).logical_and(batch.ids.lt(0)), 0);
  }
  return batch;
}

double max_abs_diff(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.numel(), b.numel());
  if (a.numel() != b.numel()) return INFINITY;
  if (a.numel() == 0) return 0;
  const at::Tensor difference =
      (a.detach().to(at::kDouble).flatten() - b.detach().to(at::kDouble).flatten()).abs().max();
  return difference.item<double>();
}

at::Tensor full_logits(LlavaModel& model, const MultimodalBatch& batch, ForwardTrace* trace) {
  const at::NoGradGuard no_grad;
  const at::Tensor hidden = model.decode(model.embed(batch, trace), batch);
  if (trace != nullptr) trace->final_hidden = hidden;
  return model.logits(hidden);
}

Greedy greedy(LlavaModel& model, const MultimodalBatch& prompt, std::int64_t steps) {
  const c10::InferenceMode inference;
  const std::int64_t rows = prompt.ids.size(0);
  auto cache = model.make_cache(rows, prompt.ids.size(1) + steps + 1);
  const at::Tensor hidden = model.decode(model.embed(prompt), prompt, cache.get());
  const at::Tensor last = (prompt.lengths - 1).view({rows, 1, 1}).expand({rows, 1, hidden.size(2)});
  at::Tensor logits = model.logits(hidden.gather(1, last));  // [B,1,V]
  std::vector<at::Tensor> ids, all;
  MultimodalBatch step;
  step.lengths = at::ones({rows}, at::kLong);
  for (std::int64_t i = 0; i < steps; ++i) {
    all.push_back(logits);
    ids.push_back(logits.argmax(-1));
    step.ids = ids.back();
    step.positions = (prompt.lengths + i).unsqueeze(1);
    logits = model.logits(model.decode(model.embed(step), step, cache.get()));
  }
  return {at::cat(ids, 1), at::cat(all, 1)};
}

void expect_greedy_equal(const at::Tensor& found, const at::Tensor& golden, const at::Tensor& margin,
                         const std::string& what) {
  const at::Tensor f = found.flatten(), g = golden.flatten(), m = margin.flatten();
  for (std::int64_t i = 0; i < g.numel(); ++i) {
    if (m[i].item<float>() < 1e-3F) return;
    ASSERT_EQ(f[i].item<std::int64_t>(), g[i].item<std::int64_t>()) << what << " step " << i;
  }
}

std::string canonical_of_hf(const std::string& name) {
  return canonical_name(name, WeightSource::Part::kAll);
}

GoldenMedia media_of(const CheckpointInfo& checkpoint, const Golden& golden, const std::string& key) {
  GoldenMedia media;
  const bool video = golden.has(key + "/pixel_values_videos");
  const std::string pixels = key + (video ? "/pixel_values_videos" : "/pixel_values");
  if (!golden.has(pixels)) return media;
  const ModelConfig& model = checkpoint.model;
  const std::int64_t side = model.tower->input_size;
  media.token_id = video ? model.media.video_token_id : model.image_token_id;
  media.pixels = golden.at(pixels).reshape({-1, 3, side, side});
  if (video) {
    media.layouts = {
        plan_video({side, side}, golden.at(pixels).size(1), *checkpoint.image_policy, model).layout};
    return media;
  }
  std::vector<ImageSize> sizes;
  if (golden.has(key + "/image_sizes")) {
    const at::Tensor all = golden.at(key + "/image_sizes");  // (height, width)
    for (std::int64_t i = 0; i < all.size(0); ++i)
      sizes.push_back({all[i][1].item<std::int64_t>(), all[i][0].item<std::int64_t>()});
  } else if (golden.info().contains(key) && golden.info()[key].contains("image_size")) {
    const Json& size = golden.info()[key]["image_size"];
    sizes.push_back({size[0].get<std::int64_t>(), size[1].get<std::int64_t>()});
  }
  // [images, most views, 3, S, S], padded; a flat list of images makes each of them tiled, a nested one none
  const at::Tensor given = golden.at(pixels);
  const bool each_alone = given.dim() == 5 && given.size(1) > 1;
  std::vector<at::Tensor> views;
  for (const ImageSize& size : sizes) {
    media.layouts.push_back(plan_media(size, *checkpoint.image_policy, model, each_alone ? 1 : sizes.size()).layout);
    const auto i = static_cast<std::int64_t>(views.size());
    if (given.dim() == 5) views.push_back(given[i].narrow(0, 0, media.layouts.back().views));
  }
  if (!views.empty()) media.pixels = at::cat(views);
  return media;
}

MultimodalBatch batch_of(const at::Tensor& ids, const GoldenMedia& media) {
  MultimodalBatch batch = batch_of(ids, media.pixels, media.token_id);
  batch.media = media.layouts;
  return batch;
}

int expect_all_cases_match(LlavaModel& model, const CheckpointInfo& checkpoint, const Golden& golden) {
  int cases = 0;
  for (const auto& [key, info] : golden.info().items()) {
    if (!golden.has(key + "/input_ids") || !golden.has(key + "/logits")) continue;
    SCOPED_TRACE(key);
    expect_case_matches(model, checkpoint, golden, key);
    ++cases;
  }
  return cases;
}

void expect_case_matches(LlavaModel& model, const CheckpointInfo& checkpoint, const Golden& golden,
                         const std::string& key) {
  const auto name = [&](const char* part) { return key + "/" + part; };
  const GoldenMedia media = media_of(checkpoint, golden, key);
  at::Tensor ids = golden.at(name("input_ids")).flatten();
  const bool original = golden.has(name("image_features"));  // there one -200 stands for all features
  if (original) {
    const auto at_image = ids.eq(-200).nonzero().item<std::int64_t>();
    const std::int64_t n = golden.at(name("image_features")).size(0);
    ids = at::cat({ids.narrow(0, 0, at_image), at::full({n}, -200, at::kLong), ids.slice(0, at_image + 1)});
  }
  const MultimodalBatch batch = batch_of(ids, media);
  ForwardTrace trace;
  const at::Tensor logits = full_logits(model, batch, &trace);
  if (media.pixels.defined()) {
    EXPECT_LE(max_abs_diff(trace.vision_hidden, golden.at(name("vision_hidden"))), 5e-5);
    EXPECT_LE(max_abs_diff(trace.projected, golden.at(name("projected"))), 5e-5);
    EXPECT_LE(max_abs_diff(trace.inputs_embeds, golden.at(name("inputs_embeds"))), 5e-5);
  }
  if (original) {
    const at::Tensor spliced = trace.inputs_embeds.flatten(0, 1).index_select(0, batch.media_rows);
    EXPECT_LE(max_abs_diff(spliced, golden.at(name("image_features"))), 5e-5);
  }
  EXPECT_LE(max_abs_diff(trace.final_hidden, golden.at(name("final_hidden"))), 5e-5) << key;
  const at::Tensor picked = logits[0].index_select(0, golden.at(name("logits_pos")));
  const double difference = max_abs_diff(picked, golden.at(name("logits")));
  EXPECT_LE(difference, 2e-4) << key;
  testing::Test::RecordProperty("logits_" + std::to_string(std::hash<std::string>()(key) % 1000),
                                std::to_string(difference));
  const Greedy generated = greedy(model, batch, golden.at(name("greedy")).numel());
  expect_greedy_equal(generated.ids, golden.at(name("greedy")), golden.at(name("greedy_margin")), key);
}

void expect_gradients_match(LlavaModel& model, const Golden& golden, const std::string& key,
                            const Json& expected, const MultimodalBatch& batch) {
  std::map<std::string, at::Tensor> parameters;
  for (auto& p : model.parameters()) {
    p.tensor.requires_grad_(true);
    p.tensor.mutable_grad() = at::Tensor();
    parameters[p.name] = p.tensor;
  }
  const auto loss = model.loss(batch);
  const at::Tensor mean = loss.sum / loss.tokens;
  mean.backward();
  EXPECT_NEAR(mean.item<double>(), expected["loss"].get<double>(), 1e-5 * expected["loss"].get<double>())
      << key;
  const double total = expected["grad_norm"].get<double>();
  for (const auto& [hf_name, norm] : expected["grad_norms"].items()) {
    const auto found = parameters.find(canonical_of_hf(hf_name));
    ASSERT_NE(found, parameters.end()) << hf_name;
    ASSERT_TRUE(found->second.grad().defined()) << hf_name;
    EXPECT_NEAR(found->second.grad().norm().item<double>(), norm.get<double>(),
                1e-4 * norm.get<double>() + 1e-6 * total)
        << hf_name;
    const std::string stored = key + "/grad/" + hf_name;
    if (!golden.has(stored)) continue;
    const at::Tensor gradient = golden.at(stored);
    EXPECT_LE(max_abs_diff(found->second.grad(), gradient), 1e-4 * gradient.abs().max().item<double>())
        << stored;
  }
  for (auto& [name, tensor] : parameters) tensor.requires_grad_(false);
}

}  // namespace llava::test
