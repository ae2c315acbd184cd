#include "formats_test_support.h"

namespace llava {
namespace {

using test::expect_error;
using test::le;

/// A torch.save zip made by hand: stored entries, no checks skipped by the reader.
std::string zip_of(const std::vector<std::pair<std::string, std::string>>& entries,
                   std::uint16_t method = 0) {
  std::string bytes, directory;
  for (const auto& [name, content] : entries) {
    const std::string sizes = le(std::uint32_t(content.size())) + le(std::uint32_t(content.size()));
    const std::string lengths = le(std::uint16_t(name.size())) + le(std::uint16_t{0});
    const std::string common = le(std::uint16_t{0}) + le(method) + le(std::uint64_t{0}) + sizes + lengths;
    directory += le(std::uint32_t{0x02014b50}) + le(std::uint32_t{0}) + common + std::string(10, '\0') +
                 le(std::uint32_t(bytes.size())) + name;
    bytes += le(std::uint32_t{0x04034b50}) + le(std::uint16_t{0}) + common + name + content;
  }
  const auto count = std::uint16_t(entries.size());
  return bytes + directory + le(std::uint32_t{0x06054b50}) + le(std::uint32_t{0}) + le(count) + le(count) +
         le(std::uint32_t(directory.size())) + le(std::uint32_t(bytes.size())) + le(std::uint16_t{0});
}

std::unique_ptr<TensorFile> open_pickle_bytes(const std::string& bytes) {
  static const std::filesystem::path folder = test::scratch_dir("pickle");
  return open_torch_pickle(test::write_bytes(folder / "x.bin", bytes));
}

const std::string kProtocol2("\x80\x02");

std::string unicode(const std::string& value) {
  return fmt::format("X{}{}", le(std::uint32_t(value.size())), value);
}
std::string global(const std::string& module, const std::string& name) {
  return fmt::format("c{}\n{}\n", module, name);
}
std::string integer(std::int64_t value) { return std::string("\x8a\x08") + le(value); }
std::string tuple(const std::string& items) { return fmt::format("({}t", items); }
std::string storage(std::int64_t count) {
  return tuple(unicode("storage") + global("torch", "FloatStorage") + unicode("0") + unicode("cpu") +
               integer(count)) +
         "Q";
}
std::string tensor(std::int64_t count, std::int64_t offset, const std::string& shape,
                   const std::string& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") +
         tuple(storage(count) + integer(offset) + tuple(shape) + tuple(strides) + "\x89" + "}") + "R";
}
std::string dict(const std::string& items) { return kProtocol2 + "}(" + items + "u."; }

/// Opens a state dict made of opcodes, with one storage of `floats` zeros.
std::unique_ptr<TensorFile> open_pickle(const std::string& pickle, std::size_t floats = 6) {
  return open_pickle_bytes(zip_of({{"m/data.pkl", pickle}, {"m/data/0", std::string(floats * 4, '\0')}}));
}
void expect_pickle_refused(const std::string& pickle, const std::vector<std::string>& words,
                    ErrorKind kind = ErrorKind::kFormat) {
  expect_error(kind, words, [&] { open_pickle(pickle); });
}

class TorchPickleGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(TorchPickleGolden, EqualsTorchLoad) {
  LLAVA_GOLDEN_OR_SKIP(path, std::string("pickle/") + GetParam());
  LLAVA_GOLDEN_OR_SKIP(expected_path, "pickle/expected.safetensors");
  const auto file = open_torch_pickle(path);
  const auto expected = open_safetensors(expected_path);
  const std::string prefix = std::string(GetParam()) + "/";
  std::size_t count = 0;
  for (const TensorView& view : expected->tensors()) {
    if (!view.name.starts_with(prefix)) continue;
    ++count;
    const TensorView* actual = file->find(view.name.substr(prefix.size()));
    ASSERT_NE(actual, nullptr) << view.name;
    EXPECT_EQ(actual->dtype, view.dtype) << view.name;
    test::expect_same_floats(*actual, view);
  }
  EXPECT_EQ(file->tensors().size(), count);
  EXPECT_GT(count, 0U);
}

INSTANTIATE_TEST_SUITE_P(Files, TorchPickleGolden,
                         ::testing::Values("dtypes.bin", "views.bin", "state_dict.bin", "parameters.bin",
                                           "nested.bin", "parts.bin", "legacy.bin", "protocol3.bin",
                                           "protocol4.bin", "protocol5.bin"),
                         [](const auto& parameter) {
                           const std::string name = parameter.param;
                           return name.substr(0, name.find('.'));
                         });

TEST(TorchPickle, ReadsAProjector) {
  LLAVA_GOLDEN_OR_SKIP(path, "checkpoints/llava15_orig/mm_projector.bin");
  const auto file = open_torch_pickle(path);
  ASSERT_EQ(file->tensors().size(), 4U);
  const TensorView* weight = file->find("model.mm_projector.0.weight");
  ASSERT_NE(weight, nullptr);
  EXPECT_EQ(weight->shape.size(), 2U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(weight->bytes.data()) % 64, 0U) << "torch aligns its records";
}

TEST(TorchPickle, KeepsStridesOnlyWhereNeeded) {
  LLAVA_GOLDEN_OR_SKIP(path, "pickle/views.bin");
  const auto file = open_torch_pickle(path);
  EXPECT_TRUE(file->find("whole")->strides.empty());
  EXPECT_EQ(file->find("transposed")->strides, (std::vector<std::int64_t>{1, 6}));
  EXPECT_EQ(file->find("column")->strides, (std::vector<std::int64_t>{6}));
}

TEST(TorchPickle, ExecutesNothing) {
  LLAVA_GOLDEN_OR_SKIP(path, "pickle/refused_global.bin");
  expect_error(ErrorKind::kUnsupported, {"argparse.Namespace", "nothing was executed"},
               [&] { open_torch_pickle(path); });
  expect_pickle_refused(kProtocol2 + global("os", "system") + tuple(unicode("echo")) + "R.", {"os.system"},
                 ErrorKind::kUnsupported);
  expect_pickle_refused(std::string("\x80\x04") + unicode("numpy.core.multiarray") + unicode("scalar") + "\x93" + ".",
                 {"numpy.core.multiarray.scalar"}, ErrorKind::kUnsupported);
  expect_pickle_refused(kProtocol2 + global("torch.storage", "_load_from_bytes") + ".", {"_load_from_bytes"},
                 ErrorKind::kUnsupported);
  expect_pickle_refused(std::string("\x80\x02") + "\x82" + "\x01" + ".", {"opcode 0x82"}, ErrorKind::kUnsupported);
}

TEST(TorchPickle, RefusesWhatIsNotAStateDict) {
  LLAVA_GOLDEN_OR_SKIP(list, "pickle/refused_list.bin");
  LLAVA_GOLDEN_OR_SKIP(script, "pickle/refused_torchscript.pt");
  LLAVA_GOLDEN_OR_SKIP(expanded, "pickle/refused_expanded.bin");
  expect_error(ErrorKind::kUnsupported, {"no dict of tensors"}, [&] { open_torch_pickle(list); });
  expect_error(ErrorKind::kUnsupported, {"TorchScript"}, [&] { open_torch_pickle(script); });
  expect_error(ErrorKind::kUnsupported, {"\"w\"", "expanded"}, [&] { open_torch_pickle(expanded); });
  expect_error(ErrorKind::kUnsupported, {"not a file of torch.save"}, [] { open_pickle_bytes("\x80\x04N."); });
}

TEST(TorchPickle, ReadsHandMadeTensors) {
  const auto file =
      open_pickle(dict(unicode("w") + tensor(6, 2, integer(2) + integer(2), integer(2) + integer(1))));
  EXPECT_EQ(file->tensors().at(0).shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(file->tensors()[0].bytes.size(), 16U);
}

TEST(TorchPickle, RefusesTensorsOutsideTheirStorage) {
  const auto refused = [](const std::string& made, const std::string& word) {
    expect_pickle_refused(dict(unicode("w") + made), {"\"w\"", word});
  };
  const std::int64_t huge = std::int64_t{1} << 62;
  refused(tensor(6, 0, integer(7), integer(1)), "leave its storage");
  refused(tensor(6, 3, integer(4), integer(1)), "leave its storage");
  refused(tensor(6, -1, integer(2), integer(1)), "leave its storage");
  refused(tensor(6, 0, integer(2), integer(-1)), "leave its storage");
  refused(tensor(6, 0, integer(-2), integer(1)), "leave its storage");
  refused(tensor(6, 0, integer(2), integer(huge)), "leave its storage");
  refused(tensor(6, huge, integer(3), integer(huge)), "leave its storage");
  refused(tensor(6, 0, integer(huge) + integer(huge), integer(0) + integer(0)), "leave its storage");
  refused(tensor(7, 0, integer(6), integer(1)), "storage 0 has 24 bytes");
  expect_pickle_refused(dict(unicode("w") + tensor(-6, 0, integer(6), integer(1))), {"storage without type or size"});
  expect_pickle_refused(dict(unicode("w") + tensor(6, 0, integer(6), "")), {"strides"});
}

TEST(TorchPickle, RefusesMalformedPickles) {
  expect_pickle_refused("", {"truncated"});
  expect_pickle_refused("\x80\x02", {"truncated"});
  expect_pickle_refused("\x80\x09.", {"protocol 9"});
  expect_pickle_refused(".", {"stack is empty"});
  expect_pickle_refused("t.", {"mark"});
  expect_pickle_refused("h\x05.", {"memo"});
  expect_pickle_refused("}N(u.", {"something else"});
  expect_pickle_refused("}(Nu.", {"something else"});
  expect_pickle_refused("]NNs.", {"something else"});
  expect_pickle_refused("NNR.", {"not a global"});
  expect_pickle_refused("NNb.", {"not a dict"});
  expect_pickle_refused("NQ.", {"persistent id"});
  expect_pickle_refused("X\xff\xff\xff\xff", {"truncated"});
  expect_pickle_refused(fmt::format("\x8d{}", le(~std::uint64_t{0})), {"truncated"});
  expect_pickle_refused("cno newline", {"does not end"});
  expect_pickle_refused(global("torch", "float16") + ")R.", {"only a value"});
  expect_pickle_refused(dict(std::string("N") + tensor(6, 0, integer(6), integer(1))), {"not a text"});
  expect_pickle_refused(dict(unicode("\xFF") + tensor(6, 0, integer(6), integer(1))), {"not a text"});
  const std::string w = unicode("w") + tensor(6, 0, integer(6), integer(1));
  expect_pickle_refused(dict(w + w), {"\"w\"", "twice"});
}

TEST(TorchPickle, BoundsMemoryAndTime) {
  expect_pickle_refused(std::string(1'100'000, '('), {"stack grows too large"});
  expect_pickle_refused(std::string("N") + std::string(1'100'000, '2'), {"stack grows too large"});
  expect_pickle_refused(std::string(1'100'000, ']'), {"too"});
  expect_pickle_refused(std::string("N") + std::string(1'100'000, '\x94'), {"memo grows too large"});
  // A tuple of a thousand references to the tuple before it, again and again: linear for us, 1000^n if it
  // were expanded.
  std::string doubling("]q\0", 3);
  for (int i = 0; i < 100; ++i) {
    doubling += "(";
    for (int k = 0; k < 1000; ++k) doubling += std::string("h\0", 2);
    doubling += std::string("tq\0", 3) + "0";
  }
  expect_pickle_refused(doubling + "N.", {"no dict of tensors"}, ErrorKind::kUnsupported);
}

TEST(TorchPickle, RefusesBadZips) {
  const std::string good = dict(unicode("w") + tensor(6, 0, integer(6), integer(1)));
  const std::string data(24, '\0');
  expect_error(ErrorKind::kFormat, {"no data.pkl"}, [&] { open_pickle_bytes(zip_of({{"m/other", good}})); });
  expect_error(ErrorKind::kFormat, {"no data.pkl"}, [&] {
    open_pickle_bytes(zip_of({{"a/data.pkl", good}, {"b/data.pkl", good}}));
  });
  expect_error(ErrorKind::kFormat, {"twice"}, [&] {
    open_pickle_bytes(zip_of({{"m/data.pkl", good}, {"m/data.pkl", good}}));
  });
  expect_error(ErrorKind::kFormat, {"storage 0 is missing"}, [&] {
    open_pickle_bytes(zip_of({{"m/data.pkl", good}}));
  });
  expect_error(ErrorKind::kUnsupported, {"compressed"}, [&] {
    open_pickle_bytes(zip_of({{"m/data.pkl", good}}, 8));
  });
  expect_error(ErrorKind::kUnsupported, {"byte order", "big"}, [&] {
    open_pickle_bytes(zip_of({{"m/data.pkl", good}, {"m/byteorder", "big"}, {"m/data/0", data}}));
  });
  expect_error(ErrorKind::kFormat, {"end of the zip directory"},
               [&] { open_pickle_bytes("PK\3\4 and nothing more of use here"); });
  std::string other = zip_of({{"m/data.pkl", good}, {"m/data/0", data}});
  other.replace(other.find("m/data/0"), 8, "m/data/1");
  expect_error(ErrorKind::kFormat, {"disagree"}, [&] { open_pickle_bytes(other); });
}

class TorchPickleDamage : public ::testing::TestWithParam<const char*> {};

TEST_P(TorchPickleDamage, IsSurvived) {
  LLAVA_GOLDEN_OR_SKIP(path, std::string("pickle/") + GetParam());
  test::survives_damage(read_file(path), test::scratch_dir("damage") / "x", 1000);
}

INSTANTIATE_TEST_SUITE_P(Files, TorchPickleDamage,
                         ::testing::Values("views.bin", "legacy.bin", "protocol4.bin"),
                         [](const auto& parameter) {
                           const std::string name = parameter.param;
                           return name.substr(0, name.find('.'));
                         });

}  // namespace
}  // namespace llava
