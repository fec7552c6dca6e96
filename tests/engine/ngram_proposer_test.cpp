#include "engine/ngram_proposer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace bise {
namespace {

using Tokens = std::vector<std::int32_t>;

Tokens letters(const std::string& text) {
  return {text.begin(), text.end()};
}

// The definition: of the suffix n-grams that occur earlier the longest, at its earliest place.
Tokens by_definition(const Tokens& history, std::size_t min, std::size_t max, std::size_t count) {
  for (std::size_t n = std::min(max, history.size()); n >= min; --n)
    for (std::size_t begin = 0; begin + n < history.size(); ++begin)
      if (std::equal(history.end() - static_cast<std::ptrdiff_t>(n), history.end(),
                     history.begin() + static_cast<std::ptrdiff_t>(begin))) {
        const auto first = history.begin() + static_cast<std::ptrdiff_t>(begin + n);
        return {first,
                first + std::min<std::ptrdiff_t>(history.end() - first, static_cast<std::ptrdiff_t>(count))};
      }
  return {};
}

Tokens proposed(const NgramProposer& proposer, const Tokens& history, std::int64_t count) {
  const auto tokens = proposer.propose(history, count);
  return {tokens.begin(), tokens.end()};
}

TEST(NgramProposer, ProposesWhatFollowedTheLongestMatch) {
  struct Case {
    const char* history;
    std::int64_t min, max, count;
    const char* proposal;
  };
  const Case cases[] = {
      {"abcdefab", 2, 2, 3, "cde"},  {"abcdefab", 3, 3, 3, ""},
      {"abcdefab", 1, 3, 3, "cde"},  {"abxcabycab", 2, 2, 2, "xc"},  // the earliest of two
      {"abxcabycab", 2, 3, 2, "yc"},                                 // a longer match wins
      {"aaaa", 2, 2, 5, "aa"},                                       // it may overlap the suffix
      {"ab", 2, 2, 3, ""},                                           // the suffix itself is no match
      {"abcab", 2, 2, 0, ""},        {"a", 1, 5, 3, ""},
  };
  for (const Case& each : cases) {
    const Tokens history = letters(each.history);
    NgramProposer proposer(each.min, each.max);
    proposer.update(history);
    EXPECT_EQ(proposed(proposer, history, each.count), letters(each.proposal)) << each.history;
  }
}

TEST(NgramProposer, EqualsItsDefinitionOnRandomTexts) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    const auto min = 1 + random() % 3, max = min + random() % 4, alphabet = 1 + random() % 6;
    NgramProposer proposer(min, max);
    Tokens history;
    while (history.size() < 200) {
      for (auto more = 1 + random() % 4; more > 0; --more)
        history.push_back(static_cast<std::int32_t>(random() % alphabet));
      proposer.update(history);
      ASSERT_EQ(proposed(proposer, history, 4), by_definition(history, min, max, 4)) << "round " << round;
    }
  }
}

}  // namespace
}  // namespace bise
