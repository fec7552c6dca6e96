// Mutations of a valid file for the fuzz tests: the same for the same seed.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>

namespace bise {

// One to four bit flips, byte changes, truncations, splices or 32/64-bit numbers (lengths) replaced.
inline std::string mutated(const std::string& seed, std::mt19937& random) {
  std::string bytes = seed;
  const auto below = [&](std::size_t limit) { return limit == 0 ? 0 : random() % limit; };
  const std::uint64_t numbers[] = {0,
                                   1,
                                   0x7f,
                                   0x80,
                                   0xff,
                                   0xffff,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   std::uint64_t{1} << 62,
                                   ~std::uint64_t{0} >> 1,
                                   ~std::uint64_t{0}};
  for (std::size_t change = 0; change <= below(4); ++change) {
    if (bytes.empty()) break;
    const std::size_t at = below(bytes.size());
    switch (random() % 7) {
      case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8)); break;
      case 1: bytes[at] = static_cast<char>(random()); break;
      case 2: bytes.resize(at); break;
      case 3: bytes.insert(at, seed, below(seed.size()), below(40)); break;
      case 4: bytes.erase(at, below(40)); break;
      case 5: {
        const std::uint64_t number = numbers[below(12)];
        if (bytes.size() >= 8)
          std::memcpy(bytes.data() + below(bytes.size() - 7), &number, random() % 2 ? 8 : 4);
        break;
      }
      case 6: {
        // Decimal digits become other digits: sizes in JSON.
        const std::size_t digit = bytes.find_first_of("0123456789", at);
        if (digit != std::string::npos) bytes.replace(digit, 1, std::to_string(numbers[below(12)]));
        break;
      }
    }
  }
  return bytes;
}

}  // namespace bise
