// Which tokens are scored: the split of a context and its continuation (spec/evaluation.md section 2.1, with
// the tokens that lm_eval gave on SmolLM2), and the windows of a whole text (section 2.2).
#include <gtest/gtest.h>

#include "eval/local_model.h"
#include "tests/test_support.h"

namespace bise {
namespace {

using Tokens = std::vector<std::int32_t>;

TEST(TokenSplit, ContextAndContinuation) {
  BISE_SKIP_IF_ABSENT(smollm2_path(), "the SmolLM2 checkpoint");
  const auto tokenizer = Tokenizer::load(smollm2_path());
  const EncodeText encode = [&](std::string_view text, bool special) {
    return encode_text(*tokenizer, text, special);
  };
  struct Case {
    const char *context, *continuation;
    std::size_t context_tokens;
    Tokens rest;
  };
  const std::int32_t prefix = 7;
  for (const Case& test :
       {Case{"Question: Which is 1000?\nAnswer:", " item 1000", 13, {5033, 216, 33, 32, 32, 32}},
        Case{"Answer: ", " (A)", 2, {216, 365, 49, 25}}, Case{"<|im_start|>assistant\n", "A", 3, {198, 49}},
        Case{"", "A", 1, {49}}}) {
    const auto [begin, rest] = encode_pair(encode, test.context, test.continuation, prefix);
    EXPECT_EQ(begin.size(), test.context_tokens) << test.context;
    EXPECT_EQ(rest, test.rest) << test.context;
  }
}

TEST(TokenSplit, LongTextsLoseTheirBeginning) {
  const EncodeText bytes = [](std::string_view text, bool) { return Tokens(text.begin(), text.end()); };
  const auto sequences = sequences_of({"abcdefgh", "ij"}, bytes, 0, 4);
  ASSERT_EQ(sequences.size(), 1u);
  EXPECT_EQ(sequences[0].token_ids, (Tokens{'f', 'g', 'h', 'i', 'j'}));
  EXPECT_EQ(sequences[0].first, 3);
  EXPECT_TRUE(sequences_of({"abc", ""}, bytes, 0, 4).empty());
}

// lm_eval.utils.get_rolling_token_windows(range(n), prefix, max_seq_len=4, context_len=1), made disjoint.
TEST(TokenSplit, WindowsOfAText) {
  struct Case {
    std::int32_t tokens;
    std::vector<Tokens> windows;
    std::vector<std::int64_t> first;
  };
  for (const Case& test :
       {Case{10, {{99, 0, 1, 2, 3}, {3, 4, 5, 6, 7}, {5, 6, 7, 8, 9}}, {1, 1, 3}},
        Case{4, {{99, 0, 1, 2, 3}}, {1}}, Case{5, {{99, 0, 1, 2, 3}, {0, 1, 2, 3, 4}}, {1, 4}},
        Case{1, {{99, 0}}, {1}}, Case{0, {}, {}}}) {
    Tokens tokens;
    for (std::int32_t i = 0; i < test.tokens; ++i) tokens.push_back(i);
    const auto windows = rolling_windows(tokens, 99, 4);
    ASSERT_EQ(windows.size(), test.windows.size()) << test.tokens;
    for (std::size_t w = 0; w < windows.size(); ++w) {
      EXPECT_EQ(windows[w].token_ids, test.windows[w]) << test.tokens << " window " << w;
      EXPECT_EQ(windows[w].first, test.first[w]) << test.tokens << " window " << w;
    }
  }
}

}  // namespace
}  // namespace bise
