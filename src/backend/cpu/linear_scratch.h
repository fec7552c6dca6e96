// Memory and a barrier shared by the threads of one linear layer. Internal to the linear layers.
#pragma once

#include <immintrin.h>

#include <atomic>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "backend/cpu/aligned_buffer.h"
#include "backend/cpu/linear.h"

namespace bise {

// All threads of a run wait for each other. Spins, since the wait is a few hundred nanoseconds, and yields
// where another process has taken the processor.
class SpinBarrier {
 public:
  explicit SpinBarrier(int threads) : threads_(threads) {}
  void wait() {
    const int round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int spin = 0; round_.load(std::memory_order_acquire) == round; ++spin) {
      if (spin < kSpins)
        _mm_pause();
      else
        std::this_thread::yield();
    }
  }

 private:
  static constexpr int kSpins = 1000;
  const int threads_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
};

struct LinearScratch::Buffers {
  static constexpr std::int64_t kPanelBytes = 80 << 10;   // two times 32 rows of widened weights
  static constexpr std::int64_t kPackedBytes = 16 << 20;  // input rows as tiles; mostly untouched
  static constexpr std::int64_t kProducts = 4 * 256;  // floats of a unit's products with 32 rows of the input

  struct PerThread {
    AlignedBuffer<std::byte> panel{kPanelBytes}, packed{kPackedBytes};
    AlignedBuffer<float> products{(CpuLinearInput::kChunkRows / 32 + 1) * kProducts};
    AlignedBuffer<float> sums{CpuLinearInput::kChunkRows *
                              32};  // gate and up of 16 columns for a chunk's rows
  };

  explicit Buffers(int thread_count)
      : barrier(thread_count), threads(static_cast<std::size_t>(thread_count)) {}

  // [rows, columns] for the products of halved rows; one for each number of columns, grown to the largest.
  CpuMatrix& half_products(std::int64_t rows, std::int64_t columns) {
    std::unique_ptr<CpuMatrix>& products = halves[columns];
    if (!products || products->max_rows() < rows) products = std::make_unique<CpuMatrix>(rows, columns);
    return *products;
  }

  std::map<std::int64_t, std::unique_ptr<CpuMatrix>> halves;
  SpinBarrier barrier;
  std::vector<PerThread> threads;
};

}  // namespace bise
