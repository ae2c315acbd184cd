#include "train/connector_init.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"

namespace llava {

namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// Multiplies weight and bias of the layer `name`.
void scale_layer(LlavaModel& model, const std::string& name, double factor) {
  for (NamedParameter& p : model.parameters()) {
    if (p.name != name + ".weight" && p.name != name + ".bias") continue;
    make_writable(p.tensor);
    p.tensor.mul_(factor);
  }
}

}  // namespace

bool needs_new_connector(const CheckpointInfo& checkpoint) {
  if (checkpoint.layout != Layout::kNano || !checkpoint.model.tower) return false;
  return std::none_of(checkpoint.weights.begin(), checkpoint.weights.end(), [](const WeightSource& source) {
    return source.part == WeightSource::Part::kConnector;
  });
}

at::Tensor token_embeddings(LlavaModel& model) {
  for (const NamedParameter& p : model.parameters())
    if (ends_with(p.name, "embed_tokens.weight")) return p.tensor;
  fail(ErrorKind::kInput, "the decoder has no token embeddings");
}

void match_embedding_scale(LlavaModel& model) {
  const ModelConfig& config = model.config();
  if (!config.connector.input_norm || config.connector.kind == ConnectorKind::kIdentity) return;
  const at::NoGradGuard no_grad;
  const double wanted = token_embeddings(model).to(at::kFloat).std().item<double>();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(1);
  const at::Tensor features =
      at::empty({4, config.tower->num_features(), config.connector.in_size}).normal_(0, 1, generator);
  const at::Tensor out = model.project(features).to(at::kFloat);
  const bool mlp = config.connector.kind == ConnectorKind::kMlp;
  const std::string last = mlp ? fmt::format("{}", 2 * (config.connector.depth - 1)) : "";
  const std::int64_t first_patch = config.connector.class_token ? 1 : 0;
  const double patches = out.slice(1, first_patch).std().item<double>();
  scale_layer(model, mlp ? "mm_projector." + last : "mm_projector", wanted / patches);
  if (config.connector.class_token)
    scale_layer(model, "mm_projector.class_token." + (mlp ? last : "0"),
                wanted / out.slice(1, 0, 1).std().item<double>());
  log_info("train", "the new connector's output is scaled from s.d. {:.3f} to the embeddings' {:.3f}",
           patches, wanted);
}

}  // namespace llava
