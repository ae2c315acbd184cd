#include "formats/gguf_metadata.h"
#include "formats_test_support.h"

namespace llava {
namespace {

using test::expect_error;
using test::le;

constexpr std::uint32_t kU32 = 4, kString = 8, kArray = 9;

std::string text(const std::string& value) { return le(std::uint64_t{value.size()}) + value; }
std::string key(const std::string& name, std::uint32_t type, const std::string& value) {
  return text(name) + le(type) + value;
}
std::string header(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
  return std::string("GGUF") + le(version) + le(tensors) + le(keys);
}
std::string tensor(const std::string& name, const std::vector<std::uint64_t>& ne, std::uint32_t type,
                   std::uint64_t offset) {
  std::string bytes = text(name) + le(static_cast<std::uint32_t>(ne.size()));
  for (const std::uint64_t n : ne) bytes += le(n);
  return bytes + le(type) + le(offset);
}
std::string padded(std::string bytes, std::size_t alignment, std::size_t data) {
  bytes.append((alignment - bytes.size() % alignment) % alignment, '\0');
  return bytes + std::string(data, '\0');
}

std::unique_ptr<TensorFile> open_bytes(const std::string& bytes) {
  static const std::filesystem::path folder = test::scratch_dir("gguf");
  return open_gguf(test::write_bytes(folder / "x.gguf", bytes));
}

void expect_refused(const std::string& bytes, const std::vector<std::string>& words,
                    ErrorKind kind = ErrorKind::kFormat) {
  expect_error(kind, words, [&] { open_bytes(bytes); });
}

TEST(Gguf, ReadsEveryMetadataType) {
  LLAVA_GOLDEN_OR_SKIP(path, "gguf/types.gguf");
  const auto file = open_gguf(path);
  const Json& meta = file->metadata();
  EXPECT_EQ(meta.at("general.architecture"), "llama");
  EXPECT_EQ(gguf_get<std::int64_t>(meta, "test.u8", "f"), 200);
  EXPECT_EQ(gguf_get<std::int64_t>(meta, "test.i8", "f"), -100);
  EXPECT_EQ(gguf_get<std::int64_t>(meta, "test.u16", "f"), 60000);
  EXPECT_EQ(gguf_get<std::int64_t>(meta, "test.i16", "f"), -30000);
  EXPECT_EQ(gguf_get<std::int64_t>(meta, "test.u32", "f"), 4000000000);
  EXPECT_EQ(gguf_get<std::int64_t>(meta, "test.i32", "f"), -2000000000);
  EXPECT_EQ(gguf_get<std::int64_t>(meta, "test.i64", "f"), -(std::int64_t{1} << 62));
  EXPECT_EQ(meta.at("test.u64").get<std::uint64_t>(), (std::uint64_t{1} << 63) + 1);
  EXPECT_EQ(gguf_get<double>(meta, "test.f32", "f"), double{0.1F});
  EXPECT_EQ(gguf_get<double>(meta, "test.f64", "f"), 0.1);
  EXPECT_TRUE(gguf_get<bool>(meta, "test.bool", "f"));
  EXPECT_EQ(gguf_get<std::string>(meta, "test.string", "f"), "grüße ▁the Ġthe");
  EXPECT_EQ(gguf_get<std::vector<std::string>>(meta, "test.strings", "f"),
            (std::vector<std::string>{"a", "", "▁b"}));
  EXPECT_EQ(gguf_get<std::vector<std::int32_t>>(meta, "test.numbers", "f"),
            (std::vector<std::int32_t>{1, -2, 3}));
  EXPECT_EQ(gguf_get<std::vector<float>>(meta, "test.floats", "f"), (std::vector<float>{0.5F, 1e-5F}));
  EXPECT_EQ(meta.at("test.bools"), Json({true, false}));
}

TEST(GgufMetadata, NamesMissingAndMistypedKeys) {
  const Json meta = {{"a.b", "text"}, {"big", ~std::uint64_t{0}}, {"mixed", Json::array({1, "x"})}};
  expect_error(ErrorKind::kFormat, {"f.gguf", "a.c", "missing"},
               [&] { gguf_get<bool>(meta, "a.c", "f.gguf"); });
  expect_error(ErrorKind::kFormat, {"a.b", "string"},
               [&] { gguf_get<std::int64_t>(meta, "a.b", "f.gguf"); });
  expect_error(ErrorKind::kFormat, {"big"}, [&] { gguf_get<std::int64_t>(meta, "big", "f.gguf"); });
  expect_error(ErrorKind::kFormat, {"mixed"},
               [&] { gguf_get<std::vector<std::int32_t>>(meta, "mixed", "f.gguf"); });
  EXPECT_FALSE(gguf_find<bool>(meta, "a.c", "f.gguf").has_value());
  EXPECT_EQ(gguf_get_or<std::int64_t>(meta, "a.c", 7, "f.gguf"), 7);
}

TEST(Gguf, ReversesShapesAndAlignsData) {
  const auto file = open_bytes(padded(header(2, 1) + key("general.alignment", kU32, le(std::uint32_t{64})) +
                                          tensor("w", {3, 2}, 0, 0) + tensor("s", {}, 0, 64),
                                      64, 68));
  EXPECT_EQ(file->tensors()[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_TRUE(file->tensors()[1].shape.empty());
  EXPECT_EQ(file->tensors()[1].num_elements(), 1);
  EXPECT_EQ(file->tensors()[1].bytes.data() - file->tensors()[0].bytes.data(), 64);
}

TEST(Gguf, ReadsVersionTwo) { EXPECT_TRUE(open_bytes(header(0, 0, 2))->tensors().empty()); }

TEST(Gguf, RefusesOtherVersions) {
  expect_refused("GGML", {"not a GGUF file"});
  expect_refused(header(0, 0, 1), {"version 1"}, ErrorKind::kUnsupported);
  expect_refused(header(0, 0, 0x03000000), {"big-endian"}, ErrorKind::kUnsupported);
}

TEST(Gguf, RefusesAbsurdCounts) {
  expect_refused(header(~std::uint64_t{0}, 0), {"absurd"});
  expect_refused(header(0, ~std::uint64_t{0}), {"absurd"});
  expect_refused(header(1, 0), {"truncated"});
  expect_refused(header(0, 1) + le(std::uint64_t{1} << 60), {"claims 1152921504606846976 bytes"});
  expect_refused(header(0, 1) + text("a") + le(kArray) + le(kU32) + le(std::uint64_t{1} << 60),
                 {"\"a\"", "array"});
  std::string nested = header(0, 1) + text("a") + le(kArray);
  for (int i = 0; i < 1000; ++i) nested += le(kArray) + le(std::uint64_t{1});
  expect_refused(nested, {"too deep"});
}

TEST(Gguf, RefusesBadMetadata) {
  expect_refused(header(0, 1) + key("a", 99, ""), {"\"a\"", "type 99"});
  expect_refused(header(0, 2) + key("a", kU32, le(1)) + key("a", kU32, le(1)), {"\"a\"", "twice"});
  expect_refused(header(0, 1) + key("a", kString, text("\xFF")), {"\"a\"", "UTF-8"});
  expect_refused(header(0, 1) + key("", kU32, le(1)), {"name of 0 bytes"});
  expect_refused(header(0, 1) + key("general.alignment", kU32, le(48)), {"power of two"});
  expect_refused(header(0, 1) + key("general.alignment", kU32, le(0)), {"power of two"});
  expect_refused(header(0, 1) + key("general.alignment", kString, text("32")), {"power of two"});
}

TEST(Gguf, RefusesBadTensors) {
  const auto refused = [](const std::string& infos, int count, std::size_t data,
                          const std::vector<std::string>& words, ErrorKind kind = ErrorKind::kFormat) {
    expect_refused(padded(header(static_cast<std::uint64_t>(count), 0) + infos, 32, data), words, kind);
  };
  refused(tensor("w", {4}, 0, 0), 1, 15, {"\"w\"", "needs 16 bytes"});
  refused(tensor("w", {4}, 0, 64), 1, 32, {"\"w\"", "offset 64"});
  refused(tensor("w", {4}, 0, 4), 1, 32, {"\"w\"", "aligned"});
  refused(tensor("w", {4}, 0, 0) + tensor("w", {4}, 0, 32), 2, 64, {"\"w\"", "twice"});
  refused(tensor("w", {16}, 0, 0) + tensor("v", {4}, 0, 32), 2, 64, {"overlap"});
  refused(tensor("w", {1, 1, 1, 1, 1}, 0, 0), 1, 32, {"5 dimensions"});
  refused(tensor("w", {~std::uint64_t{0}}, 0, 0), 1, 32, {"impossible"});
  refused(tensor("w", {std::uint64_t{1} << 40, std::uint64_t{1} << 40}, 0, 0), 1, 32, {"impossible"});
  refused(tensor("w", {33}, 2, 0), 1, 64, {"[33]", "Q4_0"});
  refused(tensor("w", {16, 2}, 2, 0), 1, 64, {"[2, 16]", "Q4_0"});
  refused(tensor("w", {256}, 20, 0), 1, 512, {"\"w\"", "IQ4_NL"}, ErrorKind::kUnsupported);
  refused(tensor("w", {256}, 77, 0), 1, 512, {"\"w\"", "type 77"});
}

TEST(Gguf, SurvivesDamage) {
  LLAVA_GOLDEN_OR_SKIP(path, "gguf/types.gguf");
  test::survives_damage(read_file(path), test::scratch_dir("damage") / "x", 2000);
}

}  // namespace
}  // namespace llava
