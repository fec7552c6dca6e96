#include "grammar/plain_run.h"

#include <array>
#include <span>

namespace bise {
namespace {

struct ByteRange {
  std::uint8_t low, high;
};
struct Characters {
  int length;
  std::array<ByteRange, 4> bytes;
};

// The plain characters as sequences of byte ranges (Unicode standard, table 3-7).
constexpr Characters kPlain[] = {
    {1, {{{0x20, 0x21}}}},
    {1, {{{0x23, 0x5B}}}},
    {1, {{{0x5D, 0x7F}}}},
    {2, {{{0xC2, 0xDF}, {0x80, 0xBF}}}},
    {3, {{{0xE0, 0xE0}, {0xA0, 0xBF}, {0x80, 0xBF}}}},
    {3, {{{0xE1, 0xEC}, {0x80, 0xBF}, {0x80, 0xBF}}}},
    {3, {{{0xED, 0xED}, {0x80, 0x9F}, {0x80, 0xBF}}}},
    {3, {{{0xEE, 0xEF}, {0x80, 0xBF}, {0x80, 0xBF}}}},
    {4, {{{0xF0, 0xF0}, {0x90, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}}},
    {4, {{{0xF1, 0xF3}, {0x80, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}}},
    {4, {{{0xF4, 0xF4}, {0x80, 0x8F}, {0x80, 0xBF}, {0x80, 0xBF}}}},
};

// The one state that every byte of `range` leads to, or kDead.
std::uint32_t next_of_all(const Automaton& automaton, std::uint32_t state, ByteRange range) {
  const Automaton::State& from = automaton.states[state];
  for (std::uint32_t i = from.first_edge; i < from.first_edge + from.edge_count; ++i) {
    const Automaton::ByteEdge& edge = automaton.edges[i];
    if (edge.low <= range.low && range.high <= edge.high) return edge.target;
  }
  return Automaton::kDead;
}

// The one state that every plain character leads to, or kDead.
std::uint32_t after_plain(const Automaton& automaton, std::uint32_t state) {
  std::uint32_t result = Automaton::kDead;
  for (const Characters& characters : kPlain) {
    std::uint32_t at = state;
    for (int i = 0; i < characters.length && at != Automaton::kDead; ++i)
      at = next_of_all(automaton, at, characters.bytes[static_cast<std::size_t>(i)]);
    if (at == Automaton::kDead || (result != Automaton::kDead && at != result)) return Automaton::kDead;
    result = at;
  }
  return result;
}

}  // namespace

int plain_run(const Automaton& automaton, std::uint32_t state, int limit) {
  for (int run = 0; run < limit; ++run) {
    const std::uint32_t next = after_plain(automaton, state);
    if (next == Automaton::kDead) return run;
    if (next == state) return limit;
    state = next;
  }
  return limit;
}

}  // namespace bise
