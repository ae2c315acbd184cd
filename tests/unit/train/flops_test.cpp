#include <ATen/record_function.h>
#include <torch/torch.h>

#include <atomic>

#include "model/fused_block.h"
#include "support/golden.h"
#include "tiny_run.h"
#include "train/metrics.h"

namespace llava {
namespace {

/// Operations of the matrix products and attentions that ATen runs, from their arguments' shapes.
class ProductCounter {
 public:
  ProductCounter() {
    total() = 0;
    handle_ = at::addGlobalCallback(at::RecordFunctionCallback(&ProductCounter::count)
                                        .needsInputs(true)
                                        .scopes({at::RecordScope::FUNCTION}));
  }
  ~ProductCounter() { at::removeCallback(handle_); }
  ProductCounter(const ProductCounter&) = delete;
  ProductCounter& operator=(const ProductCounter&) = delete;
  static std::atomic<double>& total() {
    static std::atomic<double> sum;
    return sum;
  }

 private:
  static std::unique_ptr<at::ObserverContext> count(const at::RecordFunction& function) {
    const std::string name = function.name();
    const auto inputs = function.inputs();
    const auto shape = [&](std::size_t i) { return inputs[i].toTensor().sizes().vec(); };
    const auto product = [&](std::size_t a, std::size_t b) {
      return 2.0 * static_cast<double>(inputs[a].toTensor().numel()) * static_cast<double>(shape(b).back());
    };
    double operations = 0;
    if (name == "aten::mm" || name == "aten::bmm") operations = product(0, 1);
    if (name == "aten::addmm" || name == "aten::addmm_" || name == "aten::baddbmm") operations = product(1, 2);
    const bool forward = name == "aten::_scaled_dot_product_flash_attention_for_cpu";
    const bool backward = name == "aten::_scaled_dot_product_flash_attention_for_cpu_backward";
    if (forward ||
        backward) {  // q [B,H,T,d], k [B,K,S,d]; the backward pass has one argument more before them
      const auto q = shape(forward ? 0 : 1), k = shape(forward ? 1 : 2);
      operations = (forward ? 4.0 : 8.0) * static_cast<double>(q[0] * q[1] * q[2] * q[3] * k[2]);
    }
    for (double sum = total(); operations > 0 && !total().compare_exchange_weak(sum, sum + operations);) {
    }
    return nullptr;
  }
  at::CallbackHandle handle_;
};

TEST(RecomputedFlops, AreTheForwardPassOfTheCheckpointedBlocks) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("hfu"));
  config.stages[0].max_steps = 1;
  const StepMetrics plain = test::run(config).steps[0];
  EXPECT_EQ(plain.hfu, plain.mfu);
  config.output = test::scratch_dir("hfu_again").string();
  config.stages[0].gradient_checkpointing = {1, true};
  const StepMetrics again = test::run(config).steps[0];
  EXPECT_EQ(again.model_flops, plain.model_flops) << "the model needs no more";
  // With a frozen decoder two passes (forward, input gradients) become three; the head and the connector do
  // not.
  EXPECT_GT(again.hfu / again.mfu, 1.3);
  EXPECT_LT(again.hfu / again.mfu, 1.5);
}

TEST(StepFlops, AreNearTheProductsThatRun) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  fused::set_blocks_enabled(false);  // ATen does not see the products within fused blocks
  for (const std::string part : {"all", "connector", "connector towards answers"}) {
    TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("flops"));
    StageConfig& stage = config.stages[0];
    stage.max_steps = 4;
    stage.batch_size = 1;  // without padding, which is no model's work
    if (part == "all") stage.train = {"^mm_projector\\.", "^language_model\\.", "^lm_head"};
    if (part == "connector towards answers") stage.objective = Objective::kAnswerEmbedding;
    TrainOptions options;
    std::unique_ptr<ProductCounter> counter;
    std::vector<std::pair<double, double>> compared;
    options.on_step = [&](const StepMetrics& metrics) {
      if (counter) compared.emplace_back(metrics.model_flops, ProductCounter::total().load());
      counter = std::make_unique<ProductCounter>();
    };
    Trainer(config, options).run();
    ASSERT_EQ(compared.size(), 3u);
    // The connector's biases, which are added, are a fiftieth of this toy's.
    const double near = stage.objective == Objective::kAnswerEmbedding ? 0.025 : 0.02;
    for (const auto& [predicted, counted] : compared)
      EXPECT_NEAR(predicted / counted, 1.0, near) << part << " " << predicted << " " << counted;
  }
  fused::set_blocks_enabled(true);
}

}  // namespace
}  // namespace llava
