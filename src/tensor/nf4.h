#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

/// Weights in 4 bits (NormalFloat 4) as bitsandbytes 0.50 stores them, byte for byte on a CPU: blocks of 64
/// elements, row-major, with one float32 scale each; with double quantisation the scales themselves are 8-bit
/// codes. QLoRA, Dettmers et al. 2023.
namespace llava {

/// One packed matrix; copies share memory.
struct Nf4Matrix {
  at::Tensor packed;         ///< [ceil(n/2), 1] uint8, the even element in the high half
  at::Tensor absmax;         ///< [blocks] float32, or uint8 codes with double quantisation
  at::Tensor nested_absmax;  ///< [ceil(blocks/256)] float32; undefined without double quantisation
  at::Tensor offset;         ///< float32 scalar, the mean of the scales; undefined likewise
  std::vector<std::int64_t> shape;
  c10::ScalarType dtype = c10::ScalarType::Float;  ///< of the matrix that was packed
  std::int64_t blocksize = 64;

  bool is_nested() const { return nested_absmax.defined(); }
  std::int64_t num_elements() const;
  std::size_t num_bytes() const;
};

/// Packs a float32, bfloat16 or float16 tensor on any device.
Nf4Matrix quantise_nf4(const at::Tensor& weight, bool double_quant, std::int64_t blocksize = 64);

/// The matrix again: code * scale in float32, rounded to the packed matrix's dtype, then to `dtype`.
at::Tensor dequantise_nf4(const Nf4Matrix& matrix, c10::ScalarType dtype);

/// The tensors of bitsandbytes' state_dict for a weight of this name: `name` itself, `name.absmax`,
/// `name.quant_map`, … and `name.quant_state.bitsandbytes__nf4` with its JSON text.
std::vector<std::pair<std::string, at::Tensor>> nf4_state(const Nf4Matrix& matrix, const std::string& name);

/// The 16 values a code stands for.
const std::array<float, 16>& nf4_values();
/// The 256 values of the signed dynamic map that 8-bit scales are codes of.
const std::array<float, 256>& dynamic_map_values();

}  // namespace llava
