// Round to nearest: every weight by itself, no data needed; and what it shares with gptq.h.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "quantize/observer.h"
#include "tensor/stored_linear.h"

namespace bise {

// `weight` [rows, columns] in float32, its values representable in arithmetic.dtype(). Integer, e4m3 and NF4
// schemes. Bit-identical for any number of threads.
StoredLinear quantize_rtn(std::span<const float> weight, std::int64_t rows, std::int64_t columns,
                          const Scheme& scheme, const Arithmetic& arithmetic, ThreadPool& pool);

// The stored form of codes [rows, columns] (bytes as Coder::encode gives them): packed where
// compressed-tensors packs (weight-only integers), scales in the model's type, zero points packed along rows.
StoredLinear store_codes(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t columns,
                         const Scheme& scheme, const QuantParameters& parameters, DType scale_dtype);

// The same of codes that are packed already where compressed-tensors packs.
StoredLinear store_packed(Tensor codes, std::int64_t rows, std::int64_t columns, const Scheme& scheme,
                          const QuantParameters& parameters, DType scale_dtype);

}  // namespace bise
