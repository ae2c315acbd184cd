#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tensor_file.h"

namespace llava {

/// The weights of a model gathered from one or more files under canonical names. Files stay memory-mapped;
/// a tensor whose stored dtype is the wanted one is used in place, read-only. Nothing is non-strict: take()
/// notes what is missing or has another shape and goes on, finish() throws one Error that lists all of it
/// together with what nobody took.
///
///   WeightStore store;
///   for (auto& file : open_sharded(folder)) store.add(file, rename);
///   at::Tensor w = store.take("lm_head.weight", {vocab, width}, at::kBFloat16);
///   ...
///   store.finish();
class WeightStore {
 public:
  /// The canonical name of a file's tensor. nullopt: known and not wanted (rotary inv_freq, position_ids…),
  /// so it is not reported as unexpected either.
  using Rename = std::function<std::optional<std::string>(const std::string& name)>;

  /// One tensor that could be taken.
  struct Entry {
    std::string name;                  ///< as the file calls it
    const TensorView* view = nullptr;  ///< valid while `file` lives
    std::shared_ptr<const TensorFile> file;
  };

  /// Adds all tensors of `file`; names already there are overridden (a tuned tower after the pretrained
  /// one). An empty `rename` keeps the names. Error{kFormat} if two tensors of this file get the same
  /// canonical name.
  void add(std::shared_ptr<const TensorFile> file, const Rename& rename = {});

  bool contains(std::string_view canonical) const { return entries_.find(canonical) != entries_.end(); }
  /// The entry itself (its stored dtype, shape, quantised blocks), or nullptr. Does not mark it as taken.
  const Entry* find(std::string_view canonical) const;
  /// All entries by canonical name.
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }

  /// The tensor as `dtype`, on the CPU. In place (read-only memory: clone it before writing) where the file
  /// holds that dtype contiguous and aligned; else converted or dequantised into new memory. If it is
  /// missing or its shape is not `shape`, that is noted for finish() and a placeholder of that shape and
  /// dtype comes back that owns no memory.
  at::Tensor take(std::string_view canonical, at::IntArrayRef shape, c10::ScalarType dtype);
  /// As take(), but an absent tensor is not an error: returns an undefined Tensor.
  at::Tensor take_optional(std::string_view canonical, at::IntArrayRef shape, c10::ScalarType dtype);
  /// Marks a tensor as dealt with (a tied head that repeats the embedding, a block read through find()).
  void mark_taken(std::string_view canonical) { taken_.emplace(canonical); }

  /// What finish() would complain about.
  struct Report {
    std::vector<std::string> missing;     ///< canonical names
    std::vector<std::string> unexpected;  ///< "canonical (file's name in file)"
    std::vector<std::string> misshaped;   ///< "canonical: expected [a, b], found [c, d] in file"
    bool ok() const { return missing.empty() && unexpected.empty() && misshaped.empty(); }
  };
  Report report() const;
  /// Throws one Error{kInput} with everything that is missing, misshaped or unexpected (the first 20 of
  /// each, and counts).
  void finish() const;

  /// Bytes of new memory that taking every entry as `dtype` would need: 0 for entries used in place.
  std::size_t bytes_to_copy(c10::ScalarType dtype) const;

 private:
  std::map<std::string, Entry, std::less<>> entries_;
  std::set<std::string, std::less<>> taken_, missing_;
  std::map<std::string, std::string, std::less<>> misshaped_;
};

}  // namespace llava
