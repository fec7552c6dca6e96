// CPython's random.Random: the same seed gives the same numbers, samples and shuffles, so that few-shot
// examples are the ones lm-evaluation-harness draws (Lib/random.py, Modules/_randommodule.c). One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace bise {

class PythonRandom {
 public:
  explicit PythonRandom(std::uint64_t seed);

  std::uint32_t next32() { return static_cast<std::uint32_t>(engine_()); }
  // In [0, 1), 53 bits.
  double random();
  // In [0, n); n from 1 to 2^32 - 1.
  std::uint32_t below(std::uint32_t n);
  // random.sample(range(n), k), in the order drawn. k <= n (checked).
  std::vector<std::size_t> sample(std::size_t n, std::size_t k);
  // random.shuffle(list(range(n))).
  std::vector<std::size_t> shuffled(std::size_t n);

 private:
  std::mt19937 engine_;
};

}  // namespace bise
