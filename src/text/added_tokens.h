// Tokens that are cut out of a text before it is split into words: control tokens and what users added.
// The matching rules are those of Hugging Face tokenizers (added_vocabulary.rs): leftmost, then longest.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/regex.h"

namespace bise {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  // A control token: matched in trusted text only, left out by decode under skip_special_tokens.
  bool special = false;
  // The match takes the white space before or after it along.
  bool lstrip = false, rstrip = false;
  // Matches only where no letter, digit or underscore adjoins.
  bool single_word = false;
  // Matched in normalized text instead of the text as given. Special tokens are always matched as given.
  bool normalized = false;
};

// A part of a text: one added token, or ordinary text between such (id -1).
struct AddedTokenPart {
  std::string_view text;
  std::int32_t id = -1;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // Empty contents must not occur.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Cuts `text` into parts, in order and without empty ones. Special tokens count only where they lie inside
  // one of the `trusted` ranges, which are sorted and do not touch.
  std::vector<AddedTokenPart> split(std::string_view text, std::span<const TextRange> trusted) const;

 private:
  const AddedToken* longest_match(std::string_view text, std::size_t begin,
                                  std::span<const TextRange> trusted) const;
  static bool stands_alone(std::string_view text, std::size_t begin, std::size_t end);

  std::vector<AddedToken> tokens_;
  // A trie: (node, byte) -> node; node 0 is the root. token_at_[node]: index into tokens_ or -1.
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;
  std::vector<std::int32_t> token_at_ = {-1};
  bool starts_[256] = {};  // bytes that some token starts with
};

}  // namespace bise
