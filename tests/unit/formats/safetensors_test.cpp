#include "formats_test_support.h"

namespace llava {
namespace {

using test::expect_error;
using test::le;

/// A file with this header and `data_bytes` zeros.
std::filesystem::path file_with(const std::string& header, std::size_t data_bytes) {
  static int counter = 0;
  static const std::filesystem::path folder = test::scratch_dir("safetensors");
  const std::string bytes = le(std::uint64_t{header.size()}) + header + std::string(data_bytes, '\0');
  return test::write_bytes(folder / (std::to_string(counter++) + ".safetensors"), bytes);
}

void expect_refused(const std::string& header, std::size_t data_bytes,
                    const std::vector<std::string>& words, ErrorKind kind = ErrorKind::kFormat) {
  expect_error(kind, words, [&] { open_safetensors(file_with(header, data_bytes)); });
}

TEST(Safetensors, ReadsWhatPythonWrote) {
  LLAVA_GOLDEN_OR_SKIP(path, "safetensors/python.safetensors");
  const auto file = open_safetensors(path);
  EXPECT_EQ(file->metadata(), Json({{"format", "pt"}}));
  ASSERT_EQ(file->tensors().size(), 8U);
  const TensorView* weight = file->find("b.weight");
  ASSERT_NE(weight, nullptr);
  EXPECT_EQ(weight->dtype, DType::kF32);
  EXPECT_EQ(weight->shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(test::floats(*weight), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(test::floats(*file->find("a.half")), (std::vector<float>{1, 1, 1}));
  EXPECT_EQ(test::floats(*file->find("a.brain")), (std::vector<float>{1, 1, 1}));
  EXPECT_EQ(test::floats(*file->find("ids")), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(test::floats(*file->find("mask")), (std::vector<float>{1, 0, 1}));
  EXPECT_EQ(file->find("nothing")->shape, (std::vector<std::int64_t>{0, 5}));
  EXPECT_TRUE(file->find("nothing")->bytes.empty());
  EXPECT_EQ(test::floats(*file->find("scalar")), (std::vector<float>{2.5F}));
  EXPECT_NE(file->find("naïve \"name\"\n"), nullptr);
  EXPECT_EQ(file->find("absent"), nullptr);
}

TEST(SafetensorsWriter, EqualsPythonByteForByte) {
  LLAVA_GOLDEN_OR_SKIP(path, "safetensors/python.safetensors");
  const auto file = open_safetensors(path);
  SafetensorsWriter writer;
  for (auto it = file->tensors().rbegin(); it != file->tensors().rend(); ++it)
    writer.add(it->name, it->dtype, it->shape, it->bytes);
  writer.set_metadata({{"format", "pt"}});
  const std::filesystem::path copy = test::scratch_dir("writer") / "copy.safetensors";
  writer.write(copy);
  EXPECT_EQ(read_file(copy), read_file(path));
}

TEST(SafetensorsWriter, WritesAnEmptyFile) {
  const std::filesystem::path path = test::scratch_dir("writer") / "empty.safetensors";
  SafetensorsWriter().write(path);
  EXPECT_TRUE(open_safetensors(path)->tensors().empty());
}

TEST(SafetensorsWriter, RefusesWrongSizesNamesAndTypes) {
  const std::vector<float> values(6);
  SafetensorsWriter writer;
  writer.add("w", DType::kF32, {2, 3}, test::bytes_of(values));
  expect_error(ErrorKind::kInternal, {"w", "twice"},
               [&] { writer.add("w", DType::kF32, {6}, test::bytes_of(values)); });
  expect_error(ErrorKind::kInternal, {"[2, 2]"}, [&] {
    writer.add("v", DType::kF32, {2, 2}, test::bytes_of(values));
  });
  expect_error(ErrorKind::kInternal, {"name"},
               [&] { writer.add("\xFF", DType::kF32, {6}, test::bytes_of(values)); });
  expect_error(ErrorKind::kUnsupported, {"Q4_0"}, [&] { writer.add("q", DType::kQ4_0, {32}, {}); });
  expect_error(ErrorKind::kInternal, {"UTF-8"}, [&] { writer.set_metadata({{"a", "\xFF"}}); });
}

TEST(SafetensorsWriter, KeepsTheOldFileWhenItFails) {
  expect_error(ErrorKind::kResource, {"/nowhere/at/all"},
               [] { SafetensorsWriter().write("/nowhere/at/all/x"); });
}

TEST(Safetensors, RefusesBadLengths) {
  const auto folder = test::scratch_dir("lengths");
  const auto refused = [&](const std::string& bytes, const std::string& word) {
    expect_error(ErrorKind::kFormat, {word, "x.safetensors"},
                 [&] { open_safetensors(test::write_bytes(folder / "x.safetensors", bytes)); });
  };
  refused("", "truncated");
  refused("1234567", "truncated");
  refused(le(std::uint64_t{3}) + "{}", "claims 3 bytes");
  refused(le(~std::uint64_t{0}) + "{}", "claims 18446744073709551615");
  refused(le(std::uint64_t{0}), "not a JSON object");
  refused(le(std::uint64_t{3}) + " {}", "not a JSON object");
  expect_error(ErrorKind::kInput, {"absent"}, [&] { open_safetensors(folder / "absent"); });
  expect_error(ErrorKind::kInput, {"not a regular file"}, [&] { open_safetensors(folder); });
}

TEST(Safetensors, RefusesBadJson) {
  expect_refused("{", 0, {"not valid JSON"});
  expect_refused("{\"a\xFF\":1}", 0, {"not valid JSON"});
  expect_refused("{} x", 0, {"not valid JSON"});
  expect_refused("{\"a\":1}", 0, {"\"a\"", "number"});
  expect_refused("{\"a\":[]}", 0, {"\"a\"", "array"});
  expect_refused("{\"a\":null}", 0, {"null"});
  expect_refused("{\"a\":true}", 0, {"boolean"});
  expect_refused("{\"\":{}}", 0, {"without a name"});
  expect_refused("{\"a\":{\"b\":{}}}", 0, {"object where none belongs"});
  expect_refused("{\"a\":{}}", 0, {"\"a\"", "missing"});
  expect_refused("{\"__metadata__\":{\"x\":1}}", 0, {"number"});
  expect_refused("{\"__metadata__\":{\"x\":\"1\",\"x\":\"2\"}}", 0, {"twice"});
  expect_refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, {"twice"});
  expect_refused("{\"" + std::string(5000, 'a') + "\":{}}", 0, {"4096"});
  expect_refused(std::string(100000, '['), 0, {"not a JSON object"});
  expect_refused("{\"a\":{\"shape\":" + std::string(100000, '['), 0, {"array"});
}

TEST(Safetensors, RefusesBadTensors) {
  const auto tensor = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "{\"w\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
  };
  expect_refused(tensor("F32", "[2]", "[0,4]"), 4, {"\"w\"", "do not give its size"});
  expect_refused(tensor("F32", "[2]", "[0,8]"), 4, {"\"w\"", "past the end"});
  expect_refused(tensor("F32", "[2]", "[8,0]"), 8, {"\"w\""});
  expect_refused(tensor("F32", "[2]", "[0]"), 8, {"two numbers"});
  expect_refused(tensor("F32", "[2]", "[0,8,9]"), 8, {"two numbers"});
  expect_refused(tensor("F32", "[-2]", "[0,8]"), 8, {"negative"});
  expect_refused(tensor("F32", "[2.0]", "[0,8]"), 8, {"fraction"});
  expect_refused(tensor("F32", "[4294967296,4294967296,16]", "[0,0]"), 0, {"overflows"});
  expect_refused(tensor("F32", "[0,4294967296,4294967296,16]", "[0,0]"), 0, {"overflows"});
  expect_refused(tensor("F32", "[18446744073709551615]", "[0,0]"), 0, {"out of range"});
  expect_refused(tensor("F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, {"16 dimensions"});
  expect_refused(tensor("F32", "[2]", "[4,12]"), 12, {"begins at 4"});
  expect_refused(tensor("F32", "[2]", "[0,8]"), 9, {"end at byte 8"});
  expect_refused(tensor("F4", "[2]", "[0,1]"), 1, {"\"w\"", "F4"}, ErrorKind::kUnsupported);
  expect_refused("{\"w\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1,
                 {"twice"});
  const std::string one = "\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}";
  expect_refused("{" + one + "," + one + "}", 1, {"\"w\"", "twice"});
  expect_refused("{" + one + ",\"v\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
                 {"begins at 0"});
}

TEST(Safetensors, ListsFloat8ButDoesNotConvertIt) {
  const auto file = open_safetensors(
      file_with("{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2));
  EXPECT_STREQ(to_string(file->tensors()[0].dtype), "F8_E4M3");
  expect_error(ErrorKind::kUnsupported, {"\"w\""}, [&] { test::floats(file->tensors()[0]); });
}

TEST(Safetensors, SurvivesDamage) {
  LLAVA_GOLDEN_OR_SKIP(path, "safetensors/python.safetensors");
  test::survives_damage(read_file(path), test::scratch_dir("damage") / "x", 2000);
}

TEST(TensorFile, IsOpenedByContent) {
  LLAVA_GOLDEN_OR_SKIP(safetensors, "safetensors/python.safetensors");
  LLAVA_GOLDEN_OR_SKIP(gguf, "gguf/types.gguf");
  LLAVA_GOLDEN_OR_SKIP(zip, "pickle/views.bin");
  LLAVA_GOLDEN_OR_SKIP(legacy, "pickle/legacy.bin");
  const auto folder = test::scratch_dir("content");
  for (const auto& path : {safetensors, gguf, zip, legacy}) {
    std::filesystem::copy_file(path, folder / "weights.dat",
                               std::filesystem::copy_options::overwrite_existing);
    EXPECT_FALSE(open_tensor_file(folder / "weights.dat")->tensors().empty()) << path;
  }
  test::write_bytes(folder / "lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  try {
    open_tensor_file(folder / "lfs");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(e.hint().find("git lfs pull"), std::string::npos);
  }
  expect_error(ErrorKind::kFormat, {"not a weight file"},
               [&] { open_tensor_file(test::write_bytes(folder / "empty", "")); });
}

}  // namespace
}  // namespace llava
