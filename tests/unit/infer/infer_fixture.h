#pragma once
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>

#include "base/json.h"
#include "formats/tensor_file.h"
#include "infer/model_bundle.h"
#include "support/golden.h"

namespace llava::test {

/// A golden checkpoint with what HF computed on it.
struct GoldenModel {
  ModelBundle bundle;
  std::unique_ptr<TensorFile> expected;
  Json cases;

  explicit GoldenModel(const std::string& name) {
    OpenOptions options;
    options.model = find_golden("checkpoints/" + name)->string();
    options.dtype = "float32";
    options.device = "cpu";
    bundle = open_model(options);
    expected = open_safetensors(*find_golden("models/" + name + ".safetensors"));
    cases = read_json_file(*find_golden("models/" + name + ".json"));
  }
  std::vector<std::int64_t> ids(const std::string& name) const {
    const TensorView* view = expected->find(name);
    if (view == nullptr) throw std::runtime_error("golden has no " + name);
    std::vector<std::int64_t> values(static_cast<std::size_t>(view->num_elements()));
    std::memcpy(values.data(), view->bytes.data(), values.size() * sizeof(std::int64_t));
    return values;
  }
};

/// Null where the goldens are not here.
inline std::unique_ptr<GoldenModel> open_golden(const std::string& name) {
  if (!find_golden("checkpoints/" + name) || !find_golden("models/" + name + ".safetensors"))
    return nullptr;
  return std::make_unique<GoldenModel>(name);
}

inline std::string image_path(const std::string& name) { return find_golden("images/" + name)->string(); }

}  // namespace llava::test

#define LLAVA_MODEL_OR_SKIP(variable, name)               \
  const auto variable = ::llava::test::open_golden(name); \
  if (!variable) GTEST_SKIP() << "golden " << (name) << " is not here"
