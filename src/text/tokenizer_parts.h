// What a loaded tokenizer consists of, whichever file it came from. Loaders fill it in; Tokenizer and
// StreamDetokenizer read it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace bise {

// What one id becomes when it is decoded.
struct DecodedToken {
  enum Kind : std::uint8_t {
    kAbsent,  // a hole in the vocabulary
    kText,    // whole characters
    kBytes,   // bytes that form characters together with the bytes of neighbouring tokens
  };
  std::string bytes;
  Kind kind = kAbsent;
  bool special = false;
};

struct TokenizerParts {
  // Encoding: cut out added tokens, normalize, cut out normalized added tokens, split into words, merge.
  AddedTokens added_tokens, normalized_added_tokens;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  // Around every text that is encoded with add_special_tokens.
  std::vector<std::int32_t> prefix_ids, suffix_ids;

  // Decoding.
  std::vector<DecodedToken> decoded;    // by id
  std::string separator;                // between tokens
  int strip_left = 0;                   // spaces dropped from the start of the text, at most
  bool strip_marks_only = false;        // strip_left spares a text that starts with a byte token
  bool strip_first_token = false;       // all leading spaces of the first token are dropped
  bool special_ends_character = false;  // a dropped special token leaves unfinished bytes unfinished
  bool replace_each_byte = false;       // U+FFFD for every bad byte, not for every maximal bad part

  std::map<std::string, std::int32_t, std::less<>> named;  // added and control tokens
  std::optional<std::int32_t> bos_token_id, eos_token_id;
};

// Registers `tokens`: how they are matched, decoded (where `decoded` does not say it yet) and named.
// `normalize_contents`: normalized tokens are matched as what the normalizer makes of their content. Throws
// Error when one is empty or its id is out of range. Call it once, after the normalizer is set.
void set_added_tokens(TokenizerParts& parts, std::vector<AddedToken> tokens, bool normalize_contents,
                      const std::string& where);

// No vocabulary is larger; ids from files are checked against it before anything is allocated.
inline constexpr std::int64_t kMaxVocabSize = std::int64_t{1} << 24;

// The loaders. Each throws Error naming the file and the field that is invalid or unsupported.
TokenizerParts load_tokenizer_json(const std::filesystem::path& path);
TokenizerParts load_tekken(const std::filesystem::path& path);
TokenizerParts load_sentencepiece(const std::filesystem::path& path);

}  // namespace bise
