#include "tensor/weight_store.h"

#include <ATen/ops/zeros.h>

#include "base/error.h"
#include "tensor/convert.h"

namespace llava {

namespace {

constexpr std::size_t kListed = 20;

std::string section(const char* title, const std::vector<std::string>& items) {
  if (items.empty()) return {};
  std::string text = fmt::format("\n{} {}:", items.size(), title);
  for (std::size_t i = 0; i < items.size() && i < kListed; ++i) text += "\n  " + items[i];
  if (items.size() > kListed) text += fmt::format("\n  … and {} more", items.size() - kListed);
  return text;
}

}  // namespace

void WeightStore::add(std::shared_ptr<const TensorFile> file, const Rename& rename) {
  std::map<std::string, Entry, std::less<>> added;
  for (const TensorView& view : file->tensors()) {
    std::optional<std::string> canonical = rename ? rename(view.name) : view.name;
    if (!canonical) continue;
    const auto [it, is_new] = added.try_emplace(*std::move(canonical), Entry{view.name, &view, file});
    if (!is_new)
      fail(ErrorKind::kFormat, "{}: tensors \"{}\" and \"{}\" are both {}", file->path().string(),
           it->second.name, view.name, it->first);
  }
  for (auto& [canonical, entry] : added) entries_.insert_or_assign(canonical, std::move(entry));
}

const WeightStore::Entry* WeightStore::find(std::string_view canonical) const {
  const auto it = entries_.find(canonical);
  return it == entries_.end() ? nullptr : &it->second;
}

at::Tensor WeightStore::take(std::string_view canonical, at::IntArrayRef shape, c10::ScalarType dtype) {
  at::Tensor tensor = take_optional(canonical, shape, dtype);
  if (tensor.defined()) return tensor;
  missing_.emplace(canonical);
  return at::zeros({}, dtype).expand(shape);
}

at::Tensor WeightStore::take_optional(std::string_view canonical, at::IntArrayRef shape,
                                      c10::ScalarType dtype) {
  const Entry* entry = find(canonical);
  if (entry == nullptr) return {};
  mark_taken(canonical);
  if (at::IntArrayRef(entry->view->shape) != shape) {
    misshaped_[std::string(canonical)] =
        fmt::format("{}: expected {}, found {} in {}", canonical, shape_text(shape),
                    shape_text(entry->view->shape), entry->file->path().filename().string());
    return at::zeros({}, dtype).expand(shape);
  }
  return with_context(entry->file->path().string(),
                      [&] { return to_tensor(*entry->view, entry->file, dtype); });
}

WeightStore::Report WeightStore::report() const {
  Report report;
  report.missing.assign(missing_.begin(), missing_.end());
  for (const auto& [canonical, text] : misshaped_) report.misshaped.push_back(text);
  for (const auto& [canonical, entry] : entries_) {
    if (taken_.contains(canonical)) continue;
    const std::string file = entry.file->path().filename().string();
    report.unexpected.push_back(entry.name == canonical
                                    ? fmt::format("{} (in {})", canonical, file)
                                    : fmt::format("{} ({} in {})", canonical, entry.name, file));
  }
  return report;
}

void WeightStore::finish() const {
  const Report found = report();
  if (found.ok()) return;
  throw Error(
      ErrorKind::kInput,
      fmt::format("the weights do not fit the model:{}{}{}", section("missing", found.missing),
                  section("of another shape", found.misshaped), section("unexpected", found.unexpected)),
      "`llava inspect weights DIR` lists every tensor of the checkpoint with its canonical name");
}

std::size_t WeightStore::bytes_to_copy(c10::ScalarType dtype) const {
  std::size_t bytes = 0;
  for (const auto& [canonical, entry] : entries_)
    if (!is_in_place(*entry.view, dtype))
      bytes += static_cast<std::size_t>(entry.view->num_elements()) * c10::elementSize(dtype);
  return bytes;
}

}  // namespace llava
