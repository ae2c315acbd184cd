#include "model/block_products.h"

#include <torch/torch.h>

#include <algorithm>
#include <atomic>

#include "model/fused_block.h"
#include "model/int8_product.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace llava::fused {

namespace {

bool cpu_is_good_at_bfloat16() {
#if defined(__x86_64__) && defined(__GNUC__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & (1U << 22)) != 0) return true;  // AMX-BF16
  if (__get_cpuid(0, &a, &b, &c, &d) == 0) return false;
  const bool amd = b == 0x68747541U;  // "Auth"enticAMD
  return amd && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1U << 5)) != 0;
#else
  return false;
#endif
}

std::atomic<bool>& native() {
  static std::atomic<bool> value = cpu_is_good_at_bfloat16();
  return value;
}

at::Tensor wide(const at::Tensor& x) { return x.detach().to(at::kFloat); }

at::Tensor columns_of(const at::Tensor& x, std::int64_t begin, const at::Tensor& weight) {
  return x.narrow(1, begin, weight.size(0));
}

}  // namespace

bool native_bfloat16() { return native(); }
c10::ScalarType compute_type(c10::ScalarType dtype, const c10::Device& device) {
  return dtype == at::kBFloat16 && device.is_cpu() && !native_bfloat16() ? at::kFloat : dtype;
}
void set_native_bfloat16(bool value) { native() = value; }

at::Tensor grown(at::Tensor& buffer, std::int64_t rows, std::int64_t columns) {
  const c10::InferenceMode normal_tensors(false);
  const at::NoGradGuard no_grad;
  if (!buffer.defined() || buffer.numel() < rows * columns) buffer = at::empty({rows * columns}, at::kFloat);
  return buffer.narrow(0, 0, rows * columns).view({rows, columns});
}

BlockProducts::BlockProducts(const std::vector<at::Tensor>& parameters, c10::ScalarType dtype)
    : native_(dtype == at::kBFloat16 && native_bfloat16()) {
  for (const at::Tensor& p : parameters) parameters_.push_back(p);
}

std::int64_t BlockProducts::out_size(const Group& group) const {
  std::int64_t sum = 0;
  for (const Part& part : group) sum += parameters_[part.weight].size(0);
  return sum;
}

/// Float32 matrices without pairs are used where they are.
bool BlockProducts::direct(const Group& group) const {
  return std::all_of(group.begin(), group.end(), [&](const Part& part) {
    return part.a < 0 && parameters_[part.weight].scalar_type() == at::kFloat;
  });
}

/// All matrices of a group one below the other, with their pairs: [out,in].
at::Tensor BlockProducts::wide_matrix(const Group& group) const {
  static thread_local at::Tensor buffer;
  at::Tensor all = grown(buffer, out_size(group), parameters_[group[0].weight].size(1));
  std::int64_t row = 0;
  for (const Part& part : group) {
    const at::Tensor weight = parameters_[part.weight].detach();
    at::Tensor own = all.narrow(0, row, weight.size(0)).copy_(weight);
    if (part.a >= 0) own.addmm_(wide(at(part.b)), wide(at(part.a)), 1, part.scale);
    row += weight.size(0);
  }
  return all;
}

void BlockProducts::forward(const Group& group, const at::Tensor& x, at::Tensor& y) const {
  std::int64_t column = 0;
  if (group[0].int8 >= 0) {
    forward_int8(group, x, y);
  } else if (native_) {
    forward_native(group, x, y);
  } else if (!direct(group)) {
    at::mm_out(y, x, wide_matrix(group).t());
  } else {
    for (const Part& part : group) {
      const at::Tensor weight = parameters_[part.weight].detach();
      at::Tensor own = columns_of(y, column, weight);
      at::mm_out(own, x, weight.t());
      column += weight.size(0);
    }
  }
  column = 0;
  for (const Part& part : group) {
    if (part.bias >= 0) columns_of(y, column, parameters_[part.weight]).add_(wide(at(part.bias)));
    column += parameters_[part.weight].size(0);
  }
}

void BlockProducts::backward(const Group& group, const at::Tensor& g, const at::Tensor& x, at::Tensor& gx,
                             std::vector<at::Tensor>& grads) const {
  std::int64_t column = 0;
  if (group[0].int8 >= 0) {
    backward_int8(group, g, gx);
  } else if (native_) {
    backward_native(group, g, gx);
  } else if (!direct(group)) {
    at::mm_out(gx, g, wide_matrix(group));
  } else {
    for (const Part& part : group) {
      const at::Tensor weight = parameters_[part.weight].detach(), own = columns_of(g, column, weight);
      if (column == 0) {
        at::mm_out(gx, own, weight);
      } else {
        gx.addmm_(own, weight);
      }
      column += weight.size(0);
    }
  }
  column = 0;
  for (const Part& part : group) {
    const at::Tensor& weight = parameters_[part.weight];
    parameter_gradients(part, columns_of(g, column, weight), x, grads);
    column += weight.size(0);
  }
}

void BlockProducts::parameter_gradients(const Part& part, const at::Tensor& g, const at::Tensor& x,
                                        std::vector<at::Tensor>& grads) const {
  const auto put = [&](std::ptrdiff_t index, const at::Tensor& grad) {
    grads[static_cast<std::size_t>(index)] = grad.to(at(index).scalar_type());
  };
  if (parameters_[part.weight].requires_grad())
    put(static_cast<std::ptrdiff_t>(part.weight), at::mm(g.t(), x));
  if (part.bias >= 0 && at(part.bias).requires_grad()) put(part.bias, g.sum(0));
  if (part.a < 0 || !(at(part.a).requires_grad() || at(part.b).requires_grad())) return;
  const at::Tensor low = at::mm(x, wide(at(part.a)).t());            // [N,r]
  const at::Tensor low_grad = at::mm(g, wide(at(part.b)));           // [N,r]
  put(part.b, at::mm(low.t(), g).mul_(part.scale).t().contiguous());  // thin times wide is the faster way round
  put(part.a, at::mm(low_grad.t(), x).mul_(part.scale));
}

void BlockProducts::forward_int8(const Group& group, const at::Tensor& x, at::Tensor& y) const {
  const Int8Rows rows = to_int8(x, {});
  std::int64_t column = 0;
  for (const Part& part : group) {
    at::Tensor own = columns_of(y, column, parameters_[part.weight]);
    int8_product(rows, at(part.int8).t(), at(part.int8 + 1), own);
    if (part.a >= 0) own.addmm_(at::mm(x, wide(at(part.a)).t()), wide(at(part.b)).t(), 1, part.scale);
    column += own.size(1);
  }
}

void BlockProducts::backward_int8(const Group& group, const at::Tensor& g, at::Tensor& gx) const {
  std::int64_t column = 0;
  for (const Part& part : group) {
    const at::Tensor own = columns_of(g, column, parameters_[part.weight]);
    int8_product(to_int8(own, at(part.int8 + 1)), at(part.int8), {}, gx, column > 0);
    if (part.a >= 0) gx.addmm_(at::mm(own, wide(at(part.b))), wide(at(part.a)), 1, part.scale);
    column += own.size(1);
  }
}

void BlockProducts::forward_native(const Group& group, const at::Tensor& x, at::Tensor& y) const {
  const at::Tensor narrow = x.to(at::kBFloat16);
  std::int64_t column = 0;
  for (const Part& part : group) {
    const at::Tensor weight = parameters_[part.weight].detach();
    at::Tensor own = columns_of(y, column, weight);
    own.copy_(at::mm(narrow, weight.t()));
    if (part.a >= 0) own.addmm_(at::mm(x, wide(at(part.a)).t()), wide(at(part.b)).t(), 1, part.scale);
    column += weight.size(0);
  }
}

void BlockProducts::backward_native(const Group& group, const at::Tensor& g, at::Tensor& gx) const {
  std::int64_t column = 0;
  for (const Part& part : group) {
    const at::Tensor weight = parameters_[part.weight].detach(), own = columns_of(g, column, weight);
    const at::Tensor product = at::mm(own.to(at::kBFloat16), weight);
    if (column == 0) {
      gx.copy_(product);
    } else {
      gx.add_(product);
    }
    if (part.a >= 0) gx.addmm_(at::mm(own, wide(at(part.b))), wide(at(part.a)), 1, part.scale);
    column += weight.size(0);
  }
}

}  // namespace llava::fused
