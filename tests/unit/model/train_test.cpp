// Loss, gradients and LoRA on toy models.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <deque>

#include "base/error.h"
#include "config/branch.h"
#include "model/ops.h"
#include "model_golden.h"
#include "toy_model.h"

namespace llava::test {
namespace {

MultimodalBatch training_batch() {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{7});
  const at::Tensor pixels = at::randn({1, 3, 28, 28}, generator);
  const at::Tensor first =
      at::cat({at::full(4, 79, at::kLong), at::randint(0, 70, {9}, generator, at::kLong)});
  MultimodalBatch batch = batch_of_rows({first, at::randint(0, 70, {6}, generator, at::kLong)}, pixels, 79);
  batch.labels = batch.ids.clone();
  batch.labels.slice(1, 0, 5).fill_(-100);
  batch.labels[1].slice(0, 6).fill_(-100);
  return batch;
}

std::map<std::string, at::Tensor> gradients(LlavaModel& model, const at::Tensor& loss) {
  std::map<std::string, at::Tensor> found;
  for (auto& p : model.parameters()) p.tensor.mutable_grad() = at::Tensor();
  loss.backward();
  for (auto& p : model.parameters())
    if (p.tensor.grad().defined()) found[p.name] = p.tensor.grad().clone();
  return found;
}

void require_all_grads(LlavaModel& model) {
  for (auto& p : model.parameters()) p.tensor.requires_grad_(true);
}

TEST(Loss, EqualsCrossEntropyOverFullLogitsWithItsGradients) {
  for (const bool tied : {false, true}) {
    ModelConfig config = toy_config();
    config.decoder.tie_word_embeddings = tied;
    const auto model = toy_model(config);
    require_all_grads(*model);
    const MultimodalBatch batch = training_batch();
    const auto loss = model->loss(batch);
    EXPECT_EQ(loss.tokens, 8 + 1);
    const auto found = gradients(*model, loss.sum);
    const at::Tensor logits = model->logits(model->decode(model->embed(batch), batch));
    const at::Tensor expected =
        at::cross_entropy_loss(logits.slice(1, 0, -1).flatten(0, 1), batch.labels.slice(1, 1).flatten(), {},
                               at::Reduction::Sum, -100);
    EXPECT_NEAR(loss.sum.item<double>(), expected.item<double>(), 1e-4);
    for (const auto& [name, gradient] : gradients(*model, expected)) {
      ASSERT_TRUE(found.contains(name)) << name;
      EXPECT_LE(max_abs_diff(found.at(name), gradient), 1e-5 * (1 + gradient.abs().max().item<double>()))
          << name;
    }
  }
}

TEST(Loss, WithoutSupervisedTokensIsZeroAndStillDifferentiable) {
  const auto model = toy_model(toy_config());
  require_all_grads(*model);
  MultimodalBatch batch = training_batch();
  batch.labels.fill_(-100);
  const auto loss = model->loss(batch);
  EXPECT_EQ(loss.tokens, 0);
  EXPECT_EQ(loss.sum.item<double>(), 0.0);
  EXPECT_NO_THROW(loss.sum.backward());
}

TEST(Loss, FromCachedFeaturesEqualsLossFromPixels) {
  const auto model = toy_model(toy_config());
  MultimodalBatch batch = training_batch();
  const auto from_pixels = model->loss(batch);
  batch.features = model->encode_vision(batch.pixels);
  batch.pixels = at::Tensor();
  EXPECT_EQ(model->loss(batch).sum.item<float>(), from_pixels.sum.item<float>());
}

TEST(LinearCrossEntropy, DoesNotDependOnTheChunk) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{5});
  const at::Tensor head = at::randn({50, 16}, generator).requires_grad_(true);
  const at::Tensor targets = at::randint(0, 50, {33}, generator, at::kLong);
  const at::Tensor hidden = at::randn({33, 16}, generator).requires_grad_(true);
  const at::Tensor expected =
      at::cross_entropy_loss(at::linear(hidden, head), targets, {}, at::Reduction::Sum);
  const auto wanted = torch::autograd::grad({expected}, {hidden, head});
  for (const std::int64_t chunk : {1, 7, 33, 100}) {
    const at::Tensor sum = linear_cross_entropy(hidden, head, targets, chunk);
    const auto found = torch::autograd::grad({sum * 0.5}, {hidden, head});
    EXPECT_NEAR(sum.item<double>(), expected.item<double>(), 1e-4);
    EXPECT_LE(max_abs_diff(found[0] * 2, wanted[0]), 1e-5);
    EXPECT_LE(max_abs_diff(found[1] * 2, wanted[1]), 1e-5);
  }
}

/// Runs a block without keeping its activations and again, with them, when the gradient is asked for.
struct Recompute : torch::autograd::Function<Recompute> {
  using Block = std::function<at::Tensor(const at::Tensor&)>;
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const Block* block) {
    context->save_for_backward({x});
    context->saved_data["block"] = reinterpret_cast<std::int64_t>(block);
    const at::NoGradGuard no_grad;
    return (*block)(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto* block = reinterpret_cast<const Block*>(context->saved_data["block"].toInt());
    const at::Tensor x = context->get_saved_variables()[0].detach().requires_grad_(true);
    const at::AutoGradMode with_grad(true);
    (*block)(x).backward(grads[0]);
    return {x.grad(), at::Tensor()};
  }
};

TEST(LayerRunner, RecomputingBlocksGivesTheSameGradients) {
  const auto model = toy_model(toy_config());
  require_all_grads(*model);
  const MultimodalBatch batch = training_batch();
  const auto expected = gradients(*model, model->loss(batch).sum);
  std::deque<Recompute::Block> blocks;
  model->set_layer_runner([&](int layer, const auto& block, const at::Tensor& x) {
    EXPECT_EQ(layer, static_cast<int>(blocks.size()));
    blocks.push_back(block);
    return Recompute::apply(x, &blocks.back());
  });
  const auto found = gradients(*model, model->loss(batch).sum);
  EXPECT_EQ(blocks.size(), 3U);
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, gradient] : expected) EXPECT_TRUE(at::equal(found.at(name), gradient)) << name;
}

/// A training row that is a tree: ids, rotary positions, branches, and which of its tokens make up each
/// path.
struct Tree {
  std::vector<std::int64_t> ids, positions;
  std::vector<std::int32_t> branch;
  std::vector<std::vector<std::int64_t>> paths;
};

/// Adds `length` tokens of a branch that stands behind `before`, and returns that path with them.
std::vector<std::int64_t> grow(Tree& tree, const std::vector<std::int64_t>& before, std::int32_t branch,
                               std::int64_t length) {
  std::vector<std::int64_t> path = before;
  for (std::int64_t i = 0; i < length; ++i) {
    tree.positions.push_back(static_cast<std::int64_t>(path.size()));
    path.push_back(static_cast<std::int64_t>(tree.ids.size()));
    tree.ids.push_back(static_cast<std::int64_t>(tree.ids.size() * 13 % 70));
    tree.branch.push_back(branch);
  }
  return path;
}

/// An image of 4 tokens and 3 of text; a question with two answers, and a pair of its own.
Tree question_tree() {
  Tree tree;
  const auto prefix = grow(tree, {}, branch_id(0, 0), 7);
  std::fill_n(tree.ids.begin(), 4, 79);
  const auto question = grow(tree, prefix, branch_id(1, 0), 4);
  tree.paths.push_back(grow(tree, question, branch_id(1, 1), 5));
  tree.paths.push_back(grow(tree, question, branch_id(1, 2), 3));
  tree.paths.push_back(grow(tree, prefix, branch_id(2, 0), 6));
  return tree;
}

TEST(Branches, EveryPathThroughATreeEqualsARowOfItsOwn) {
  const auto model = toy_model(toy_config());
  const at::NoGradGuard no_grad;
  const Tree tree = question_tree();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{9});
  const at::Tensor pixels = at::randn({1, 3, 28, 28}, generator);
  const at::Tensor text = at::randint(0, 70, {9}, generator, at::kLong);
  MultimodalBatch batch = batch_of_rows({at::tensor(tree.ids), text}, pixels, 79);
  const auto width = static_cast<std::int64_t>(tree.ids.size());
  batch.positions[0].copy_(at::tensor(tree.positions));
  batch.branch = at::zeros({2, width}, at::kInt);
  batch.branch[0].copy_(at::tensor(tree.branch));
  const at::Tensor hidden = model->decode(model->embed(batch), batch);
  const auto alone = [&](const at::Tensor& ids, const at::Tensor& image) {
    const MultimodalBatch row = batch_of_rows({ids}, image, 79);
    return model->decode(model->embed(row), row)[0];
  };
  for (const auto& path : tree.paths) {
    const at::Tensor tokens = at::tensor(path);
    EXPECT_LE(max_abs_diff(hidden[0].index_select(0, tokens),
                           alone(batch.ids[0].index_select(0, tokens), pixels)),
              1e-5);
  }
  EXPECT_LE(max_abs_diff(hidden[1].slice(0, 0, 9), alone(text, {})), 1e-5);
}

TEST(Branches, LossIsTheSumOfThePathsAndAFirstTokenIsNeverLearnt) {
  const auto model = toy_model(toy_config());
  const at::NoGradGuard no_grad;
  const Tree tree = question_tree();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{9});
  const at::Tensor pixels = at::randn({1, 3, 28, 28}, generator);
  MultimodalBatch batch = batch_of_rows({at::tensor(tree.ids)}, pixels, 79);
  batch.positions[0].copy_(at::tensor(tree.positions));
  batch.branch = at::tensor(tree.branch).unsqueeze(0);
  batch.labels = at::full_like(batch.ids, -100);
  double expected = 0;
  for (const auto& path : tree.paths) {
    const at::Tensor tokens = at::tensor(path);
    MultimodalBatch row = batch_of_rows({batch.ids[0].index_select(0, tokens)}, pixels, 79);
    row.labels = at::full_like(row.ids, -100);
    row.labels.slice(1, -2).copy_(row.ids.slice(1, -2));
    batch.labels.index_put_({at::tensor(0), tokens.slice(0, -2)}, row.ids[0].slice(0, -2));
    expected += model->loss(row).sum.item<double>();
  }
  const auto loss = model->loss(batch);
  EXPECT_EQ(loss.tokens, 6);
  EXPECT_NEAR(loss.sum.item<double>(), expected, 1e-4);
  batch.labels[0][11] =
      1;  // the first token of an answer: what predicts it is the question, not the row before
  EXPECT_THROW(model->loss(batch), Error);
}

TEST(Lora, StartsAsTheBaseModelAndMergesIntoTheSameFunction) {
  const auto model = toy_model(toy_config());
  const MultimodalBatch batch = training_batch();
  const at::Tensor before = full_logits(*model, batch);
  const std::size_t plain = model->parameters().size();
  LoraConfig lora;
  lora.r = 4, lora.lora_alpha = 6, lora.target = "language_model.*(q|v)_proj$|vision_tower.*fc1$";
  const auto names = model->add_lora(lora);
  EXPECT_EQ(names.size(), 3U * 2 + 2);
  EXPECT_EQ(model->parameters().size(), plain + 2 * names.size());
  EXPECT_TRUE(at::equal(full_logits(*model, batch), before));
  const at::NoGradGuard no_grad;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{3});
  for (auto& p : model->parameters())
    if (p.name.ends_with(".lora_B.weight")) p.tensor.normal_(0, 0.2, generator);
  const at::Tensor adapted = full_logits(*model, batch);
  EXPECT_GT(max_abs_diff(adapted, before), 1e-2);
  model->merge_lora();
  EXPECT_EQ(model->parameters().size(), plain);
  EXPECT_LE(max_abs_diff(full_logits(*model, batch), adapted), 2e-5);
}

TEST(Lora, SwitchedOffIsTheBaseModelAndOnAgainTheAdaptedOne) {
  const auto model = toy_model(toy_config());
  const MultimodalBatch batch = training_batch();
  const at::NoGradGuard no_grad;
  const at::Tensor before = full_logits(*model, batch);
  LoraConfig lora;
  lora.r = 4, lora.target = "language_model.*_proj$";
  model->add_lora(lora);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{3});
  for (auto& p : model->parameters())
    if (p.name.ends_with(".lora_B.weight")) p.tensor.normal_(0, 0.2, generator);
  const std::size_t all = model->parameters().size();
  const at::Tensor adapted = full_logits(*model, batch);
  model->set_lora_enabled(false);
  EXPECT_TRUE(at::equal(full_logits(*model, batch), before));
  EXPECT_EQ(model->parameters().size(), all);
  model->set_lora_enabled(true);
  EXPECT_TRUE(at::equal(full_logits(*model, batch), adapted));
}

TEST(Lora, DrawsAAsPeftDoesAndDependsOnItsSeedOnly) {
  LoraConfig lora;
  lora.r = 8, lora.target = "q_proj", lora.seed = 11;
  const auto one = toy_model(toy_config(), 1), two = toy_model(toy_config(), 2);
  one->add_lora(lora), two->add_lora(lora);
  const auto a = one->parameters(), b = two->parameters();
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].name.ends_with("lora_A.weight")) {
      EXPECT_TRUE(at::equal(a[i].tensor, b[i].tensor)) << a[i].name;
      const double bound = 1.0 / std::sqrt(static_cast<double>(a[i].tensor.size(1)));
      EXPECT_LE(a[i].tensor.abs().max().item<double>(), bound);
      EXPECT_NEAR(a[i].tensor.std().item<double>(), bound / std::sqrt(3.0), 0.1 * bound);
    }
    if (a[i].name.ends_with("lora_B.weight")) {
      EXPECT_EQ(a[i].tensor.abs().max().item<double>(), 0.0);
    }
  }
}

TEST(Lora, RefusesBadTargetsAndRanks) {
  const auto model = toy_model(toy_config());
  LoraConfig lora;
  lora.target = "no_such_module";
  EXPECT_THROW(model->add_lora(lora), Error);
  lora.target = "(";
  EXPECT_THROW(model->add_lora(lora), Error);
  lora.target = "q_proj", lora.r = 0;
  EXPECT_THROW(model->add_lora(lora), Error);
}

TEST(Parameters, ChangedInPlaceChangeTheModel) {
  const auto model = toy_model(toy_config());
  const MultimodalBatch batch = training_batch();
  const at::Tensor before = full_logits(*model, batch);
  const at::NoGradGuard no_grad;
  for (auto& p : model->parameters())
    if (p.name == "mm_projector.2.weight") make_writable(p.tensor), p.tensor.mul_(2);
  EXPECT_GT(max_abs_diff(full_logits(*model, batch), before), 1e-3);
}

TEST(TokenLogProbs, EqualLogSoftmaxOfFullLogitsWithGradientsOfAnyWeights) {
  for (const bool tied : {false, true})
    for (const double temperature : {1.0, 0.7}) {
      ModelConfig config = toy_config();
      config.decoder.tie_word_embeddings = tied;
      const auto model = toy_model(config);
      require_all_grads(*model);
      const MultimodalBatch batch = training_batch();
      const auto ours = model->log_probs(batch, temperature);
      EXPECT_EQ(ours.values.size(0), 8 + 1);
      EXPECT_EQ(ours.rows.eq(0).sum().item<std::int64_t>(), 8);
      const at::Tensor weights = at::linspace(-1, 2, 9);
      const auto found = gradients(*model, (ours.values * weights).sum());
      const at::Tensor logits = model->logits(model->decode(model->embed(batch), batch)).slice(1, 0, -1);
      const at::Tensor next = batch.labels.slice(1, 1), kept = next.ne(-100);
      const at::Tensor expected = at::log_softmax(logits / temperature, -1)
                                      .gather(2, next.clamp_min(0).unsqueeze(2))
                                      .squeeze(2)
                                      .masked_select(kept);
      EXPECT_LE(max_abs_diff(ours.values, expected), 1e-5);
      for (const auto& [name, gradient] : gradients(*model, (expected * weights).sum())) {
        ASSERT_TRUE(found.contains(name)) << name;
        EXPECT_LE(max_abs_diff(found.at(name), gradient), 1e-5 * (1 + gradient.abs().max().item<double>()))
            << name;
      }
    }
}

TEST(TokenLogProbs, ChunksDoNotMatterAndAFrozenHeadGetsNoGradient) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{3});
  const at::Tensor head = at::randn({50, 8}, generator), targets = at::randint(0, 50, {23}, generator, at::kLong);
  const at::Tensor start = at::randn({23, 8}, generator), weights = at::randn({23}, generator);
  std::vector<at::Tensor> values, slopes;
  for (const std::int64_t chunk : {1, 7, 64}) {
    const at::Tensor hidden = start.clone().requires_grad_(true);
    values.push_back(linear_log_probs(hidden, head, targets, 1.0, chunk));
    (values.back() * weights).sum().backward();
    slopes.push_back(hidden.grad());
  }
  for (std::size_t i = 1; i < values.size(); ++i) {
    EXPECT_LE(max_abs_diff(values[0], values[i]), 1e-6);
    EXPECT_LE(max_abs_diff(slopes[0], slopes[i]), 1e-6);
  }
  EXPECT_FALSE(head.grad().defined());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(linear_log_probs(start, head, targets, 1.0, 7).requires_grad());
}

}  // namespace
}  // namespace llava::test
