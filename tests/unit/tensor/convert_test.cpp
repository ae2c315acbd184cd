#include "tensor/convert.h"

#include <torch/torch.h>

#include "base/error.h"
#include "base/files.h"
#include "formats/sharded.h"
#include "support/errors.h"
#include "support/golden.h"
#include "tensor/weight_store.h"

namespace llava {
namespace {

std::shared_ptr<const TensorFile> open_shared(const std::filesystem::path& path) {
  return open_tensor_file(path);
}

using test::error_of;

TEST(ToTensor, UsesTheMappedMemoryInPlace) {
  LLAVA_GOLDEN_OR_SKIP(path, "safetensors/python.safetensors");
  auto file = open_shared(path);
  const TensorView* view = file->find("b.weight");
  const at::Tensor tensor = to_tensor(*view, file, at::kFloat);
  EXPECT_EQ(tensor.const_data_ptr(), static_cast<const void*>(view->bytes.data()));
  EXPECT_TRUE(is_in_place(*view, at::kFloat));
  EXPECT_FALSE(is_in_place(*view, at::kHalf));
  file.reset();  // the tensor keeps the mapping alive
  EXPECT_TRUE(torch::equal(tensor, torch::arange(6, torch::kFloat).view({2, 3})));
}

TEST(ToTensor, ConvertsBetweenTypes) {
  LLAVA_GOLDEN_OR_SKIP(path, "safetensors/python.safetensors");
  const auto file = open_shared(path);
  const at::Tensor half = to_tensor(*file->find("b.weight"), file, at::kHalf);
  EXPECT_TRUE(torch::equal(half, torch::arange(6, torch::kHalf).view({2, 3})));
  half.add_(1);  // converted memory is ours to write
  EXPECT_EQ(to_tensor(*file->find("a.brain"), file).scalar_type(), at::kBFloat16);
  EXPECT_TRUE(torch::equal(to_tensor(*file->find("ids"), file), torch::tensor({1, 2, 3}, torch::kLong)));
  EXPECT_EQ(to_tensor(*file->find("mask"), file).scalar_type(), at::kBool);
  EXPECT_EQ(to_tensor(*file->find("nothing"), file, at::kFloat).sizes(), (at::IntArrayRef{0, 5}));
  EXPECT_EQ(to_tensor(*file->find("scalar"), file, at::kFloat).item<float>(), 2.5F);
}

TEST(ToTensor, EqualsTorchLoadForEveryPickle) {
  LLAVA_GOLDEN_OR_SKIP(expected_path, "pickle/expected.safetensors");
  const auto expected = open_shared(expected_path);
  std::map<std::string, std::shared_ptr<const TensorFile>> files;
  for (const TensorView& view : expected->tensors()) {
    const std::size_t slash = view.name.find('/');
    auto& file = files[view.name.substr(0, slash)];
    if (!file) file = open_shared(expected_path.parent_path() / view.name.substr(0, slash));
    const TensorView* actual = file->find(view.name.substr(slash + 1));
    ASSERT_NE(actual, nullptr) << view.name;
    const at::Tensor tensor = to_tensor(*actual, file), reference = to_tensor(view, expected);
    EXPECT_TRUE(tensor.is_contiguous()) << view.name;
    EXPECT_EQ(tensor.scalar_type(), reference.scalar_type()) << view.name;
    EXPECT_TRUE(torch::equal(tensor, reference)) << view.name;
  }
}

TEST(ToTensor, DequantisesAsNumpyDoes) {
  LLAVA_GOLDEN_OR_SKIP(path, "gguf/types.gguf");
  LLAVA_GOLDEN_OR_SKIP(expected_path, "gguf/types_expected.safetensors");
  const auto file = open_shared(path), expected = open_shared(expected_path);
  for (const TensorView& view : file->tensors()) {
    const at::Tensor reference = to_tensor(*expected->find(view.name), expected);
    const at::Tensor tensor = to_tensor(view, file, at::kFloat);
    EXPECT_TRUE(torch::equal(tensor.view(at::kInt), reference.view(at::kInt))) << view.name;
    const at::Tensor brain = to_tensor(view, file, at::kBFloat16);
    EXPECT_TRUE(torch::equal(brain.view(at::kShort).where(~brain.isnan(), 0),
                             reference.to(at::kBFloat16).view(at::kShort).where(~reference.isnan(), 0)))
        << view.name;
  }
}

TEST(ToTensor, CopiesWhatIsNotAligned) {
  std::vector<std::byte> bytes(9);
  const float value = 1.5F;
  std::memcpy(bytes.data() + 1, &value, 4);
  const TensorView view{"w", DType::kF32, {2}, {}, std::span(bytes).subspan(1)};
  EXPECT_FALSE(is_in_place(view, at::kFloat));
  EXPECT_TRUE(torch::equal(to_tensor(view, nullptr, at::kFloat), torch::tensor({1.5F, 0.0F})));
  EXPECT_TRUE(torch::equal(to_tensor(view, nullptr, at::kHalf), torch::tensor({1.5F, 0.0F}).to(at::kHalf)));
}

TEST(ToTensor, NamesTensorsOfUnsupportedTypes) {
  const std::vector<std::byte> bytes(2);
  const TensorView view{"w8", DType::kF8_E5M2, {2}, {}, bytes};
  EXPECT_NE(error_of([&] { to_tensor(view, nullptr, at::kFloat); }).find("\"w8\": dtype F8_E5M2"),
            std::string::npos);
}

TEST(TensorWriter, RoundTripsEveryType) {
  const std::filesystem::path path = test::scratch_dir("tensor") / "x.safetensors";
  TensorWriter writer;
  std::map<std::string, at::Tensor> tensors;
  for (const auto type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt,
                          at::kShort, at::kChar, at::kByte, at::kBool})
    tensors[c10::toString(type)] = torch::arange(6).view({2, 3}).t().to(type);
  for (const auto& [name, tensor] : tensors) writer.add(name, tensor);
  writer.set_metadata({{"format", "pt"}});
  writer.write(path);
  const auto file = open_shared(path);
  for (const auto& [name, tensor] : tensors)
    EXPECT_TRUE(torch::equal(to_tensor(*file->find(name), file), tensor)) << name;
  EXPECT_NE(
      error_of([&] { writer.add("c", torch::zeros({1}, torch::kComplexFloat)); }).find("ComplexFloat"),
      std::string::npos);
}

TEST(DtypeFromString, KnowsTheCustomaryNames) {
  for (const char* name : {"float32", "fp32", "f32", "float", "torch.float32"})
    EXPECT_EQ(dtype_from_string(name), at::kFloat);
  for (const char* name : {"bfloat16", "bf16", "torch.bfloat16"})
    EXPECT_EQ(dtype_from_string(name), at::kBFloat16);
  for (const char* name : {"float16", "fp16", "f16", "half"}) EXPECT_EQ(dtype_from_string(name), at::kHalf);
  for (const char* name : {"float64", "double"}) EXPECT_EQ(dtype_from_string(name), at::kDouble);
  EXPECT_EQ(dtype_name(at::kBFloat16), "bfloat16");
  EXPECT_NE(error_of([] { dtype_from_string("int3"); }).find("unknown dtype \"int3\"; known are float32"),
            std::string::npos);
}

TEST(DeviceFromString, ExplainsWhatIsNotThere) {
  EXPECT_TRUE(device_from_string("cpu").is_cpu());
  EXPECT_EQ(device_from_string("auto").is_cuda(), torch::cuda::is_available());
  for (const char* name : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", ""})
    EXPECT_NE(error_of([&] { device_from_string(name); }).find("unknown device"), std::string::npos)
        << name;
  EXPECT_NE(error_of([] { device_from_string("cuda:99"); }).find("--device cuda:99: there"),
            std::string::npos);
  if (!torch::cuda::is_available()) {
    EXPECT_NE(error_of([] { device_from_string("cuda"); }).find("no usable NVIDIA GPU"), std::string::npos);
  }
}

TEST(CheckShape, NamesTheTensor) {
  check_shape(torch::zeros({2, 3}), {2, -1}, "x");
  EXPECT_EQ(error_of([] {
              check_shape(torch::zeros({2, 3}), {3, 2}, "x");
            }),
            "x: expected shape [3, 2], got [2, 3]");
  EXPECT_EQ(error_of([] { check_shape({}, {3}, "x"); }), "x: expected shape [3], got an undefined tensor");
}

}  // namespace
}  // namespace llava
