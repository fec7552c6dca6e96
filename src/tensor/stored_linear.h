// The weight of one linear layer exactly as its checkpoint stores it: what formats/ reads, backend/ computes
// with and quantize/ writes. Tensors are views of the mapped file; nothing is expanded.
#pragma once

#include <cstdint>

#include "tensor/scheme.h"
#include "tensor/tensor.h"

namespace bise {

// y[rows] = W[rows, columns] x[columns] + bias. Layouts by scheme (spec/quantization.md section 2 and 7.2):
//
//   unquantized      weight BF16/F16/F32 [rows, columns]
//   float 8 bits     weight F8_E4M3 [rows, columns]; scale [1], [rows, 1] or [ceil(rows/bh),
//   ceil(columns/bw)] int, as bytes    weight I8 [rows, columns]; scale [1], [rows, 1] or [rows,
//   columns/group_size];
//                    zero_point I8 shaped as scale when asymmetric
//   int, packed      weight I32 [rows, ceil(columns*bits/32)] (tensor/pack.h); scale [rows, 1] or
//                    [rows, columns/group_size]; zero_point I32 [ceil(rows*bits/32), columns/group_size]
//                    when asymmetric
//   nf4              weight U8 [rows*columns/2], element 2i in the high nibble of byte i; absmax F32
//                    [ceil(rows*columns/64)]; quant_map F32 [16]
//
// Scales have any float dtype. Value = (code - zero_point) * scale; nf4: quant_map[code] * absmax.
struct StoredLinear {
  Scheme scheme;
  std::int64_t rows = 0, columns = 0;
  std::int64_t block_rows = 0, block_columns = 0;  // Strategy::kBlock only
  Tensor weight;
  Tensor scale;        // empty when unquantized or nf4
  Tensor zero_point;   // empty when symmetric
  Tensor g_idx;        // I32 [columns], the group of each column; empty = column / group_size
  Tensor absmax;       // nf4
  Tensor quant_map;    // nf4
  Tensor input_scale;  // F32-convertible [1], InputType::kFp8Tensor only
  Tensor bias;         // any float dtype [rows]; empty = none

  bool packed() const { return scheme.type == WeightType::kInt && weight.dtype() == DType::kI32; }
};

// Bytes of all its tensors.
std::int64_t stored_bytes(const StoredLinear& linear);

// Row `row` of W in float32: the definition that every kernel is compared with. `out` holds `columns` values.
void dequantize_row(const StoredLinear& linear, std::int64_t row, std::span<float> out);

}  // namespace bise
