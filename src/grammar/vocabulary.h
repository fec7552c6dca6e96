// The tokens of a vocabulary as byte strings, sorted into tries that a grammar walks to find which tokens
// may come next. Built once per tokenizer (about 0.1 s for 128k tokens), then immutable: any number of
// threads may read it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

class Tokenizer;

// Bytes around the name of a control token, as the trie and the grammars that ask for control tokens spell
// it. Neither byte occurs in UTF-8, so no text ever matches a control token, nor the reverse.
inline constexpr char kControlTokenBegin = '\xFF', kControlTokenEnd = '\xFE';

struct TokenText {
  std::string bytes;     // what the token stands for in running text; may be part of a character
  bool special = false;  // a control token: `bytes` is its name
};

// A trie in preorder. The children of node i start at i + 1; the first node that is not below i is `after`.
struct TrieNode {
  std::uint32_t after;        // index of the first node that is not below this one
  std::uint32_t first_token;  // the tokens that end here: [first_token, next node's first_token)
  std::uint16_t depth;        // bytes from the root to here, at least 1
  std::uint8_t byte;
};

struct Trie {
  std::vector<TrieNode> nodes;  // with one more at the end that closes the last token range
  std::vector<std::int32_t> tokens;
  std::size_t max_depth = 0;

  std::size_t size() const { return nodes.size() - 1; }
  std::span<const std::int32_t> tokens_at(std::size_t node) const {
    return {tokens.data() + nodes[node].first_token, nodes[node + 1].first_token - nodes[node].first_token};
  }
};

class TokenTrie {
 public:
  // `vocab_size` is the number of rows of the model's logits, or -1 for the tokenizer's own size. It may be
  // larger (those ids are never allowed) or smaller (the tokens beyond it are left out). Throws Error when it
  // is 0 or above 2^24.
  static std::shared_ptr<const TokenTrie> build(const Tokenizer& tokenizer, std::int64_t vocab_size = -1);
  // Token i has tokens[i].bytes; a token without bytes is never allowed.
  TokenTrie(std::span<const TokenText> tokens, std::int64_t vocab_size);

  std::int64_t vocab_size() const { return vocab_size_; }
  // The number of 32-bit words of a mask over the vocabulary.
  std::size_t mask_words() const { return static_cast<std::size_t>((vocab_size_ + 31) / 32); }
  // The bytes the grammar sees for a token, "" for one that is never allowed.
  std::string_view bytes(std::int32_t token) const;

  // Every token is in exactly one of these tries. "Plain" ones consist of whole UTF-8 characters that stand
  // for themselves in a JSON string: no control character, no quote, no backslash. A grammar state that lets
  // kShortCharacters of them pass need not look at the first trie at all.
  static constexpr int kShortCharacters = 16;
  const Trie& plain_short() const { return plain_short_; }  // plain, at most kShortCharacters characters
  const Trie& plain_long() const { return plain_long_; }    // plain, more characters
  const Trie& other() const { return other_; }
  // The tokens of plain_short() as a mask.
  std::span<const std::uint32_t> plain_short_mask() const { return plain_short_mask_; }

 private:
  std::int64_t vocab_size_;
  std::string all_bytes_;               // the bytes of all tokens, one after the other
  std::vector<std::uint32_t> offsets_;  // token i: [offsets_[i], offsets_[i + 1])
  Trie plain_short_, plain_long_, other_;
  std::vector<std::uint32_t> plain_short_mask_;
};

}  // namespace bise
