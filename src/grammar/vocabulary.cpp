#include "grammar/vocabulary.h"

#include <algorithm>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace bise {
namespace {

constexpr std::int64_t kMaxVocabSize = std::int64_t{1} << 24;
// Longer tokens are left out of the tries (real vocabularies end at a few hundred bytes).
constexpr std::size_t kMaxTokenBytes = 4096;

// The number of characters of plain text (see TokenTrie), or -1 when it is not plain.
int plain_characters(std::string_view text) {
  int count = 0;
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    if (step.status != Utf8Status::kCharacter || step.code < 0x20 || step.code == '"' || step.code == '\\')
      return -1;
    text.remove_prefix(step.length);
    ++count;
  }
  return count;
}

// `tokens` sorted by their bytes become a trie in one pass.
Trie make_trie(std::vector<std::int32_t> tokens, const TokenTrie& vocabulary) {
  std::sort(tokens.begin(), tokens.end(), [&](std::int32_t a, std::int32_t b) {
    const int order = vocabulary.bytes(a).compare(vocabulary.bytes(b));
    return order != 0 ? order < 0 : a < b;
  });
  Trie trie;
  std::vector<std::uint32_t> path;  // the nodes from the root to the last one
  std::string_view previous;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::string_view bytes = vocabulary.bytes(tokens[i]);
    const auto [mismatch, ignored] =
        std::mismatch(bytes.begin(), bytes.end(), previous.begin(), previous.end());
    const auto shared = static_cast<std::size_t>(mismatch - bytes.begin());
    for (; path.size() > shared; path.pop_back())
      trie.nodes[path.back()].after = static_cast<std::uint32_t>(trie.nodes.size());
    for (std::size_t depth = shared; depth < bytes.size(); ++depth) {
      path.push_back(static_cast<std::uint32_t>(trie.nodes.size()));
      trie.nodes.push_back({0, static_cast<std::uint32_t>(i), static_cast<std::uint16_t>(depth + 1),
                            static_cast<std::uint8_t>(bytes[depth])});
    }
    // Nodes on the way that end no token have the empty range before the next token.
    trie.max_depth = std::max(trie.max_depth, bytes.size());
    previous = bytes;
  }
  const auto end = static_cast<std::uint32_t>(trie.nodes.size());
  for (const std::uint32_t node : path) trie.nodes[node].after = end;
  trie.nodes.push_back({end + 1, static_cast<std::uint32_t>(tokens.size()), 0, 0});
  trie.tokens = std::move(tokens);
  return trie;
}

}  // namespace

std::shared_ptr<const TokenTrie> TokenTrie::build(const Tokenizer& tokenizer, std::int64_t vocab_size) {
  std::vector<TokenText> tokens(static_cast<std::size_t>(tokenizer.vocab_size()));
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    tokens[static_cast<std::size_t>(id)] = {std::string(tokenizer.token_bytes(id)), tokenizer.is_special(id)};
  }
  return std::make_shared<const TokenTrie>(tokens, vocab_size < 0 ? tokenizer.vocab_size() : vocab_size);
}

TokenTrie::TokenTrie(std::span<const TokenText> tokens, std::int64_t vocab_size) : vocab_size_(vocab_size) {
  if (vocab_size <= 0 || vocab_size > kMaxVocabSize)
    throw Error("the vocabulary has a wrong size")
        .expected("1 to " + std::to_string(kMaxVocabSize))
        .got(std::to_string(vocab_size));
  const std::size_t count = std::min(tokens.size(), static_cast<std::size_t>(vocab_size));
  offsets_.push_back(0);
  for (const TokenText& token : tokens.first(count)) {
    if (!token.bytes.empty() && token.bytes.size() <= kMaxTokenBytes) {
      all_bytes_ += token.special ? kControlTokenBegin + token.bytes + kControlTokenEnd : token.bytes;
    }
    offsets_.push_back(static_cast<std::uint32_t>(all_bytes_.size()));
  }
  std::vector<std::int32_t> plain_short, plain_long, other;
  plain_short_mask_.assign(mask_words(), 0);
  for (std::int32_t token = 0; token < static_cast<std::int32_t>(count); ++token) {
    if (bytes(token).empty()) continue;
    const int characters = plain_characters(bytes(token));
    if (characters < 0) {
      other.push_back(token);
    } else if (characters > kShortCharacters) {
      plain_long.push_back(token);
    } else {
      plain_short.push_back(token);
      plain_short_mask_[static_cast<std::size_t>(token) / 32] |= std::uint32_t{1} << (token % 32);
    }
  }
  plain_short_ = make_trie(std::move(plain_short), *this);
  plain_long_ = make_trie(std::move(plain_long), *this);
  other_ = make_trie(std::move(other), *this);
}

std::string_view TokenTrie::bytes(std::int32_t token) const {
  const auto index = static_cast<std::size_t>(token);
  if (token < 0 || index + 1 >= offsets_.size()) return {};
  return std::string_view(all_bytes_).substr(offsets_[index], offsets_[index + 1] - offsets_[index]);
}

}  // namespace bise
