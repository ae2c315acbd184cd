#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "formats/byte_reader.h"
#include "formats/mapped_tensor_file.h"
#include "formats/pickle_vm.h"
#include "formats/zip_archive.h"

/// torch.save files: a pickle of a dict whose tensors point into storages. In the zip format each storage
/// is an entry data/<key>; in the older one five pickles are followed by the storages.   Source:
/// torch/serialization.py
namespace llava {

namespace {

constexpr std::size_t kMaxPickleBytes = std::size_t{64} << 20;
/// Protocol 2, LONG1 of 10 bytes 0x1950a86a20f9469cfc6c, STOP.
constexpr std::string_view kLegacyMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);

using Kind = PickleValue::Kind;
using Storages = std::unordered_map<std::string, std::span<const std::byte>>;

/// Turns the unpickled object into views.
class Collector {
 public:
  Collector(const PickleVm& vm, const Storages& storages, const std::string& what)
      : vm_(vm), storages_(storages), what_(what) {}

  /// A dict of tensors; or one such dict under a customary key ("state_dict"…); or dicts of tensors under
  /// other keys, whose tensors are then called "key.name". Other values (epoch numbers…) are not weights
  /// and are left out.
  std::vector<TensorView> collect(const PickleValue& root) {
    if (root.kind != Kind::kDict) fail(ErrorKind::kUnsupported, "{}: it holds no dict of tensors", what_);
    for (const char* key : {"state_dict", "model_state_dict", "model", "module"}) {
      const PickleValue* inner = vm_.find(root, key);
      if (inner != nullptr && has_tensor(*inner)) {
        collect_dict(*inner, "", false);
        return std::move(tensors_);
      }
    }
    collect_dict(root, "", true);
    if (tensors_.empty() && !root.items.empty())
      fail(ErrorKind::kUnsupported, "{}: it holds no dict of tensors", what_);
    return std::move(tensors_);
  }

 private:
  /// Whether `value` is a dict with a tensor in it. Remembered, as a hostile pickle may hold one dict many
  /// times over.
  bool has_tensor(const PickleValue& value) {
    if (value.kind != Kind::kDict) return false;
    const auto [it, is_new] = has_tensor_.try_emplace(&value, false);
    for (std::size_t i = 1; is_new && !it->second && i < value.items.size(); i += 2)
      it->second = vm_.value(value.items[i]).kind == Kind::kTensor;
    return it->second;
  }

  void collect_dict(const PickleValue& dict, const std::string& prefix, bool nested) {
    for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
      const PickleValue &key = vm_.value(dict.items[i]), &item = vm_.value(dict.items[i + 1]);
      if (item.kind != Kind::kTensor && !(nested && has_tensor(item))) continue;
      if (key.kind != Kind::kText || key.text.empty() || key.text.size() > kMaxNameBytes ||
          !is_utf8(key.text))
        fail(ErrorKind::kFormat, "{}: a tensor whose name is not a text", what_);
      const std::string name = prefix + std::string(key.text);
      if (item.kind == Kind::kDict)
        collect_dict(item, name + ".", false);
      else
        add(name, item);
    }
  }

  void add(const std::string& name, const PickleValue& tensor) {
    if (!names_.insert(name).second)
      fail(ErrorKind::kFormat, "{}: tensor \"{}\" occurs twice", what_, printable(name));
    const PickleValue& storage = vm_.value(tensor.items.at(0));
    const auto it = storages_.find(std::string(storage.text));
    if (it == storages_.end())
      fail(ErrorKind::kFormat, "{}: tensor \"{}\": its storage {} is missing", what_, printable(name),
           printable(storage.text));
    if (byte_size(tensor.dtype, storage.number) != it->second.size())
      fail(ErrorKind::kFormat, "{}: tensor \"{}\": storage {} has {} bytes, not {} of {}", what_,
           printable(name), printable(storage.text), it->second.size(), storage.number,
           to_string(tensor.dtype));
    tensors_.push_back(make_view(name, tensor, storage.number, it->second));
  }

  TensorView make_view(const std::string& name, const PickleValue& tensor, std::int64_t stored,
                       std::span<const std::byte> bytes) const {
    const std::optional<std::int64_t> count = checked_elements(tensor.shape);
    const std::optional<std::int64_t> last = last_index(tensor);
    const bool strides_fit =
        std::all_of(tensor.strides.begin(), tensor.strides.end(), [](auto s) { return s >= 0; });
    const std::int64_t begin = tensor.number;
    if (!count || !last || !strides_fit || begin < 0 || begin > stored || (*count > 0 && *last >= stored))
      fail(ErrorKind::kFormat,
           "{}: tensor \"{}\": shape {}, strides {}, offset {} leave its storage of {} elements", what_,
           printable(name), shape_text(tensor.shape), shape_text(tensor.strides), begin, stored);
    // A stride of 0 would let a small file stand for any amount of memory.
    if (*count > stored)
      fail(ErrorKind::kUnsupported, "{}: tensor \"{}\" repeats its storage (expanded view of shape {})",
           what_, printable(name), shape_text(tensor.shape));
    TensorView view{name, tensor.dtype, tensor.shape, {}, {}};
    if (*count == 0) return view;
    const std::size_t element = block_bytes(tensor.dtype);
    view.bytes = bytes.subspan(static_cast<std::size_t>(begin) * element,
                               static_cast<std::size_t>(*last - begin + 1) * element);
    if (!is_contiguous(tensor)) view.strides = tensor.strides;
    return view;
  }

  /// Index in the storage of the last element; nullopt on overflow.
  static std::optional<std::int64_t> last_index(const PickleValue& tensor) {
    std::int64_t index = tensor.number;
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
      const std::optional<std::int64_t> reach =
          checked_product(std::max<std::int64_t>(tensor.shape[i] - 1, 0), tensor.strides[i]);
      if (!reach || __builtin_add_overflow(index, *reach, &index)) return std::nullopt;
    }
    return index;
  }

  static bool is_contiguous(const PickleValue& tensor) {
    std::int64_t expected = 1;
    for (std::size_t i = tensor.shape.size(); i-- > 0;) {
      if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
      expected *= tensor.shape[i];
    }
    return true;
  }

  const PickleVm& vm_;
  const Storages& storages_;
  const std::string& what_;
  std::vector<TensorView> tensors_;
  std::unordered_set<std::string> names_;
  std::unordered_map<const PickleValue*, bool> has_tensor_;
};

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// "<folder>/", the folder all records are in.
std::string find_prefix(const ZipArchive& archive, const std::string& what) {
  std::vector<std::string> prefixes;
  for (const std::string& name : archive.names()) {
    const std::size_t slash = name.find('/');
    if (slash != std::string::npos && std::string_view(name).substr(slash + 1) == "data.pkl")
      prefixes.push_back(name.substr(0, slash + 1));
  }
  if (prefixes.size() != 1)
    fail(ErrorKind::kFormat, "{}: a zip file, but not of torch.save: no data.pkl", what);
  return prefixes.front();
}

std::vector<TensorView> read_zip(std::span<const std::byte> bytes, const std::string& what) {
  const ZipArchive archive(bytes, what);
  const std::string prefix = find_prefix(archive, what);
  if (archive.find(prefix + "constants.pkl"))
    throw Error(ErrorKind::kUnsupported, what + ": a TorchScript program, not a file of weights",
                "save its state_dict() with torch.save instead");
  const auto order = archive.find(prefix + "byteorder");
  if (order && as_text(*order) != "little")
    fail(ErrorKind::kUnsupported, "{}: its byte order is \"{}\"; only little is read", what,
         printable(as_text(*order)));
  const auto pickle = *archive.find(prefix + "data.pkl");
  if (pickle.size() > kMaxPickleBytes)
    fail(ErrorKind::kFormat, "{}: its data.pkl has {} bytes", what, pickle.size());
  PickleVm vm(pickle, what);
  const PickleHandle root = vm.run();
  Storages storages;
  const std::string data = prefix + "data/";
  for (const std::string& name : archive.names())
    if (name.starts_with(data)) storages.emplace(name.substr(data.size()), *archive.find(name));
  return Collector(vm, storages, what).collect(vm.value(root));
}

/// After the object comes the list of storage keys, then for each an i64 count and its data. The element
/// sizes are known from the references in the object.
Storages read_legacy_storages(const PickleVm& vm, PickleHandle num_values, const PickleValue& keys,
                              std::span<const std::byte> bytes, const std::string& what) {
  std::unordered_map<std::string_view, DType> dtypes;
  for (PickleHandle i = 0; i < num_values; ++i)
    if (vm.value(i).kind == Kind::kStorage) dtypes.emplace(vm.value(i).text, vm.value(i).dtype);
  ByteReader reader(bytes, what);
  Storages storages;
  for (const PickleHandle handle : keys.items) {
    const PickleValue& key = vm.value(handle);
    const auto dtype = key.kind == Kind::kText ? dtypes.find(key.text) : dtypes.end();
    if (dtype == dtypes.end()) fail(ErrorKind::kFormat, "{}: a storage that no tensor uses", what);
    const auto count = reader.read<std::int64_t>();
    storages.emplace(std::string(key.text), reader.take(byte_size(dtype->second, count)));
  }
  return storages;
}

std::vector<TensorView> read_legacy(std::span<const std::byte> bytes, const std::string& what) {
  PickleVm vm(bytes, what);
  vm.run();  // the magic number, seen already
  const PickleValue version = vm.value(vm.run());
  if (version.kind != Kind::kInt || version.number != 1001)
    fail(ErrorKind::kUnsupported, "{}: an unknown version of torch.save's older format", what);
  const PickleValue system = vm.value(vm.run());
  const PickleValue* little = vm.find(system, "little_endian");
  if (little == nullptr || little->kind != Kind::kBool || little->number != 1)
    fail(ErrorKind::kUnsupported, "{}: its byte order is not little-endian", what);
  const PickleHandle root = vm.run();
  const PickleHandle keys = vm.run();
  if (vm.value(keys).kind != Kind::kList)
    fail(ErrorKind::kFormat, "{}: the list of storages is missing", what);
  const Storages storages =
      read_legacy_storages(vm, keys, vm.value(keys), bytes.subspan(vm.position()), what);
  return Collector(vm, storages, what).collect(vm.value(root));
}

}  // namespace

std::unique_ptr<TensorFile> open_torch_pickle(const std::filesystem::path& path) {
  MappedFile file(path);
  const auto bytes = file.bytes();
  const std::string_view text = as_text(bytes);
  std::vector<TensorView> tensors;
  if (text.starts_with("PK")) {
    tensors = read_zip(bytes, path.string());
  } else if (text.starts_with(kLegacyMagic)) {
    tensors = read_legacy(bytes, path.string());
  } else {
    throw Error(ErrorKind::kUnsupported, path.string() + ": not a file of torch.save",
                "load it in Python and save it again with torch.save or safetensors");
  }
  return std::make_unique<MappedTensorFile>(path, std::move(file), std::move(tensors), Json::object());
}

}  // namespace llava
