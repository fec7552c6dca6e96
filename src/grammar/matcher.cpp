#include "grammar/matcher.h"

#include <algorithm>

#include "base/check.h"
#include "grammar/mask_cache.h"

namespace bise {
namespace {

// The state after a stop token.
constexpr ParserState kFinished = ParserStates::kDead;

}  // namespace

Matcher::Matcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie,
                 std::vector<std::int32_t> stop_token_ids)
    : grammar_(std::move(grammar)), trie_(std::move(trie)), cache_(grammar_->cache(trie_)) {
  std::erase_if(stop_token_ids, [&](std::int32_t id) { return id < 0 || id >= trie_->vocab_size(); });
  std::sort(stop_token_ids.begin(), stop_token_ids.end());
  stop_token_ids.erase(std::unique(stop_token_ids.begin(), stop_token_ids.end()), stop_token_ids.end());
  stop_token_ids_ = std::make_shared<const std::vector<std::int32_t>>(std::move(stop_token_ids));
  history_.push_back(cache_->start());
}

void Matcher::fill_mask(std::span<std::uint32_t> bits) {
  check(bits.size() >= trie_->mask_words(), "the mask covers the vocabulary");
  renew_cache();
  std::int64_t allowed = 0;
  if (finished()) {
    std::fill(bits.begin(), bits.end(), 0);
  } else {
    const std::shared_ptr<const TokenMask> mask = cache_->mask(history_.back());
    mask->write(bits);
    allowed = mask->count();
  }
  for (const std::int32_t token : *stop_token_ids_) {
    std::uint32_t& word = bits[static_cast<std::size_t>(token) / 32];
    const std::uint32_t bit = std::uint32_t{1} << (token % 32);
    allowed -= (word & bit) != 0;
    word &= ~bit;
  }
  if (allowed > 0 && !accepts()) return;
  for (const std::int32_t token : *stop_token_ids_)
    bits[static_cast<std::size_t>(token) / 32] |= std::uint32_t{1} << (token % 32);
}

bool Matcher::accept(std::int32_t token) {
  renew_cache();
  if (is_stop(token)) {
    if (!may_stop()) return false;
    push(kFinished);
    return true;
  }
  const std::string_view bytes = trie_->bytes(token);
  if (finished() || bytes.empty()) return false;
  const ParserState next = cache_->step(history_.back(), bytes);
  if (next == ParserStates::kDead) return false;
  push(next);
  return true;
}

bool Matcher::accepts() const {
  return finished() || cache_->done(history_.back());
}

bool Matcher::finished() const {
  return history_.back() == kFinished;
}

void Matcher::rollback(std::int64_t count) {
  check(count >= 0 && count < static_cast<std::int64_t>(history_.size()),
        "no more tokens are taken back than are remembered");
  history_.resize(history_.size() - static_cast<std::size_t>(count));
}

bool Matcher::is_stop(std::int32_t token) const {
  return std::binary_search(stop_token_ids_->begin(), stop_token_ids_->end(), token);
}

// Stop tokens may come when the text may end, or when no other token may come.
bool Matcher::may_stop() const {
  if (accepts()) return true;
  const std::shared_ptr<const TokenMask> mask = cache_->mask(history_.back());
  const auto stops = std::count_if(stop_token_ids_->begin(), stop_token_ids_->end(),
                                   [&](std::int32_t token) { return mask->has(token); });
  return mask->count() == stops;
}

void Matcher::push(ParserState state) {
  // Forgetting in blocks keeps this O(1).
  if (static_cast<std::int64_t>(history_.size()) > 2 * kMaxRollback)
    history_.erase(history_.begin(), history_.end() - kMaxRollback);
  history_.push_back(state);
}

void Matcher::renew_cache() {
  if (!cache_->full()) return;
  const std::shared_ptr<MaskCache> fresh = grammar_->cache(trie_);
  if (fresh == cache_) return;
  // Only what rollback may still ask for.
  if (static_cast<std::int64_t>(history_.size()) > kMaxRollback + 1)
    history_.erase(history_.begin(), history_.end() - kMaxRollback - 1);
  fresh->import(*cache_, history_);
  cache_ = fresh;
}

void prepare_masks(const std::shared_ptr<const Grammar>& grammar,
                   const std::shared_ptr<const TokenTrie>& trie, double budget_seconds) {
  grammar->cache(trie)->prepare(budget_seconds);
}

}  // namespace bise
