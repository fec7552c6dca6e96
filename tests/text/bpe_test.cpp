// The engine against the definition: at every step the lowest-ranked, then leftmost pair merges.
#include "text/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "text/utf8.h"

namespace bise {
namespace {

using Ids = std::vector<std::int32_t>;

Ids merge_by_definition(Ids ids, const std::vector<BpeMerge>& merges) {
  std::map<std::pair<std::int32_t, std::int32_t>, BpeMerge> by_pair;
  for (const BpeMerge& merge : merges) by_pair[{merge.left, merge.right}] = merge;
  while (true) {
    const BpeMerge* best = nullptr;
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = by_pair.find({ids[i], ids[i + 1]});
      if (found == by_pair.end() || (best && best->rank <= found->second.rank)) continue;
      best = &found->second;
      at = i;
    }
    if (!best) return ids;
    ids[at] = best->result;
    ids.erase(ids.begin() + at + 1);
  }
}

// Words of 1 to 120 symbols reach the scan and the heap; a long text reaches the memory of seen words.
TEST(BpeTest, MergesAsDefined) {
  std::mt19937 random(1);
  for (int round = 0; round < 40; ++round) {
    BpeModel model;
    model.byte_symbols = round % 2 == 0;
    const std::vector<std::string> letters =
        model.byte_symbols ? std::vector<std::string>{"a", "b", "c"}
                           : std::vector<std::string>{std::string(kWordStartMark), "b", "\xC3\xA9"};
    model.tokens = letters;
    // Some ranks are equal in every third round, as SentencePiece's scores can be.
    std::vector<std::uint32_t> ranks(3);
    const bool by_rank = round % 3 == 0;
    for (std::uint32_t i = 0; i < 30; ++i) {
      const auto left = static_cast<std::int32_t>(random() % model.tokens.size());
      const auto right = static_cast<std::int32_t>(random() % model.tokens.size());
      const std::string joined = model.tokens[left] + model.tokens[right];
      if (std::find(model.tokens.begin(), model.tokens.end(), joined) != model.tokens.end()) continue;
      // Half of the models keep the mark at the front of tokens only, so that texts are cut there.
      if (round % 4 < 2 && joined.find(kWordStartMark, 1) != std::string::npos) continue;
      const auto id = static_cast<std::int32_t>(model.tokens.size());
      model.tokens.push_back(joined);
      ranks.push_back(i / 4);
      if (!by_rank) model.merges.push_back({left, right, id, i});
    }
    if (by_rank) add_merges_by_rank(model, ranks);
    const std::vector<BpeMerge> merges = model.merges;
    const auto vocab_size = static_cast<std::int32_t>(model.tokens.size());
    const Bpe bpe(std::move(model), vocab_size);
    BpeScratch scratch(1 << 20);
    std::vector<std::string> words;
    for (int i = 0; i < 200; ++i) {
      std::string word;
      Ids symbols;
      for (std::size_t length = 1 + random() % (i % 10 == 0 ? 120 : 8); length > 0; --length) {
        symbols.push_back(static_cast<std::int32_t>(random() % 3));
        word += letters[symbols.back()];
      }
      words.push_back(word);
      Ids ids, again;
      bpe.encode_word(word, *std::make_unique<BpeScratch>(0), ids);
      ASSERT_EQ(ids, merge_by_definition(symbols, merges)) << "round " << round << ", word " << word;
    }
    // With memory: every word twice.
    words.insert(words.end(), words.begin(), words.end());
    Ids together, apart;
    for (const std::string& word : words) {
      bpe.encode_word(word, scratch, together);
      bpe.encode_word(word, *std::make_unique<BpeScratch>(0), apart);
    }
    ASSERT_EQ(together, apart) << "round " << round;
  }
}

TEST(BpeTest, MergesThroughCharactersThatAreNoTokens) {
  BpeModel model;
  model.tokens = {"<unk>", "a", "xy", "axy"};
  model.tokens[0].clear();
  model.unk_id = 0;
  add_merges_by_rank(model, {0, 9, 1, 2});
  const Bpe bpe(std::move(model), 4);
  BpeScratch scratch(0);
  const std::pair<const char*, Ids> cases[] = {{"axy", {3}},   {"xy", {2}}, {"ax", {1, 0}},
                                               {"xx", {0, 0}}, {"", {}},    {"yxy", {0, 2}}};
  for (const auto& [word, expected] : cases) {
    Ids ids;
    bpe.encode_word(word, scratch, ids);
    EXPECT_EQ(ids, expected) << word;
  }
}

TEST(BpeTest, LongWordsTakeLinearithmicTime) {
  BpeModel model;
  model.byte_symbols = true;
  model.tokens = {"a", "aa", "aaaa"};
  model.merges = {{0, 0, 1, 0}, {1, 1, 2, 1}};
  const Bpe bpe(std::move(model), 3);
  BpeScratch scratch(0);
  Ids ids;
  const std::string word(1 << 20, 'a');  // a quadratic merge would take many minutes
  bpe.encode_word(word, scratch, ids);
  EXPECT_EQ(ids, Ids(1 << 18, 2));
}

}  // namespace
}  // namespace bise
