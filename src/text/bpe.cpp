#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <unordered_map>

#include "base/check.h"
#include "text/utf8.h"

namespace bise {
namespace {

// Scanning a short word for its lowest rank beats keeping a heap.
constexpr std::size_t kShortWord = 32;
// Longer words rarely come twice.
constexpr std::size_t kLongestSeenWord = 64;
constexpr std::size_t kMostSeenWords = std::size_t{1} << 15;

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// Whether a word-start mark stands after a character that is none.
bool has_inner_mark(std::string_view token) {
  std::size_t position = 0;
  while (token.substr(position).starts_with(kWordStartMark)) position += kWordStartMark.size();
  return token.find(kWordStartMark, position) != std::string_view::npos;
}

}  // namespace

BpeScratch::BpeScratch(std::size_t text_bytes) {
  if (text_bytes >= 512) seen_.resize(std::min(std::bit_ceil(text_bytes / 4), kMostSeenWords));
}

void add_merges_by_rank(BpeModel& model, const std::vector<std::uint32_t>& ranks) {
  const TokenMap tokens(model.tokens);
  const auto vocab_size = static_cast<std::int32_t>(model.tokens.size());
  std::unordered_map<std::string_view, std::int32_t> characters;
  const auto symbol = [&](std::string_view text) {
    const std::int32_t id = tokens.find(text);
    if (id >= 0 || model.byte_symbols || utf8_step(text).length != text.size()) return id;
    const auto [found, fresh] = characters.try_emplace(text, static_cast<std::int32_t>(model.tokens.size()));
    if (fresh) model.tokens.emplace_back(text);
    return found->second;
  };
  for (std::int32_t id = 0; id < vocab_size; ++id) {
    const std::string_view text = tokens.text(id);
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      if (!model.byte_symbols && is_continuation(text[cut])) continue;
      const std::int32_t left = symbol(text.substr(0, cut));
      if (left < 0) continue;
      const std::int32_t right = symbol(text.substr(cut));
      if (right >= 0) model.merges.push_back({left, right, id, ranks[id]});
    }
  }
}

Bpe::Bpe(BpeModel model, std::int32_t vocab_size)
    : tokens_(model.tokens), merges_(model.merges), vocab_size_(vocab_size) {
  byte_symbols_.fill(-1);
  if (model.byte_symbols)
    for (int byte = 0; byte < 256; ++byte) byte_symbols_[byte] = tokens_.find(std::string(1, char(byte)));
  cut_at_marks_ = !model.byte_symbols && !model.ignore_merges && tokens_.find(kWordStartMark) >= 0 &&
                  std::none_of(model.merges.begin(), model.merges.end(), [&](const BpeMerge& merge) {
                    return has_inner_mark(tokens_.text(merge.result));
                  });
  options_ = std::move(model);
  options_.tokens = {};
  options_.merges = {};
}

void Bpe::encode_word(std::string_view word, BpeScratch& scratch, std::vector<std::int32_t>& out) const {
  std::size_t begin = 0;
  if (cut_at_marks_) {
    std::size_t position = 0;
    while (position < word.size()) {
      // Past the marks that the part starts with, then up to the next mark.
      while (word.substr(position).starts_with(kWordStartMark)) position += kWordStartMark.size();
      position = std::min(word.find(kWordStartMark, position), word.size());
      encode_part(word.substr(begin, position - begin), scratch, out);
      begin = position;
    }
  }
  if (begin < word.size()) encode_part(word.substr(begin), scratch, out);
}

void Bpe::encode_part(std::string_view part, BpeScratch& scratch, std::vector<std::int32_t>& out) const {
  if (scratch.seen_.empty() || part.size() > kLongestSeenWord) return merge_part(part, scratch, out);
  BpeScratch::Seen& seen = scratch.seen_[hash_text(part) & (scratch.seen_.size() - 1)];
  if (seen.word == part) {
    const std::size_t size = out.size();
    out.resize(size + seen.count);
    std::copy_n(out.begin() + seen.begin, seen.count, out.begin() + size);
    return;
  }
  const std::size_t before = out.size();
  merge_part(part, scratch, out);
  seen = {part, before, out.size() - before};
}

void Bpe::merge_part(std::string_view part, BpeScratch& scratch, std::vector<std::int32_t>& out) const {
  if (options_.ignore_merges) {
    if (const std::int32_t id = tokens_.find(part); id >= 0) return emit(id, out);
  }
  std::vector<std::int32_t>& ids = scratch.ids_;
  ids.clear();
  split_symbols(part, ids);
  if (ids.size() <= kShortWord)
    merge_short(scratch);
  else
    merge_long(scratch);
  for (const std::int32_t id : ids) emit(id, out);
}

void Bpe::split_symbols(std::string_view part, std::vector<std::int32_t>& ids) const {
  if (options_.byte_symbols) {
    for (const char byte : part) {
      const std::int32_t id = byte_symbols_[static_cast<unsigned char>(byte)];
      if (id >= 0)
        ids.push_back(id);
      else
        push_unknown({&byte, 1}, ids);
    }
    return;
  }
  while (!part.empty()) {
    const std::string_view character = part.substr(0, utf8_step(part).length);
    const std::int32_t id = tokens_.find(character);
    if (id >= 0)
      ids.push_back(id);
    else
      push_unknown(character, ids);
    part.remove_prefix(character.size());
  }
}

void Bpe::push_unknown(std::string_view character, std::vector<std::int32_t>& ids) const {
  const auto token_of = [&](char byte) { return options_.byte_tokens[static_cast<unsigned char>(byte)]; };
  if (std::all_of(character.begin(), character.end(), [&](char byte) { return token_of(byte) >= 0; })) {
    for (const char byte : character) ids.push_back(token_of(byte));
  } else if (options_.unk_id >= 0 && !(options_.fuse_unk && !ids.empty() && ids.back() == options_.unk_id)) {
    ids.push_back(options_.unk_id);
  }
}

void Bpe::emit(std::int32_t id, std::vector<std::int32_t>& out) const {
  if (id < vocab_size_)
    out.push_back(id);
  else
    push_unknown(tokens_.text(id), out);
}

void Bpe::merge_short(BpeScratch& scratch) const {
  std::vector<std::int32_t>& ids = scratch.ids_;
  std::vector<std::uint32_t>& ranks = scratch.ranks_;  // ranks[i]: of the pair (i, i + 1)
  if (ids.size() < 2) return;
  ranks.resize(ids.size() - 1);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) ranks[i] = merges_.find(ids[i], ids[i + 1]).rank;
  while (!ranks.empty()) {
    const auto lowest = std::min_element(ranks.begin(), ranks.end());
    if (*lowest == MergeTable::kNone) return;
    const std::size_t at = lowest - ranks.begin();
    ids[at] = merges_.find(ids[at], ids[at + 1]).result;
    ids.erase(ids.begin() + at + 1);
    ranks.erase(lowest);
    if (at > 0) ranks[at - 1] = merges_.find(ids[at - 1], ids[at]).rank;
    if (at < ranks.size()) ranks[at] = merges_.find(ids[at], ids[at + 1]).rank;
  }
}

void Bpe::merge_long(BpeScratch& scratch) const {
  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;
  const auto count = static_cast<std::int32_t>(scratch.ids_.size());
  symbols.clear();
  heap.clear();
  for (std::int32_t i = 0; i < count; ++i)
    symbols.push_back({scratch.ids_[i], i - 1, i + 1 < count ? i + 1 : -1});

  // The heap's front is the lowest rank, and of equal ranks the leftmost.
  const auto later = [](const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  const auto pair_at = [&](std::int32_t position) {
    const auto& left = symbols[position];
    return left.next < 0 ? MergeTable::Found{} : merges_.find(left.id, symbols[left.next].id);
  };
  for (std::int32_t i = 0; i < count; ++i)
    if (const auto rank = pair_at(i).rank; rank != MergeTable::kNone) heap.push_back({rank, i});
  std::make_heap(heap.begin(), heap.end(), later);

  while (!heap.empty()) {
    const auto [rank, position] = heap.front();
    std::pop_heap(heap.begin(), heap.end(), later);
    heap.pop_back();
    auto& left = symbols[position];
    if (left.id < 0) continue;  // merged into its left neighbour meanwhile
    const MergeTable::Found found = pair_at(position);
    if (found.rank != rank) continue;  // one side has changed meanwhile
    auto& right = symbols[left.next];
    left.id = found.result;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = position;
    right.id = -1;
    for (const std::int32_t start : {left.previous, position}) {
      if (start < 0) continue;
      if (const auto next = pair_at(start).rank; next != MergeTable::kNone) {
        heap.push_back({next, start});
        std::push_heap(heap.begin(), heap.end(), later);
      }
    }
  }
  scratch.ids_.clear();
  for (const auto& symbol : symbols)
    if (symbol.id >= 0) scratch.ids_.push_back(symbol.id);
}

}  // namespace bise
