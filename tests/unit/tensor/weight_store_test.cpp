#include "tensor/weight_store.h"

#include <torch/torch.h>

#include <fstream>

#include "base/error.h"
#include "formats/sharded.h"
#include "support/golden.h"
#include "tensor/convert.h"

namespace llava {
namespace {

std::shared_ptr<const TensorFile> make_file(const std::string& name,
                                            const std::map<std::string, at::Tensor>& tensors) {
  static const std::filesystem::path folder = test::scratch_dir("store");
  TensorWriter writer;
  for (const auto& [key, tensor] : tensors) writer.add(key, tensor);
  writer.write(folder / name);
  return open_safetensors(folder / name);
}

TEST(WeightStore, RenamesDropsAndOverrides) {
  WeightStore store;
  store.add(make_file("a", {{"model.x", torch::zeros({2})},
                            {"model.y", torch::ones({3})},
                            {"inv_freq", torch::ones({1})}}),
            [](const std::string& name) -> std::optional<std::string> {
              if (name == "inv_freq") return std::nullopt;
              return "language_" + name;
            });
  store.add(make_file("b", {{"language_model.x", torch::full({2}, 7)}}));
  EXPECT_TRUE(store.contains("language_model.x"));
  EXPECT_FALSE(store.contains("inv_freq"));
  EXPECT_TRUE(torch::equal(store.take("language_model.x", {2}, at::kFloat), torch::full({2}, 7.0F)));
  EXPECT_EQ(store.find("language_model.y")->name, "model.y");
  EXPECT_EQ(store.find("nothing"), nullptr);
  store.take("language_model.y", {3}, at::kFloat);
  store.finish();
}

TEST(WeightStore, ListsEverythingWrongAtOnce) {
  WeightStore store;
  store.add(
      make_file("w.safetensors",
                {{"good", torch::zeros({2})}, {"bad", torch::zeros({2, 3})}, {"extra", torch::zeros({1})}}),
      [](const std::string& name) { return "m." + name; });
  store.take("m.good", {2}, at::kFloat);
  const at::Tensor bad = store.take("m.bad", {3, 2}, at::kBFloat16);
  const at::Tensor missing = store.take("m.missing", {4, 5}, at::kFloat);
  EXPECT_FALSE(store.take_optional("m.optional", {1}, at::kFloat).defined());
  EXPECT_EQ(bad.sizes(), (at::IntArrayRef{3, 2}));
  EXPECT_EQ(bad.scalar_type(), at::kBFloat16);
  EXPECT_EQ(missing.sizes(), (at::IntArrayRef{4, 5}));
  EXPECT_EQ(missing.storage().nbytes(), 4U) << "a placeholder owns no memory worth speaking of";
  try {
    store.finish();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInput);
    EXPECT_STREQ(e.what(),
                 "the weights do not fit the model:"
                 "\n1 missing:\n  m.missing"
                 "\n1 of another shape:\n  m.bad: expected [3, 2], found [2, 3] in w.safetensors"
                 "\n1 unexpected:\n  m.extra (extra in w.safetensors)");
  }
}

TEST(WeightStore, ShowsTwentyAndCountsTheRest) {
  WeightStore store;
  for (int i = 0; i < 25; ++i) store.take(fmt::format("t{}", i), {1}, at::kFloat);
  try {
    store.finish();
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("25 missing:"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("and 5 more"), std::string::npos);
  }
}

TEST(WeightStore, AcceptsTensorsMarkedAsTaken) {
  WeightStore store;
  store.add(make_file("tied", {{"lm_head.weight", torch::zeros({2})}}));
  EXPECT_FALSE(store.report().ok());
  store.mark_taken("lm_head.weight");
  EXPECT_TRUE(store.report().ok());
}

TEST(WeightStore, RefusesTwoNamesForOneTensor) {
  WeightStore store;
  const auto file = make_file("twice", {{"a", torch::zeros({2})}, {"b", torch::zeros({2})}});
  try {
    store.add(file, [](const std::string&) { return "same"; });
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("\"a\" and \"b\" are both same"), std::string::npos) << e.what();
  }
}

TEST(WeightStore, CountsTheBytesItWouldCopy) {
  WeightStore store;
  store.add(make_file("copy", {{"f", torch::zeros({8})}, {"h", torch::zeros({4}, torch::kHalf)}}));
  EXPECT_EQ(store.bytes_to_copy(at::kFloat), 16U);
  EXPECT_EQ(store.bytes_to_copy(at::kHalf), 16U);
  EXPECT_EQ(store.bytes_to_copy(at::kBFloat16), 24U);
}

TEST(WeightStore, TakesAShardedCheckpoint) {
  LLAVA_GOLDEN_OR_SKIP(folder, "checkpoints/llava15_orig");
  WeightStore store;
  for (const auto& file : open_sharded(folder)) store.add(file);
  const auto expected = store.entries();
  for (const auto& [name, entry] : expected)
    EXPECT_TRUE(store.take(name, entry.view->shape, scalar_type(entry.view->dtype)).defined());
  store.finish();
}

/// Anonymous resident memory of this process, from /proc/self/status.
std::size_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word)
    if (word == "RssAnon:") {
      std::size_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes << 10;
    }
  return 0;
}

TEST(WeightStore, MapsLargeWeightsWithoutAnonymousMemory) {
  const std::filesystem::path path = test::scratch_dir("large") / "large.safetensors";
  constexpr std::int64_t kCount = 64 << 20;  // 128 MiB, a hole in the file
  const std::string header = fmt::format(
      "{{\"w\":{{\"dtype\":\"BF16\",\"shape\":[{}],\"data_offsets\":[0,{}]}}}}", kCount, kCount * 2);
  const std::uint64_t size = header.size() + (8 - header.size() % 8) % 8;
  std::ofstream(path, std::ios::binary) << std::string(reinterpret_cast<const char*>(&size), 8) << header
                                        << std::string(size - header.size(), ' ');
  std::filesystem::resize_file(path, 8 + size + kCount * 2);
  const std::size_t before = anonymous_bytes();
  ASSERT_GT(before, 0U);
  WeightStore store;
  store.add(open_safetensors(path));
  const at::Tensor w = store.take("w", {kCount}, at::kBFloat16);
  EXPECT_EQ(w.view(at::kShort).count_nonzero().item<std::int64_t>(), 0);  // touches every page
  EXPECT_LT(anonymous_bytes(), before + (16 << 20));
}

}  // namespace
}  // namespace llava
