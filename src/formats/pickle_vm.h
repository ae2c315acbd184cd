#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/byte_reader.h"
#include "formats/tensor_file.h"

namespace llava {

/// What a global of the allow-list means to us. Nothing of Python is ever called: a "call" of one of these
/// builds a PickleValue, any other global is refused by name.
enum class PickleGlobal {
  kOrderedDict,
  kRebuildTensor,     ///< torch._utils._rebuild_tensor and _rebuild_tensor_v2
  kRebuildParameter,  ///< torch._utils._rebuild_parameter
  kStorageType,       ///< torch.FloatStorage and the like
  kSize,              ///< torch.Size
  kDevice,            ///< torch.device
  kDtype,             ///< torch.float16 and the like, as a value
};

using PickleHandle = std::uint32_t;  ///< index of a value in its PickleVm

struct PickleValue {
  enum class Kind {
    kNone,
    kBool,
    kInt,
    kFloat,
    kText,
    kBytes,
    kTuple,
    kList,
    kDict,
    kSet,
    kGlobal,
    kStorage,
    kTensor,
    kOpaque
  };
  Kind kind = Kind::kNone;
  std::int64_t number = 0;  ///< kBool, kInt; kStorage: number of elements; kTensor: offset in elements
  std::string_view text;    ///< kText, kBytes; kStorage: its key
  std::vector<PickleHandle> items;  ///< elements; kDict: key, value, key, value…; kTensor: {storage}
  PickleGlobal global = PickleGlobal::kDtype;
  DType dtype = DType::kF32;                 ///< kStorage, and kGlobal of a storage type
  std::vector<std::int64_t> shape, strides;  ///< kTensor

  static PickleValue of_kind(Kind kind) {
    PickleValue value;
    value.kind = kind;
    return value;
  }
};

/// A virtual machine for the pickle opcodes that a state dict needs (protocols 2 to 5). It has no imports
/// and no calls, and the sizes of its stack, memo, values and steps are bounded.   Source: CPython
/// Lib/pickletools.py
class PickleVm {
 public:
  /// `bytes` holds one or more pickles and must outlive the machine and its values.
  PickleVm(std::span<const std::byte> bytes, std::string what);

  /// Runs the next pickle; its result. Error{kFormat} for malformed ones, Error{kUnsupported} for what is
  /// not allowed.
  PickleHandle run();
  /// Where the next pickle begins.
  std::size_t position() const { return reader_.position(); }

  const PickleValue& value(PickleHandle handle) const { return values_.at(handle); }
  /// The value of a text key of a dict, or nullptr.
  const PickleValue* find(const PickleValue& dict, std::string_view key) const;

 private:
  void step(std::uint8_t opcode);
  bool step_scalar(std::uint8_t opcode);
  bool step_container(std::uint8_t opcode);
  bool step_memo(std::uint8_t opcode);
  void step_object(std::uint8_t opcode);

  PickleHandle add(PickleValue value);
  void push(PickleValue value) { push_handle(add(std::move(value))); }
  void push_handle(PickleHandle handle);
  PickleHandle pop();
  PickleHandle top() const;
  std::vector<PickleHandle> pop_to_mark();
  void push_int(std::int64_t number);
  void push_text(PickleValue::Kind kind, std::uint64_t size);
  void push_long(std::uint64_t size);
  void push_tuple(std::vector<PickleHandle> items);
  void append(PickleHandle container, PickleValue::Kind kind, const std::vector<PickleHandle>& items);
  void count_items(std::size_t added);
  void memoize(std::uint32_t key);
  void recall(std::uint32_t key);
  void push_global(std::string_view module, std::string_view name);
  std::string_view read_line();
  void reduce();
  void build();
  void persistent_id();
  PickleValue rebuild_tensor(const std::vector<PickleHandle>& arguments);
  PickleValue ordered_dict(const std::vector<PickleHandle>& arguments);
  const PickleValue& argument(const std::vector<PickleHandle>& arguments, std::size_t index,
                              PickleValue::Kind kind) const;
  std::vector<std::int64_t> integers(const PickleValue& tuple) const;
  [[noreturn]] void bad(std::string_view why) const;

  ByteReader reader_;
  std::vector<PickleValue> values_;
  std::vector<PickleHandle> stack_;
  std::vector<std::size_t> marks_;  ///< stack heights
  std::unordered_map<std::uint32_t, PickleHandle> memo_;
  std::uint64_t num_steps_ = 0, num_items_ = 0;
};

}  // namespace llava
