#include "eval/python_random.h"

#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <sstream>
#include <unordered_set>
#include <utility>

#include "base/check.h"

namespace bise {
namespace {

constexpr std::size_t kWords = 624;

// init_by_array of the reference MT19937, which std::mt19937 lacks; the state enters the engine as text.
std::mt19937 seeded_engine(std::uint64_t seed) {
  std::vector<std::uint32_t> key = {static_cast<std::uint32_t>(seed)};
  if (seed >> 32) key.push_back(static_cast<std::uint32_t>(seed >> 32));
  std::array<std::uint32_t, kWords> state;
  state[0] = 19650218u;
  for (std::uint32_t i = 1; i < kWords; ++i)
    state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
  const auto wrap = [&](std::size_t& i) {
    if (++i < kWords) return;
    state[0] = state[kWords - 1];
    i = 1;
  };
  std::size_t i = 1, j = 0;
  for (std::size_t k = 0; k < kWords; ++k) {
    state[i] = (state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30)) * 1664525u)) + key[j] +
               static_cast<std::uint32_t>(j);
    wrap(i);
    j = (j + 1) % key.size();
  }
  for (std::size_t k = 0; k + 1 < kWords; ++k) {
    state[i] =
        (state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30)) * 1566083941u)) - static_cast<std::uint32_t>(i);
    wrap(i);
  }
  state[0] = 0x80000000u;
  std::stringstream text;
  for (const std::uint32_t word : state) text << word << ' ';
  text << kWords;  // all words are used up: the next draw makes new ones
  std::mt19937 engine;
  text >> engine;
  check(!text.fail(), "the state of the random engine is read back");
  return engine;
}

}  // namespace

PythonRandom::PythonRandom(std::uint64_t seed) : engine_(seeded_engine(seed)) {}

double PythonRandom::random() {
  const double high = next32() >> 5, low = next32() >> 6;
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

std::uint32_t PythonRandom::below(std::uint32_t n) {
  check(n > 0, "there is something to draw from");
  const int bits = std::bit_width(n);
  for (;;)
    if (const std::uint32_t drawn = next32() >> (32 - bits); drawn < n) return drawn;
}

std::vector<std::size_t> PythonRandom::sample(std::size_t n, std::size_t k) {
  check(k <= n, "a sample is no larger than the population");
  double set_size = 21;
  if (k > 5) set_size += std::pow(4.0, std::ceil(std::log(static_cast<double>(k) * 3) / std::log(4.0)));
  std::vector<std::size_t> result;
  result.reserve(k);
  if (static_cast<double>(n) <= set_size) {
    std::vector<std::size_t> pool(n);
    std::iota(pool.begin(), pool.end(), std::size_t{0});
    for (std::size_t i = 0; i < k; ++i) {
      const std::size_t j = below(static_cast<std::uint32_t>(n - i));
      result.push_back(pool[j]);
      pool[j] = pool[n - i - 1];
    }
    return result;
  }
  std::unordered_set<std::size_t> selected;
  while (result.size() < k) {
    const std::size_t j = below(static_cast<std::uint32_t>(n));
    if (selected.insert(j).second) result.push_back(j);
  }
  return result;
}

std::vector<std::size_t> PythonRandom::shuffled(std::size_t n) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = n; i-- > 1;) std::swap(order[i], order[below(static_cast<std::uint32_t>(i + 1))]);
  return order;
}

}  // namespace bise
