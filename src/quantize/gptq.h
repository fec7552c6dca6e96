// GPTQ (Frantar et al. 2022) as llm-compressor implements it: spec/quantization.md section 4.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "quantize/observer.h"
#include "tensor/stored_linear.h"

namespace bise {

struct GptqOptions {
  double dampening_frac = 0.01;
  std::int64_t block_size = 128;
  // Columns in descending order of the Hessian's diagonal; groups stay where they are in the file.
  bool static_activation_order = true;
  // Derive the codes once more from the dequantized weight in the model's type, as the reference does when it
  // saves: that moves 0.4 % of 8-bit codes by one (spec/quantization.md section 3.1).
  bool derive_codes_again = false;
};

// What the diagonal of a Hessian says.
struct GptqColumns {
  std::vector<std::int32_t> order;  // order[i] = the column that is quantized i-th
  std::vector<bool> dead;           // by original column: no input ever reached it
  float damping = 0;                // added to the diagonal, where dead columns get 1
};
GptqColumns plan_columns(std::span<const float> diagonal, const GptqOptions& options);

// What all matrices with the same input share: the Hessian's inverse as Cholesky factor, and the order.
// Made once for q, k, v and once for gate, up.
struct GptqFactor {
  std::int64_t columns = 0;
  std::vector<std::int32_t> order;  // order[i] = the column that is quantized i-th
  std::vector<bool> dead;           // by original column: no input ever reached it
  std::vector<float> upper;         // U [columns, columns] row-major, H^-1 = U^T U, in `order`
  bool round_to_nearest = false;    // the Hessian was not positive definite; U is the identity
};

// `hessian` [columns, columns]: its upper triangle is used; a common positive factor does not matter.
GptqFactor factor_hessian(std::span<const float> hessian, std::int64_t columns, const GptqOptions& options);

struct GptqResult {
  StoredLinear stored;
  double loss = 0;  // sum of (w - q)^2 / (2 U_ii^2): the reference's "error"
};

// `weight` [rows, columns] in float32, values representable in arithmetic.dtype(). Scales come from the
// original weight and are never refreshed. Integer and e4m3 schemes with scales per channel or group.
// Bit-identical for any number of threads.
GptqResult quantize_gptq(std::span<const float> weight, std::int64_t rows, const GptqFactor& factor,
                         const Scheme& scheme, const Arithmetic& arithmetic, const GptqOptions& options,
                         ThreadPool& pool);

}  // namespace bise
