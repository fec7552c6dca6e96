// Byte-pair encoding (Sennrich et al., 2016, section 3.2): a word starts as its bytes or characters, and the
// adjacent pair with the lowest rank merges, leftmost first, until no pair is left that merges. One engine
// for GPT-2-like models (ranked merges), tiktoken (any pair whose joined bytes are a token, ranked by its
// id) and SentencePiece (the same, ranked by score).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_map.h"

namespace bise {

// What a loader fills in.
struct BpeModel {
  // Token text by id, as it stands in words; "" for ids that encoding never yields by their text (control
  // tokens, byte tokens, holes).
  std::vector<std::string> tokens;
  std::vector<BpeMerge> merges;
  // Words are bytes, each byte a symbol. Otherwise each character is one.
  bool byte_symbols = false;
  // A word that is a token as a whole is that token, whatever the merges say.
  bool ignore_merges = false;
  // A character that is no token becomes these tokens, one per byte, if all its bytes have one (-1: none);
  // else unk_id; else, without one (-1), nothing. fuse_unk: a run of unknown characters is one unk_id.
  std::array<std::int32_t, 256> byte_tokens = no_byte_tokens();
  std::int32_t unk_id = -1;
  bool fuse_unk = false;

  static constexpr std::array<std::int32_t, 256> no_byte_tokens() {
    std::array<std::int32_t, 256> none{};
    none.fill(-1);
    return none;
  }
};

// Appends to model.merges every pair of tokens whose joined text is a token; the rank of a pair is
// ranks[id of the joined token]. With !byte_symbols, characters that occur in tokens but are none themselves
// are appended to model.tokens, since merges may start from them.
void add_merges_by_rank(BpeModel& model, const std::vector<std::uint32_t>& ranks);

// Working memory of one encode call, which also remembers the words it met.
class BpeScratch {
 public:
  // `text_bytes` is the size of the text to come: a short one needs no memory of its words.
  explicit BpeScratch(std::size_t text_bytes);

 private:
  friend class Bpe;
  struct Symbol {
    std::int32_t id, previous, next;
  };
  struct Candidate {
    std::uint32_t rank;
    std::int32_t position;
  };
  struct Seen {
    std::string_view word;
    std::size_t begin = 0, count = 0;  // its ids inside the output
  };
  std::vector<std::int32_t> ids_;
  std::vector<std::uint32_t> ranks_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
  std::vector<Seen> seen_;
};

// Never changes; any number of threads may encode, each with its own BpeScratch and output.
class Bpe {
 public:
  Bpe() = default;
  // Every id in `model` lies in [0, model.tokens.size()). Ids from `vocab_size` on are only steps on the way
  // and never come out.
  Bpe(BpeModel model, std::int32_t vocab_size);

  // Appends the ids of `word` to `out`. `word` must stay where it is, and `out` only grow, as long as
  // `scratch` is used.
  void encode_word(std::string_view word, BpeScratch& scratch, std::vector<std::int32_t>& out) const;

 private:
  void encode_part(std::string_view part, BpeScratch& scratch, std::vector<std::int32_t>& out) const;
  void merge_part(std::string_view part, BpeScratch& scratch, std::vector<std::int32_t>& out) const;
  void split_symbols(std::string_view part, std::vector<std::int32_t>& ids) const;
  void push_unknown(std::string_view character, std::vector<std::int32_t>& ids) const;
  void merge_short(BpeScratch& scratch) const;
  void merge_long(BpeScratch& scratch) const;
  void emit(std::int32_t id, std::vector<std::int32_t>& out) const;

  TokenMap tokens_;
  MergeTable merges_;
  std::array<std::int32_t, 256> byte_symbols_{};
  BpeModel options_;  // tokens and merges emptied
  std::int32_t vocab_size_ = 0;
  // No token has a word-start mark after another character, so a text may be cut before each such mark.
  bool cut_at_marks_ = false;
};

// U+2581, SentencePiece's visible space at the start of words.
inline constexpr std::string_view kWordStartMark = "\xE2\x96\x81";

}  // namespace bise
