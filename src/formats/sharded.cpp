#include "formats/sharded.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "formats/byte_reader.h"

namespace llava {

namespace {

constexpr std::size_t kMaxIndexBytes = std::size_t{64} << 20;

struct Index {
  std::filesystem::path path;
  std::map<std::string, std::vector<std::string>> shards;  // file name -> its tensors
};

/// Only plain names: an index must not reach files outside its folder.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

Index read_index(const std::filesystem::path& path) {
  const Json json = read_json_file(path, kMaxIndexBytes);
  const std::string what = path.string();
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    fail(ErrorKind::kFormat, "{}: an index needs an object \"weight_map\"", what);
  Index index{path, {}};
  for (const auto& [tensor, shard] : json["weight_map"].items()) {
    if (!shard.is_string() || !is_plain_name(shard.get_ref<const std::string&>()))
      fail(ErrorKind::kFormat,
           "{}: tensor \"{}\" is mapped to {}, which is not the name of a file in this folder", what,
           printable(tensor), printable(shard.dump(-1, ' ', true)));
    index.shards[shard.get<std::string>()].push_back(tensor);
  }
  if (index.shards.empty()) fail(ErrorKind::kFormat, "{}: its weight_map is empty", what);
  return index;
}

std::string listed(const std::vector<std::string>& items) {
  constexpr std::size_t kShown = 20;
  const auto shown = std::span(items).first(std::min(items.size(), kShown));
  std::string text = fmt::format("{}", fmt::join(shown, ", "));
  if (items.size() > kShown) text += fmt::format(" and {} more", items.size() - kShown);
  return text;
}

std::vector<std::filesystem::path> shard_paths(const Index& index) {
  std::vector<std::filesystem::path> paths;
  std::vector<std::string> missing;
  for (const auto& [name, tensors] : index.shards) {
    paths.push_back(index.path.parent_path() / name);
    if (!std::filesystem::is_regular_file(paths.back())) missing.push_back(name);
  }
  if (!missing.empty())
    throw Error(ErrorKind::kInput,
                fmt::format("{}: {} of {} shards are missing: {}", index.path.string(), missing.size(),
                            paths.size(), listed(missing)),
                "download the missing files into the same folder");
  return paths;
}

bool is_index(const std::filesystem::path& path) { return path.extension() == ".json"; }

/// The index or weight file `path` stands for.
std::filesystem::path main_file(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return path;
  static constexpr const char* kNames[] = {"model.safetensors.index.json", "model.safetensors",
                                           "pytorch_model.bin.index.json", "pytorch_model.bin",
                                           "adapter_model.safetensors",    "adapter_model.bin"};
  for (const char* name : kNames)
    if (std::filesystem::is_regular_file(path / name)) return path / name;
  fail(ErrorKind::kInput, "{}: no weights here; looked for {}", path.string(), fmt::join(kNames, ", "));
}

}  // namespace

std::vector<std::filesystem::path> weight_files(const std::filesystem::path& path) {
  const std::filesystem::path file = main_file(path);
  return is_index(file) ? shard_paths(read_index(file)) : std::vector{file};
}

std::vector<std::shared_ptr<const TensorFile>> open_sharded(const std::filesystem::path& path) {
  const std::filesystem::path file = main_file(path);
  std::vector<std::shared_ptr<const TensorFile>> files;
  if (!is_index(file)) {
    files.push_back(open_tensor_file(file));
    return files;
  }
  const Index index = read_index(file);
  shard_paths(index);
  std::vector<std::string> absent;
  for (const auto& [name, tensors] : index.shards) {
    files.push_back(open_tensor_file(index.path.parent_path() / name));
    std::set<std::string_view> present;
    for (const TensorView& view : files.back()->tensors()) present.insert(view.name);
    for (const std::string& tensor : tensors)
      if (!present.contains(tensor)) absent.push_back(fmt::format("{} (in {})", printable(tensor), name));
  }
  if (!absent.empty())
    fail(ErrorKind::kFormat, "{}: {} tensors are not in the shard the index names: {}", file.string(),
         absent.size(), listed(absent));
  return files;
}

}  // namespace llava
