#include "engine/ngram_proposer.h"

#include <algorithm>

#include "base/check.h"

namespace bise {
namespace {

using Tokens = std::span<const std::int32_t>;

Tokens ngram(Tokens history, std::size_t end, std::size_t n) {
  return history.subspan(end - n, n);
}

// FNV-1a over words, with a last mix for the low bits.
std::size_t hash(Tokens tokens) {
  std::uint64_t value = 0xcbf29ce484222325u;
  for (const std::int32_t token : tokens)
    value = (value ^ static_cast<std::uint32_t>(token)) * 0x100000001b3u;
  return static_cast<std::size_t>((value ^ (value >> 29)) * 0xbf58476d1ce4e5b9u >> 20);
}

}  // namespace

NgramProposer::NgramProposer(std::int64_t min, std::int64_t max) : min_(min) {
  check(min >= 1 && min <= max, "n-grams have lengths");
  tables_.resize(static_cast<std::size_t>(max - min + 1));
  for (Table& table : tables_) table.ends.resize(64);
}

void NgramProposer::update(Tokens history) {
  for (; indexed_ < history.size(); ++indexed_) {
    const std::size_t end = indexed_ + 1;
    match_ = 0;
    // Longer n-grams last: their match wins.
    for (std::size_t table = 0; table < tables_.size(); ++table) {
      const std::size_t n = static_cast<std::size_t>(min_) + table;
      if (n > end) break;
      // Where the n-gram's last n - 1 tokens stood first, it stood first itself if it stands there at all.
      const bool extends = match_ >= n && history[match_ - n] == history[end - n];
      const std::size_t found = extends ? match_ : find_or_insert(table, history, end);
      if (found == 0) break;  // nor do longer ones occur before
      match_ = found;
    }
  }
}

std::uint32_t NgramProposer::find_or_insert(std::size_t index, Tokens history, std::size_t end) {
  Table& table = tables_[index];
  const std::size_t n = static_cast<std::size_t>(min_) + index, mask = table.ends.size() - 1;
  const Tokens wanted = ngram(history, end, n);
  std::size_t slot = hash(wanted) & mask;
  for (; table.ends[slot] != 0; slot = (slot + 1) & mask)
    if (std::ranges::equal(ngram(history, table.ends[slot], n), wanted)) return table.ends[slot];
  table.ends[slot] = static_cast<std::uint32_t>(end);
  if (++table.used * 2 > table.ends.size()) grow(table, n, history);
  return 0;
}

void NgramProposer::grow(Table& table, std::size_t n, Tokens history) {
  std::vector<std::uint32_t> old(table.ends.size() * 2);
  old.swap(table.ends);
  const std::size_t mask = table.ends.size() - 1;
  for (const std::uint32_t end : old) {
    if (end == 0) continue;
    std::size_t slot = hash(ngram(history, end, n)) & mask;
    while (table.ends[slot] != 0) slot = (slot + 1) & mask;
    table.ends[slot] = end;
  }
}

Tokens NgramProposer::propose(Tokens history, std::int64_t count) const {
  check(history.size() == indexed_, "the history is indexed");
  if (match_ == 0 || count <= 0) return {};
  return history.subspan(match_, std::min(history.size() - match_, static_cast<std::size_t>(count)));
}

}  // namespace bise
