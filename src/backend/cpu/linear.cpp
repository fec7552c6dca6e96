#include "backend/cpu/linear.h"

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
  switch (made.isa()) {
    case Isa::kScalar: return scalar_gated_linear(pool, scratch.buffers(), in, made, out);
    case Isa::kAvx2: return avx2_gated_linear(pool, scratch.buffers(), in, made, out);
    case Isa::kAvx512: return avx512_gated_linear(pool, scratch.buffers(), in, made, out);
    case Isa::kAmx: return amx_gated_linear(pool, scratch.buffers(), in, made, out);
  }
}

}  // namespace bise
