// Linear layers on CPU: weights stay in the checkpoint's scheme and are widened a few rows at a time inside
// the product. They are views of the mapped file, but for those that AMX multiplies as they are. One set of
// kernels per instruction set; which one runs depends on the instruction set and the scheme only, so a row of
// the result does not depend on the other rows; on AMX also on whether there are more than 32 rows
// (planes_amx.h).
//
// Threads: all functions are called from the backend's one thread; they use `pool` inside.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_matrix.h"
#include "backend/cpu/linear_input.h"
#include "base/thread_pool.h"

namespace bise {

class CpuLinearWeight;  // linear_weight.h; a LinearWeight

// The instruction set is `isa` from here on: inputs must be made for the same one. Parts must agree in
// columns and input type. Throws Error naming a scheme that cannot be computed. With a pool, weights that AMX
// multiplies as they are stored are copied into the order of its tiles, after which nothing reads the stored
// ones (but for layers whose rows are not whole tiles): streams of memory then begin with a cache line, are
// long, and lie on huge pages.
std::unique_ptr<LinearWeight> prepare_cpu_linear(std::vector<StoredLinear> parts, Isa isa,
                                                 ThreadPool* pool = nullptr);

// Scratch memory for linear layers on `threads` threads, made once per backend.
class LinearScratch {
 public:
  explicit LinearScratch(int threads);
  ~LinearScratch();
  LinearScratch(LinearScratch&&) noexcept;

  struct Buffers;
  Buffers& buffers() { return *buffers_; }

 private:
  std::unique_ptr<Buffers> buffers_;
};

// out[r, :] = W x[r, :] + bias; sets out's rows. `weight` was made by prepare_cpu_linear.
void linear(ThreadPool& pool, LinearScratch& scratch, const CpuLinearInput& in, const LinearWeight& weight,
            CpuMatrix& out);

// out = encode(silu(gate x) * (up x)); gate_up has the rows of gate, then as many of up. Calls out.begin().
void gated_linear(ThreadPool& pool, LinearScratch& scratch, const CpuLinearInput& in,
                  const LinearWeight& gate_up, InputEncoding encoding, CpuLinearInput& out);

}  // namespace bise
