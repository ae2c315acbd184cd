#include "model/int8_product.h"

#include <torch/torch.h>

#include "base/error.h"
#include "model/floats.h"
#include "model/kernels.h"

namespace llava::fused {

namespace {

const float* floats_or_null(const at::Tensor& x) { return x.defined() ? floats(x) : nullptr; }

}  // namespace

Int8Rows to_int8(const at::Tensor& a, const at::Tensor& column_scale) {
  LLAVA_ASSERT(a.dim() == 2 && a.stride(1) == 1, "rows in memory");
  Int8Rows rows{at::empty(a.sizes(), a.options().dtype(at::kChar)), at::empty({a.size(0)}, a.options())};
  kernels::quantise_rows(floats(a), a.stride(0), floats_or_null(column_scale), a.size(0), a.size(1),
                         rows.values.mutable_data_ptr<std::int8_t>(), floats(rows.scales));
  return rows;
}

void int8_product(const Int8Rows& a, const at::Tensor& b, const at::Tensor& out_scale, at::Tensor& out, bool add) {
  LLAVA_ASSERT(out.dim() == 2 && out.stride(1) == 1, "rows in memory");
  const at::Tensor sums = at::_int_mm(a.values, b);
  kernels::dequantise(sums.const_data_ptr<std::int32_t>(), floats(a.scales), floats_or_null(out_scale), sums.size(0),
                      sums.size(1), floats(out), out.stride(0), add);
}

}  // namespace llava::fused
