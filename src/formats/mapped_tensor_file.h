#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/files.h"
#include "formats/tensor_file.h"

namespace llava {

/// What every reader returns: the mapping and the views a parser found in it.
class MappedTensorFile : public TensorFile {
 public:
  MappedTensorFile(std::filesystem::path path, MappedFile file, std::vector<TensorView> tensors,
                   Json metadata)
      : path_(std::move(path)),
        file_(std::move(file)),
        tensors_(std::move(tensors)),
        metadata_(std::move(metadata)) {}
  const std::filesystem::path& path() const override { return path_; }
  const std::vector<TensorView>& tensors() const override { return tensors_; }
  const Json& metadata() const override { return metadata_; }

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::vector<TensorView> tensors_;
  Json metadata_;
};

inline constexpr std::size_t kMaxRank = 16;
inline constexpr std::size_t kMaxNameBytes = 4096;

/// a * b for sizes that must not wrap; nullopt if they would, or if one is negative.
inline std::optional<std::int64_t> checked_product(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

/// Number of elements of a shape; nullopt if it overflows or a size is negative.
std::optional<std::int64_t> checked_elements(const std::vector<std::int64_t>& shape);

/// "[2, 3]".
std::string shape_text(const std::vector<std::int64_t>& shape);

}  // namespace llava
