#include "backend/cpu/linear.h"

#include <algorithm>

#include "backend/cpu/kernels.h"
#include "backend/cpu/linear_kernels.h"
#include "backend/cpu/linear_scratch.h"
#include "backend/cpu/linear_weight.h"
#include "base/check.h"

namespace bise {
namespace {

const CpuLinearWeight& checked(const CpuLinearInput& in, const LinearWeight& weight) {
  const auto& made = dynamic_cast<const CpuLinearWeight&>(weight);
  check(in.columns() == made.columns() && in.type() == made.input_type() && in.isa() == made.isa(),
        "a linear layer's input has its columns and encoding");
  return made;
}

constexpr std::int64_t kRowGrain = 4;

// Products of the halves of a row, added into the first of them.
float* added_halves(CpuMatrix& products, const CpuLinearWeight& weight, std::int64_t row) {
  const RowKernels& kernels = row_kernels(weight.isa());
  float* sum = products.row(2 * row);
  kernels.add_scaled(products.row(2 * row + 1), 1, sum, products.columns());
  if (weight.bias()) kernels.add_scaled(weight.bias(), -1, sum, products.columns());  // both halves have it
  return sum;
}

// The products of all half rows [2 in.rows(), weight.rows()].
CpuMatrix& multiply_halves(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                           const CpuLinearWeight& weight) {
  CpuMatrix& products = buffers.half_products(2 * in.max_rows(), weight.rows());
  products.set_rows(2 * in.rows());
  amx_linear(pool, buffers, *in.halves(), weight, products);
  return products;
}

void linear_of_halves(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                      const CpuLinearWeight& weight, CpuMatrix& out) {
  CpuMatrix& products = multiply_halves(pool, buffers, in, weight);
  pool.parallel_for(in.rows(), kRowGrain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row)
      std::copy_n(added_halves(products, weight, row), out.columns(), out.row(row));
  });
}

void gated_linear_of_halves(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                            const CpuLinearWeight& gate_up, CpuLinearInput& out) {
  CpuMatrix& products = multiply_halves(pool, buffers, in, gate_up);
  const RowKernels& kernels = row_kernels(gate_up.isa());
  pool.parallel_for(in.rows(), kRowGrain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      const float* sum = added_halves(products, gate_up, row);
      kernels.gate_columns(sum, sum + out.columns(), out.staging(row), out.columns());
      out.end_row(row);
    }
  });
}

}  // namespace

LinearScratch::LinearScratch(int threads) : buffers_(std::make_unique<Buffers>(threads)) {}
LinearScratch::~LinearScratch() = default;
LinearScratch::LinearScratch(LinearScratch&&) noexcept = default;

void linear(ThreadPool& pool, LinearScratch& scratch, const CpuLinearInput& in, const LinearWeight& weight,
            CpuMatrix& out) {
  const CpuLinearWeight& made = checked(in, weight);
  check(out.columns() == made.rows(), "the output has a column per row of the weight");
  out.set_rows(in.rows());
  if (in.rows() == 0) return;
  if (in.halves()) return linear_of_halves(pool, scratch.buffers(), in, made, out);
  switch (made.isa()) {
    case Isa::kScalar: return scalar_linear(pool, scratch.buffers(), in, made, out);
    case Isa::kAvx2: return avx2_linear(pool, scratch.buffers(), in, made, out);
    case Isa::kAvx512: return avx512_linear(pool, scratch.buffers(), in, made, out);
    case Isa::kAmx: return amx_linear(pool, scratch.buffers(), in, made, out);
  }
}

void gated_linear(ThreadPool& pool, LinearScratch& scratch, const CpuLinearInput& in,
                  const LinearWeight& gate_up, InputEncoding encoding, CpuLinearInput& out) {
  const CpuLinearWeight& made = checked(in, gate_up);
  check(made.rows() == 2 * out.columns(), "gate and up have a row per column of the output");
  out.begin(in.rows(), encoding);
  if (in.rows() == 0) return;
  if (in.halves()) return gated_linear_of_halves(pool, scratch.buffers(), in, made, out);
  switch (made.isa()) {
    case Isa::kScalar: return scalar_gated_linear(pool, scratch.buffers(), in, made, out);
    case Isa::kAvx2: return avx2_gated_linear(pool, scratch.buffers(), in, made, out);
    case Isa::kAvx512: return avx512_gated_linear(pool, scratch.buffers(), in, made, out);
    case Isa::kAmx: return amx_gated_linear(pool, scratch.buffers(), in, made, out);
  }
}

}  // namespace bise
