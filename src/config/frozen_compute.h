#pragma once
#include "base/fields.h"

namespace llava {

/// How products with the decoder's frozen matrices are computed while training: as the weights are, or with
/// weights, activations and gradients rounded to 8 bits (CPU only; about 1 % noise a product, see
/// docs/training.md).
enum class FrozenCompute { kModel, kInt8 };

template <>
struct EnumTable<FrozenCompute> {
  static constexpr std::pair<const char*, FrozenCompute> names[] = {{"model", FrozenCompute::kModel},
                                                                    {"int8", FrozenCompute::kInt8}};
};

}  // namespace llava
