// Memory and a barrier shared by the threads of one linear layer. Internal to the linear layers.
#pragma once

#include <immintrin.h>

#include <atomic>
#include <vector>

#include "backend/cpu/aligned_buffer.h"
#include "backend/cpu/linear.h"

namespace bise {

// All threads of a run wait for each other. Spins: the wait is a few hundred nanoseconds.
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
    while (round_.load(std::memory_order_acquire) == round) _mm_pause();
  }

 private:
  const int threads_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
};

struct LinearScratch::Buffers {
  static constexpr std::int64_t kPanelBytes = 32 * 2048;  // 32 rows of one block of columns

  struct PerThread {
    AlignedBuffer<std::byte> panel{kPanelBytes};
    AlignedBuffer<float> products{4 * 256};
    AlignedBuffer<float> sums{CpuLinearInput::kChunkRows *
                              32};  // gate and up of 16 columns for a chunk's rows
  };

  explicit Buffers(int thread_count)
      : barrier(thread_count), threads(static_cast<std::size_t>(thread_count)) {}

  SpinBarrier barrier;
  std::vector<PerThread> threads;
};

}  // namespace bise
