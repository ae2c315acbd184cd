#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/rng.h"
#include "formats/tensor_file.h"
#include "support/golden.h"

namespace llava::test {

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

inline std::vector<float> floats(const TensorView& view) {
  std::vector<float> out(static_cast<std::size_t>(view.num_elements()));
  to_float32(view, out);
  return out;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

inline void expect_same_floats(const TensorView& actual, const TensorView& expected) {
  EXPECT_EQ(actual.shape, expected.shape) << actual.name;
  const std::vector<float> a = floats(actual), b = floats(expected);
  ASSERT_EQ(a.size(), b.size()) << actual.name;
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(std::bit_cast<std::uint32_t>(a[i]), std::bit_cast<std::uint32_t>(b[i]))
        << actual.name << "[" << i << "]: " << a[i] << " and " << b[i];
}

inline std::filesystem::path write_bytes(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::remove(path);  // a new file: truncating an old one makes some file systems flush
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

/// A number as its little-endian bytes.
template <class T>
std::string le(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

/// Runs `body`, which must throw an Error of this kind whose text contains all of `words`.
inline void expect_error(ErrorKind kind, const std::vector<std::string>& words,
                         const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(static_cast<int>(e.kind()), static_cast<int>(kind)) << e.what();
    for (const std::string& word : words)
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos)
          << "\"" << word << "\" is not in: " << e.what();
    return;
  }
  ADD_FAILURE() << "no error was thrown";
}

/// Opens damaged copies of a good file: every truncation of its first bytes and seeded changes of single
/// bytes. Each must either open, and then all its tensors must be readable, or throw an Error.
inline void survives_damage(const std::string& good, const std::filesystem::path& scratch,
                            int num_changes) {
  const auto attempt = [&](const std::string& bytes) {
    const std::filesystem::path path = write_bytes(scratch, bytes);
    try {
      const auto file = open_tensor_file(path);
      for (const TensorView& view : file->tensors())
        if (view.dtype != DType::kF8_E4M3 && view.dtype != DType::kF8_E5M2) floats(view);
    } catch (const Error& e) {
      EXPECT_NE(static_cast<int>(e.kind()), static_cast<int>(ErrorKind::kInternal)) << e.what();
    }
  };
  Rng rng(7);
  const std::size_t step = std::max<std::size_t>(1, good.size() / 200);
  for (std::size_t size = 0; size < good.size(); size += step) attempt(good.substr(0, size));
  for (int i = 0; i < num_changes; ++i) {
    std::string bytes = good;
    for (int k = 0; k < 1 + i % 3; ++k) bytes[rng.below(bytes.size())] = static_cast<char>(rng.next());
    attempt(bytes);
  }
}

}  // namespace llava::test
