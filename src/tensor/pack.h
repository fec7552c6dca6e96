// Bit packing of integer codes as compressed-tensors "pack-quantized" stores it
// (spec/quantization.md section 2, "Packing"), and of NF4 nibbles as bitsandbytes does (section 7.2).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "tensor/tensor.h"

namespace bise {

// Signed codes [rows, columns] (I8, each in [-2^(bits-1), 2^(bits-1)-1]) -> I32 [rows,
// ceil(columns*bits/32)]. Code k of a row, offset by 2^(bits-1), occupies bits [k*bits, (k+1)*bits) of the
// row's little-endian bit string. `bits` is 2..8.
Tensor pack_rows(const Tensor& codes, int bits);

// The inverse; `columns` of I8 a row. Throws Error when `packed` has another width.
Tensor unpack_rows(const Tensor& packed, int bits, std::int64_t columns);

// The same along the other axis, for zero points: [rows, columns] -> I32 [ceil(rows*bits/32), columns].
Tensor pack_columns(const Tensor& codes, int bits);
Tensor unpack_columns(const Tensor& packed, int bits, std::int64_t rows);

// The 16 NormalFloat values, ascending (QLoRA, Dettmers et al. 2023, appendix E).
extern const std::array<float, 16> kNf4Values;

}  // namespace bise
