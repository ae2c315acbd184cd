// Packed matrices against bytes that bitsandbytes 0.50.2 wrote (tools/reference/make_qlora_golden.py).
#include "tensor/nf4.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <map>
#include <set>

#include "base/json.h"
#include "support/golden.h"
#include "tensor/convert.h"

namespace llava {
namespace {

struct Nf4Golden {
  std::shared_ptr<const TensorFile> file;
  at::Tensor at(const std::string& name) const {
    const TensorView* view = file->find(name);
    if (view == nullptr) throw std::runtime_error("golden tensor missing: " + name);
    return to_tensor(*view, file);
  }
  std::set<std::string> cases() const {
    std::set<std::string> names;
    for (const TensorView& view : file->tensors())
      if (view.name.ends_with("/plain/weight")) names.insert(view.name.substr(0, view.name.find('/')));
    return names;
  }
};

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         at::equal(a.contiguous().view(at::kByte), b.contiguous().view(at::kByte));
}

Json facts_of(const at::Tensor& bytes) {
  const auto* text = static_cast<const char*>(bytes.const_data_ptr());
  return Json::parse(text, text + bytes.numel());
}

TEST(Nf4, BytesAndScalesEqualBitsandbytes) {
  LLAVA_GOLDEN_OR_SKIP(path, "qlora/bytes.safetensors");
  const Nf4Golden golden{open_safetensors(path)};
  ASSERT_EQ(golden.cases().size(), 13U);
  for (const std::string& name : golden.cases())
    for (const bool nested : {false, true}) {
      const std::string prefix = name + (nested ? "/double/" : "/plain/");
      const Nf4Matrix matrix = quantise_nf4(golden.at(name + "/weight"), nested);
      std::size_t compared = 0;
      for (const auto& [key, tensor] : nf4_state(matrix, "weight")) {
        if (key.ends_with("quant_map")) continue;
        const at::Tensor wanted = golden.at(prefix + key);
        ++compared;
        if (key.ends_with("bitsandbytes__nf4")) {
          EXPECT_EQ(facts_of(tensor), facts_of(wanted)) << prefix << key;
        } else {
          EXPECT_TRUE(same_bits(tensor, wanted))
              << prefix << key << ": " << tensor.ne(wanted).sum().item<std::int64_t>() << " of " << tensor.numel();
        }
      }
      EXPECT_EQ(compared, nested ? 4U : 3U);
    }
}

TEST(Nf4, UnpacksToTheSameNumbersAsBitsandbytes) {
  LLAVA_GOLDEN_OR_SKIP(path, "qlora/bytes.safetensors");
  const Nf4Golden golden{open_safetensors(path)};
  for (const std::string& name : golden.cases())
    for (const char* kind : {"/plain/", "/double/"}) {
      if (golden.file->find(name + kind + "dense") == nullptr) continue;
      const at::Tensor weight = golden.at(name + "/weight");
      const at::Tensor dense = dequantise_nf4(quantise_nf4(weight, kind[1] == 'd'), weight.scalar_type());
      EXPECT_TRUE(at::equal(dense, golden.at(name + kind + "dense"))) << name << kind;
    }
}

TEST(Nf4, MapsEqualBitsandbytes) {
  LLAVA_GOLDEN_OR_SKIP(path, "qlora/bytes.safetensors");
  const Nf4Golden golden{open_safetensors(path)};
  const auto tensor = [](const auto& values) { return at::tensor(at::ArrayRef<float>(values.data(), values.size())); };
  EXPECT_TRUE(at::equal(tensor(nf4_values()), golden.at("nf4_map")));
  EXPECT_TRUE(at::equal(tensor(dynamic_map_values()), golden.at("dynamic_map")));
}

TEST(Nf4, ErrorAndSizeAreThoseOfTheFormat) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{1});
  const at::Tensor weight = at::randn({256, 512}, generator);
  for (const bool nested : {false, true}) {
    const Nf4Matrix matrix = quantise_nf4(weight, nested);
    const double error =
        (dequantise_nf4(matrix, at::kFloat) - weight).norm().item<double>() / weight.norm().item<double>();
    EXPECT_NEAR(error, 0.092, 0.001);
    EXPECT_NEAR(8.0 * static_cast<double>(matrix.num_bytes()) / static_cast<double>(weight.numel()),
                nested ? 4.127 : 4.5, 0.001);
  }
}

TEST(Nf4, OtherBlockSizesRoundTripWithinTheirScales) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{2});
  const at::Tensor weight = at::randn({3, 1500}, generator);
  for (const std::int64_t block : {32, 128, 4096}) {
    const Nf4Matrix matrix = quantise_nf4(weight, false, block);
    EXPECT_EQ(matrix.absmax.numel(), (4500 + block - 1) / block);
    const double worst = (dequantise_nf4(matrix, at::kFloat) - weight).abs().max().item<double>();
    EXPECT_LT(worst, 0.16 * weight.abs().max().item<double>());
  }
}

}  // namespace
}  // namespace llava
