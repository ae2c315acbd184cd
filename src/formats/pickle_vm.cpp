#include "formats/pickle_vm.h"

#include <algorithm>

#include "base/error.h"

namespace llava {

namespace {

constexpr std::size_t kMaxValues = 1'000'000;
constexpr std::size_t kMaxStack = 1'000'000;
constexpr std::uint64_t kMaxItems = 16'000'000;  // of all containers together
constexpr std::uint64_t kMaxSteps = 32'000'000;

using Kind = PickleValue::Kind;

// clang-format off
enum Opcode : std::uint8_t {
  kMark = '(', kStop = '.', kPop = '0', kPopMark = '1', kDup = '2', kNone = 'N', kBinInt = 'J',
  kBinInt1 = 'K', kBinInt2 = 'M', kBinFloat = 'G', kBinUnicode = 'X', kBinString = 'T',
  kShortBinString = 'U', kBinBytes = 'B', kShortBinBytes = 'C', kEmptyTuple = ')', kTuple = 't',
  kEmptyList = ']', kAppend = 'a', kAppends = 'e', kList = 'l', kEmptyDict = '}', kDict = 'd',
  kSetItem = 's', kSetItems = 'u', kGlobalOp = 'c', kReduce = 'R', kBuild = 'b', kBinPersId = 'Q',
  kBinGet = 'h', kLongBinGet = 'j', kBinPut = 'q', kLongBinPut = 'r', kProto = 0x80, kNewObj = 0x81,
  kTuple1 = 0x85, kTuple2 = 0x86, kTuple3 = 0x87, kNewTrue = 0x88, kNewFalse = 0x89, kLong1 = 0x8a,
  kLong4 = 0x8b, kShortBinUnicode = 0x8c, kBinUnicode8 = 0x8d, kBinBytes8 = 0x8e, kEmptySet = 0x8f,
  kAddItems = 0x90, kStackGlobal = 0x93, kMemoize = 0x94, kFrame = 0x95,
};
// clang-format on

}  // namespace

PickleVm::PickleVm(std::span<const std::byte> bytes, std::string what) : reader_(bytes, std::move(what)) {}

PickleHandle PickleVm::run() {
  stack_.clear();
  marks_.clear();
  memo_.clear();
  while (true) {
    if (++num_steps_ > kMaxSteps) bad("it takes too many steps");
    const auto opcode = reader_.read<std::uint8_t>();
    if (opcode == kStop) return pop();
    step(opcode);
  }
}

const PickleValue* PickleVm::find(const PickleValue& dict, std::string_view key) const {
  if (dict.kind != Kind::kDict) return nullptr;
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const PickleValue& name = value(dict.items[i]);
    if (name.kind == Kind::kText && name.text == key) return &value(dict.items[i + 1]);
  }
  return nullptr;
}

void PickleVm::step(std::uint8_t opcode) {
  if (!step_scalar(opcode) && !step_container(opcode) && !step_memo(opcode)) step_object(opcode);
}

bool PickleVm::step_scalar(std::uint8_t opcode) {
  switch (opcode) {
    case kProto: {
      const auto version = reader_.read<std::uint8_t>();
      if (version < 2 || version > 5) bad(fmt::format("protocol {} is not read", version));
      return true;
    }
    case kFrame:
      reader_.read<std::uint64_t>();
      return true;
    case kNone:
      push({});
      return true;
    case kNewTrue:
    case kNewFalse: {
      PickleValue flag = PickleValue::of_kind(Kind::kBool);
      flag.number = opcode == kNewTrue;
      push(std::move(flag));
      return true;
    }
    case kBinInt:
      push_int(reader_.read<std::int32_t>());
      return true;
    case kBinInt1:
      push_int(reader_.read<std::uint8_t>());
      return true;
    case kBinInt2:
      push_int(reader_.read<std::uint16_t>());
      return true;
    case kLong1:
      push_long(reader_.read<std::uint8_t>());
      return true;
    case kLong4:
      push_long(reader_.read<std::uint32_t>());
      return true;
    case kBinFloat:
      reader_.take(8);
      push(PickleValue::of_kind(Kind::kFloat));
      return true;
    case kShortBinUnicode:
      push_text(Kind::kText, reader_.read<std::uint8_t>());
      return true;
    case kBinUnicode:
      push_text(Kind::kText, reader_.read<std::uint32_t>());
      return true;
    case kBinUnicode8:
      push_text(Kind::kText, reader_.read<std::uint64_t>());
      return true;
    case kShortBinString:
      push_text(Kind::kText, reader_.read<std::uint8_t>());
      return true;
    case kBinString:
      push_text(Kind::kText, reader_.read<std::uint32_t>());
      return true;
    case kShortBinBytes:
      push_text(Kind::kBytes, reader_.read<std::uint8_t>());
      return true;
    case kBinBytes:
      push_text(Kind::kBytes, reader_.read<std::uint32_t>());
      return true;
    case kBinBytes8:
      push_text(Kind::kBytes, reader_.read<std::uint64_t>());
      return true;
    default:
      return false;
  }
}

bool PickleVm::step_container(std::uint8_t opcode) {
  switch (opcode) {
    case kMark:
      if (marks_.size() >= kMaxStack) bad("its stack grows too large");
      marks_.push_back(stack_.size());
      return true;
    case kPop:
      pop();
      return true;
    case kPopMark:
      pop_to_mark();
      return true;
    case kDup:
      push_handle(top());
      return true;
    case kEmptyTuple:
      push_tuple({});
      return true;
    case kTuple:
      push_tuple(pop_to_mark());
      return true;
    case kTuple1:
    case kTuple2:
    case kTuple3: {
      std::vector<PickleHandle> items(static_cast<std::size_t>(opcode - kTuple1 + 1));
      for (auto it = items.rbegin(); it != items.rend(); ++it) *it = pop();
      push_tuple(std::move(items));
      return true;
    }
    case kEmptyList:
      push(PickleValue::of_kind(Kind::kList));
      return true;
    case kEmptyDict:
      push(PickleValue::of_kind(Kind::kDict));
      return true;
    case kEmptySet:
      push(PickleValue::of_kind(Kind::kSet));
      return true;
    case kList:
    case kDict: {
      const auto items = pop_to_mark();
      const Kind kind = opcode == kList ? Kind::kList : Kind::kDict;
      push(PickleValue::of_kind(kind));
      append(top(), kind, items);
      return true;
    }
    case kAppend: {
      const PickleHandle item = pop();
      append(top(), Kind::kList, {item});
      return true;
    }
    case kSetItem: {
      const PickleHandle item = pop(), key = pop();
      append(top(), Kind::kDict, {key, item});
      return true;
    }
    case kAppends:
    case kSetItems:
    case kAddItems: {
      const auto items = pop_to_mark();
      append(top(),
             opcode == kAppends    ? Kind::kList
             : opcode == kSetItems ? Kind::kDict
                                   : Kind::kSet,
             items);
      return true;
    }
    default:
      return false;
  }
}

bool PickleVm::step_memo(std::uint8_t opcode) {
  switch (opcode) {
    case kBinPut:
      memoize(reader_.read<std::uint8_t>());
      return true;
    case kLongBinPut:
      memoize(reader_.read<std::uint32_t>());
      return true;
    case kMemoize:
      memoize(static_cast<std::uint32_t>(memo_.size()));
      return true;
    case kBinGet:
      recall(reader_.read<std::uint8_t>());
      return true;
    case kLongBinGet:
      recall(reader_.read<std::uint32_t>());
      return true;
    default:
      return false;
  }
}

void PickleVm::step_object(std::uint8_t opcode) {
  switch (opcode) {
    case kGlobalOp: {
      const std::string_view module = read_line();
      return push_global(module, read_line());
    }
    case kStackGlobal: {
      const PickleHandle name = pop(), module = pop();
      if (value(name).kind != Kind::kText || value(module).kind != Kind::kText)
        bad("a global without a name");
      return push_global(value(module).text, value(name).text);
    }
    case kReduce:
    case kNewObj:
      return reduce();
    case kBuild:
      return build();
    case kBinPersId:
      return persistent_id();
    default:
      fail(ErrorKind::kUnsupported, "{}: pickle opcode 0x{:02x} at byte {} is not one that weights need",
           reader_.what(), opcode, reader_.position() - 1);
  }
}

PickleHandle PickleVm::add(PickleValue value) {
  if (values_.size() >= kMaxValues) bad("it makes too many values");
  values_.push_back(std::move(value));
  return static_cast<PickleHandle>(values_.size() - 1);
}

void PickleVm::push_handle(PickleHandle handle) {
  if (stack_.size() >= kMaxStack) bad("its stack grows too large");
  stack_.push_back(handle);
}

PickleHandle PickleVm::top() const {
  if (stack_.empty() || (!marks_.empty() && stack_.size() <= marks_.back())) bad("its stack is empty");
  return stack_.back();
}

PickleHandle PickleVm::pop() {
  const PickleHandle handle = top();
  stack_.pop_back();
  return handle;
}

std::vector<PickleHandle> PickleVm::pop_to_mark() {
  if (marks_.empty()) bad("a mark is missing");
  const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  std::vector<PickleHandle> items(begin, stack_.end());
  stack_.erase(begin, stack_.end());
  marks_.pop_back();
  return items;
}

void PickleVm::push_int(std::int64_t number) {
  PickleValue value = PickleValue::of_kind(Kind::kInt);
  value.number = number;
  push(std::move(value));
}

void PickleVm::push_text(Kind kind, std::uint64_t size) {
  PickleValue value = PickleValue::of_kind(kind);
  value.text = reader_.text(size);
  push(std::move(value));
}

/// Little-endian two's complement of any length; one beyond 64 bits cannot be a size and stays opaque.
void PickleVm::push_long(std::uint64_t size) {
  const std::string_view digits = reader_.text(size);
  if (size > 8) return push(PickleValue::of_kind(Kind::kOpaque));
  std::uint64_t number =
      size > 0 && (static_cast<unsigned char>(digits.back()) & 0x80) != 0 ? ~std::uint64_t{0} : 0;
  for (std::size_t i = digits.size(); i-- > 0;)
    number = (number << 8) | static_cast<unsigned char>(digits[i]);
  push_int(static_cast<std::int64_t>(number));
}

void PickleVm::push_tuple(std::vector<PickleHandle> items) {
  push(PickleValue::of_kind(Kind::kTuple));
  count_items(items.size());
  values_[top()].items = std::move(items);
}

void PickleVm::append(PickleHandle container, Kind kind, const std::vector<PickleHandle>& items) {
  PickleValue& target = values_[container];
  if (target.kind != kind || (kind == Kind::kDict && items.size() % 2 != 0))
    bad("items for something else");
  count_items(items.size());
  target.items.insert(target.items.end(), items.begin(), items.end());
}

void PickleVm::count_items(std::size_t added) {
  num_items_ += added;
  if (num_items_ > kMaxItems) bad("its containers grow too large");
}

void PickleVm::memoize(std::uint32_t key) {
  if (memo_.size() >= kMaxValues) bad("its memo grows too large");
  memo_[key] = top();
}

void PickleVm::recall(std::uint32_t key) {
  const auto it = memo_.find(key);
  if (it == memo_.end()) bad("a memo entry is missing");
  push_handle(it->second);
}

std::string_view PickleVm::read_line() {
  constexpr std::size_t kMaxLine = 256;
  const std::size_t begin = reader_.position();
  const std::string_view ahead = reader_.text(std::min(reader_.remaining(), kMaxLine));
  const std::size_t size = ahead.find('\n');
  if (size == std::string_view::npos) bad("the name of a global does not end");
  reader_.seek(begin + size + 1);
  return ahead.substr(0, size);
}

void PickleVm::bad(std::string_view why) const {
  fail(ErrorKind::kFormat, "{}: bad pickle at byte {}: {}", reader_.what(), reader_.position(), why);
}

}  // namespace llava
