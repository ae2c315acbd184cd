#include "formats/sharded.h"

#include "formats_test_support.h"

namespace llava {
namespace {

using test::expect_error;

void write_shard(const std::filesystem::path& path, const std::vector<std::string>& names) {
  const std::vector<float> values(2);
  SafetensorsWriter writer;
  for (const std::string& name : names) writer.add(name, DType::kF32, {2}, test::bytes_of(values));
  writer.write(path);
}

std::filesystem::path write_index(const std::filesystem::path& folder, const Json& map) {
  return test::write_bytes(folder / "model.safetensors.index.json",
                           Json({{"metadata", Json::object()}, {"weight_map", map}}).dump());
}

TEST(OpenSharded, OpensTheShardsOfAnIndex) {
  LLAVA_GOLDEN_OR_SKIP(folder, "checkpoints/llava15_orig");
  const auto files = open_sharded(folder);
  ASSERT_EQ(files.size(), 2U);
  EXPECT_EQ(files[0]->path().filename(), "model-00001-of-00002.safetensors");
  std::size_t tensors = 0;
  for (const auto& file : files) tensors += file->tensors().size();
  const Json index = read_json_file(folder / "model.safetensors.index.json");
  EXPECT_EQ(tensors, index["weight_map"].size());
  EXPECT_EQ(open_sharded(folder / "model.safetensors.index.json").size(), 2U);
  EXPECT_EQ(weight_files(folder).size(), 2U);
}

TEST(OpenSharded, OpensSingleFilesAndFolders) {
  const auto folder = test::scratch_dir("single");
  write_shard(folder / "model.safetensors", {"a"});
  EXPECT_EQ(open_sharded(folder).size(), 1U);
  EXPECT_EQ(open_sharded(folder / "model.safetensors").size(), 1U);
  expect_error(ErrorKind::kInput, {"no weights", "pytorch_model.bin"},
               [] { open_sharded(test::scratch_dir("none")); });
}

TEST(OpenSharded, ListsAllMissingShards) {
  const auto folder = test::scratch_dir("missing");
  write_shard(folder / "1.safetensors", {"a"});
  write_index(folder, {{"a", "1.safetensors"}, {"b", "2.safetensors"}, {"c", "3.safetensors"}});
  expect_error(ErrorKind::kInput, {"2 of 3", "2.safetensors", "3.safetensors"},
               [&] { open_sharded(folder); });
}

TEST(OpenSharded, ListsAllTensorsNotInTheirShard) {
  const auto folder = test::scratch_dir("absent");
  write_shard(folder / "1.safetensors", {"a"});
  write_shard(folder / "2.safetensors", {"b", "more"});
  write_index(folder, {{"a", "2.safetensors"}, {"b", "1.safetensors"}, {"more", "2.safetensors"}});
  expect_error(ErrorKind::kFormat, {"2 tensors", "a (in 2.safetensors)", "b (in 1.safetensors)"},
               [&] { open_sharded(folder); });
}

TEST(OpenSharded, RefusesNamesOutsideTheFolder) {
  const auto folder = test::scratch_dir("outside");
  for (const char* name : {"../x.safetensors", "/etc/passwd", "a/b", "..", ".", "", "a\\b"}) {
    write_index(folder, {{"a", name}});
    expect_error(ErrorKind::kFormat, {"not the name of a file"}, [&] { open_sharded(folder); });
  }
  write_index(folder, {{"a", 1}});
  expect_error(ErrorKind::kFormat, {"not the name of a file"}, [&] { open_sharded(folder); });
}

TEST(OpenSharded, RefusesBadIndexes) {
  const auto folder = test::scratch_dir("bad");
  write_index(folder, Json::object());
  expect_error(ErrorKind::kFormat, {"empty"}, [&] { open_sharded(folder); });
  write_index(folder, Json::array());
  expect_error(ErrorKind::kFormat, {"weight_map"}, [&] { open_sharded(folder); });
  test::write_bytes(folder / "model.safetensors.index.json", "[");
  expect_error(ErrorKind::kFormat, {"index.json"}, [&] { open_sharded(folder); });
}

}  // namespace
}  // namespace llava
