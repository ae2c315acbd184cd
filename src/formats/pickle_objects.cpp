#include "base/error.h"
#include "formats/mapped_tensor_file.h"
#include "formats/pickle_vm.h"

/// What the allowed globals of a pickle stand for, and what "calling" them builds.   Source:
/// torch/_utils.py
namespace llava {

namespace {

using Kind = PickleValue::Kind;

struct AllowedGlobal {
  std::string_view module, name;
  PickleGlobal global;
  DType dtype = DType::kF32;
};

constexpr AllowedGlobal kAllowed[] = {
    {"collections", "OrderedDict", PickleGlobal::kOrderedDict},
    {"torch._utils", "_rebuild_tensor", PickleGlobal::kRebuildTensor},
    {"torch._utils", "_rebuild_tensor_v2", PickleGlobal::kRebuildTensor},
    {"torch._utils", "_rebuild_parameter", PickleGlobal::kRebuildParameter},
    {"torch", "Size", PickleGlobal::kSize},
    {"torch", "device", PickleGlobal::kDevice},
    {"torch", "DoubleStorage", PickleGlobal::kStorageType, DType::kF64},
    {"torch", "FloatStorage", PickleGlobal::kStorageType, DType::kF32},
    {"torch", "HalfStorage", PickleGlobal::kStorageType, DType::kF16},
    {"torch", "BFloat16Storage", PickleGlobal::kStorageType, DType::kBF16},
    {"torch", "LongStorage", PickleGlobal::kStorageType, DType::kI64},
    {"torch", "IntStorage", PickleGlobal::kStorageType, DType::kI32},
    {"torch", "ShortStorage", PickleGlobal::kStorageType, DType::kI16},
    {"torch", "CharStorage", PickleGlobal::kStorageType, DType::kI8},
    {"torch", "ByteStorage", PickleGlobal::kStorageType, DType::kU8},
    {"torch", "BoolStorage", PickleGlobal::kStorageType, DType::kBool},
    {"torch", "float64", PickleGlobal::kDtype},
    {"torch", "float32", PickleGlobal::kDtype},
    {"torch", "float16", PickleGlobal::kDtype},
    {"torch", "bfloat16", PickleGlobal::kDtype},
    {"torch", "int64", PickleGlobal::kDtype},
    {"torch", "int32", PickleGlobal::kDtype},
};

}  // namespace

void PickleVm::push_global(std::string_view module, std::string_view name) {
  for (const AllowedGlobal& allowed : kAllowed) {
    if (allowed.module != module || allowed.name != name) continue;
    PickleValue value = PickleValue::of_kind(Kind::kGlobal);
    value.global = allowed.global;
    value.dtype = allowed.dtype;
    return push(std::move(value));
  }
  throw Error(
      ErrorKind::kUnsupported,
      fmt::format("{}: the pickle refers to {}.{}, which is not needed for weights; nothing was executed",
                  reader_.what(), printable(module), printable(name)),
      "save a plain dict of tensors (torch.save(model.state_dict(), …)) or safetensors instead");
}

/// A "call": builds the value that the allowed global stands for.
void PickleVm::reduce() {
  const PickleHandle arguments_handle = pop(), callee_handle = pop();
  const PickleValue &callee = value(callee_handle), &arguments = value(arguments_handle);
  if (callee.kind != Kind::kGlobal || arguments.kind != Kind::kTuple)
    bad("a call of something that is not a global");
  switch (callee.global) {
    case PickleGlobal::kOrderedDict:
      return push(ordered_dict(arguments.items));
    case PickleGlobal::kRebuildTensor:
      return push(rebuild_tensor(arguments.items));
    case PickleGlobal::kRebuildParameter:
      argument(arguments.items, 0, Kind::kTensor);
      return push_handle(arguments.items[0]);
    case PickleGlobal::kSize:
    case PickleGlobal::kDevice:
      return push(PickleValue::of_kind(Kind::kOpaque));
    case PickleGlobal::kStorageType:
    case PickleGlobal::kDtype:
      break;
  }
  bad("a call of a global that is only a value");
}

/// Attributes of a dict (a state dict's _metadata) are of no interest; other objects have none we know.
void PickleVm::build() {
  pop();
  if (value(top()).kind != Kind::kDict) bad("a state for something that is not a dict");
}

/// ("storage", type, key, location, number of elements) and, in legacy files, a view that must be None.
void PickleVm::persistent_id() {
  const PickleValue& id = value(pop());
  if (id.kind != Kind::kTuple || argument(id.items, 0, Kind::kText).text != "storage")
    bad("an unknown persistent id");
  const PickleValue& type = argument(id.items, 1, Kind::kGlobal);
  const std::int64_t count = argument(id.items, 4, Kind::kInt).number;
  if (type.global != PickleGlobal::kStorageType || count < 0) bad("a storage without type or size");
  if (id.items.size() > 5) argument(id.items, 5, Kind::kNone);
  PickleValue storage = PickleValue::of_kind(Kind::kStorage);
  storage.text = argument(id.items, 2, Kind::kText).text;
  storage.dtype = type.dtype;
  storage.number = count;
  push(std::move(storage));
}

PickleValue PickleVm::ordered_dict(const std::vector<PickleHandle>& arguments) {
  PickleValue dict = PickleValue::of_kind(Kind::kDict);
  if (arguments.empty()) return dict;
  for (const PickleHandle pair : argument(arguments, 0, Kind::kList).items) {
    const PickleValue& item = value(pair);
    if ((item.kind != Kind::kTuple && item.kind != Kind::kList) || item.items.size() != 2)
      bad("an OrderedDict of something else than pairs");
    dict.items.insert(dict.items.end(), item.items.begin(), item.items.end());
    count_items(2);
  }
  return dict;
}

/// Arguments: storage, offset, size, stride, requires_grad, backward hooks[, metadata].
PickleValue PickleVm::rebuild_tensor(const std::vector<PickleHandle>& arguments) {
  const PickleValue& storage = argument(arguments, 0, Kind::kStorage);
  PickleValue tensor = PickleValue::of_kind(Kind::kTensor);
  tensor.items = {arguments[0]};
  tensor.dtype = storage.dtype;
  tensor.number = argument(arguments, 1, Kind::kInt).number;
  tensor.shape = integers(argument(arguments, 2, Kind::kTuple));
  tensor.strides = integers(argument(arguments, 3, Kind::kTuple));
  if (tensor.shape.size() != tensor.strides.size())
    bad("a tensor with another number of strides than sizes");
  return tensor;
}

const PickleValue& PickleVm::argument(const std::vector<PickleHandle>& arguments, std::size_t index,
                                      Kind kind) const {
  if (index >= arguments.size() || value(arguments[index]).kind != kind)
    bad(fmt::format("argument {} is missing or has another type", index));
  return value(arguments[index]);
}

std::vector<std::int64_t> PickleVm::integers(const PickleValue& tuple) const {
  if (tuple.items.size() > kMaxRank) bad("a tensor with more than 16 dimensions");
  std::vector<std::int64_t> numbers;
  for (std::size_t i = 0; i < tuple.items.size(); ++i)
    numbers.push_back(argument(tuple.items, i, Kind::kInt).number);
  return numbers;
}

}  // namespace llava
