#include "train/slices.h"

#include <torch/torch.h>

namespace llava {

void put_in_slices(const at::Tensor& tensor, at::Tensor part) {
  const at::Tensor flat = tensor.reshape(-1);
  const std::int64_t padding = part.numel() - flat.numel();
  part.copy_((padding > 0 ? at::constant_pad_nd(flat, {0, padding}) : flat).view(part.sizes()));
}

at::Tensor join_slices(const at::Tensor& part, at::IntArrayRef shape) {
  std::int64_t numel = 1;
  for (const std::int64_t n : shape) numel *= n;
  const at::Tensor flat = part.is_contiguous() ? part.clone().view(-1) : part.reshape(-1);
  return flat.narrow(0, 0, numel).view(shape);
}

}  // namespace llava
