// How a linear layer is divided among threads and cut into pieces that stay in the cache; the same for every
// instruction set. A `Product` (linear_amx.cpp, linear_rows_kernel.h) multiplies one unit of the weight with
// a chunk of the input. Include inside the target region.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "backend/cpu/gate_kernel.h"
#include "backend/cpu/linear_scratch.h"
#include "backend/cpu/linear_weight.h"

namespace bise {

// Internal linkage: each instruction set has its own copy of every function here.
namespace {

// Two times 16 rows of the weight that one thread multiplies together.
struct Unit {
  static constexpr std::int64_t kHalf = 16;
  std::int64_t row[2];
  std::int64_t count[2];  // 0 .. 16
};

// Where a unit's sums of a chunk's row r go: first + r * stride, 16 floats for each half.
struct UnitSums {
  float* first;
  std::int64_t stride;
  float* half(std::int64_t row, int h) const { return first + row * stride + h * Unit::kHalf; }
};

// The units of one thread: contiguous, so that it reads contiguous weights.
struct UnitRange {
  UnitRange(std::int64_t units, int thread, int threads)
      : begin(units * thread / threads), end(units * (thread + 1) / threads) {}
  std::int64_t begin, end;
};

inline std::int64_t half_count(std::int64_t rows_left) {
  return std::clamp<std::int64_t>(rows_left, 0, Unit::kHalf);
}

// Up to this many rows of input, the weights are read once in the order of memory; beyond, the packed rows of
// a block of columns stay in the cache and the weights pass by.
constexpr std::int64_t kFewRows = 32;

// Rows to multiply together, an even share of `rows`: with `columns` columns they stay in the second-level
// cache.
inline std::int64_t chunk_rows(const CpuLinearInput& in, std::int64_t columns) {
  constexpr std::int64_t kCacheBytes = 5 << 18;
  const std::int64_t row_bytes = std::min(in.row_bytes(), in.row_bytes() * columns / in.columns() + 64);
  const std::int64_t most = std::clamp<std::int64_t>(kCacheBytes / row_bytes, 64, CpuLinearInput::kChunkRows);
  const std::int64_t chunks = std::max<std::int64_t>(1, (in.rows() + most - 1) / most);
  return std::min(CpuLinearInput::kChunkRows, ((in.rows() + chunks - 1) / chunks + 31) / 32 * 32);
}

template <class Product>
void run_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                const CpuLinearWeight& weight, CpuMatrix& out) {
  Product product(in, weight);
  const std::int64_t columns = weight.rows(), units = (columns + 2 * Unit::kHalf - 1) / (2 * Unit::kHalf);
  const auto unit_at = [&](std::int64_t u) {
    const std::int64_t row = 2 * Unit::kHalf * u;
    return Unit{{row, row + Unit::kHalf},
                {half_count(columns - row), half_count(columns - row - Unit::kHalf)}};
  };
  const std::int64_t chunk = chunk_rows(in, product.block_columns());
  const auto body = [&](int thread) {
    typename Product::Worker worker(product, buffers.threads[static_cast<std::size_t>(thread)], nullptr);
    const UnitRange mine(units, thread, pool.threads());
    const std::int64_t count = mine.end - mine.begin, steps = count * product.blocks();
    for (std::int64_t first = 0; first < in.rows(); first += chunk) {
      const std::int64_t rows = std::min(chunk, in.rows() - first);
      if (product.packs()) {
        if (first > 0) buffers.barrier.wait();
        product.pack(first, rows, thread, pool.threads());
        buffers.barrier.wait();
      }
      const bool few = rows <= kFewRows;
      const auto unit_of = [&](std::int64_t step) {
        return unit_at(mine.begin + (few ? step / product.blocks() : step % count));
      };
      const auto block_of = [&](std::int64_t step) { return few ? step % product.blocks() : step / count; };
      for (std::int64_t step = 0; step < steps; ++step) {
        const Unit unit = unit_of(step), next = unit_of(std::min(step + 1, steps - 1));
        const UnitSums sums{out.row(first) + unit.row[0], columns};
        worker.multiply_unit(unit, block_of(step), first, rows, sums, step + 1 < steps ? &next : nullptr,
                             block_of(step + 1));
      }
      worker.finish();
    }
  };
  pool.run(std::ref(body));
}

template <class Product>
void run_gated(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
               const CpuLinearWeight& gate_up, CpuLinearInput& out) {
  Product product(in, gate_up);
  const std::int64_t columns = gate_up.rows() / 2, units = (columns + Unit::kHalf - 1) / Unit::kHalf;
  const auto unit_at = [&](std::int64_t u) {
    const std::int64_t row = Unit::kHalf * u, count = half_count(columns - row);
    return Unit{{row, columns + row}, {count, count}};
  };
  const std::int64_t chunk = chunk_rows(in, in.columns());
  const auto body = [&](int thread) {
    auto& scratch = buffers.threads[static_cast<std::size_t>(thread)];
    typename Product::Worker worker(product, scratch, &out);
    const UnitRange mine(units, thread, pool.threads());
    const std::int64_t blocks = product.blocks(), steps = (mine.end - mine.begin) * blocks;
    const UnitSums sums{scratch.sums.data(), 2 * Unit::kHalf};
    for (std::int64_t first = 0; first < in.rows(); first += chunk) {
      const std::int64_t rows = std::min(chunk, in.rows() - first);
      if (product.packs()) {
        product.pack(first, rows, thread, pool.threads());
        buffers.barrier.wait();
      }
      for (std::int64_t step = 0; step < steps; ++step) {
        const Unit next = unit_at(mine.begin + (step + 1) / blocks);
        worker.multiply_unit(unit_at(mine.begin + step / blocks), step % blocks, first, rows, sums,
                             step + 1 < steps ? &next : nullptr, (step + 1) % blocks);
      }
      worker.finish();
      buffers.barrier.wait();
      const UnitRange encode(rows, thread, pool.threads());
      for (std::int64_t r = encode.begin; r < encode.end; ++r) out.end_row(first + r);
      if (first + chunk < in.rows()) buffers.barrier.wait();
    }
  };
  pool.run(std::ref(body));  // by reference: a std::function of all that is captured would allocate
}

}  // namespace

}  // namespace bise
