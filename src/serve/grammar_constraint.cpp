#include "serve/grammar_constraint.h"

#include <algorithm>
#include <string>

namespace bise {
namespace {

void set_bit(std::span<std::uint32_t> bits, std::int32_t token) {
  const auto word = static_cast<std::size_t>(token) / 32;
  if (token >= 0 && word < bits.size()) bits[word] |= std::uint32_t{1} << (token % 32);
}

}  // namespace

GrammarConstraint::GrammarConstraint(Matcher matcher, std::shared_ptr<const TokenTrie> trie,
                                     ConstraintStart start)
    : matcher_(std::move(matcher)),
      trie_(std::move(trie)),
      start_(std::make_shared<const ConstraintStart>(std::move(start))),
      thinking_(start_->thinking) {}

std::unique_ptr<TokenConstraint> GrammarConstraint::clone() const {
  return std::make_unique<GrammarConstraint>(*this);
}

GrammarConstraint::Phase GrammarConstraint::phase() const {
  if (thinking_) return Phase::kThinking;
  if (before_.empty() && matched_ == 0 && !start_->think_start_ids.empty()) return Phase::kUndecided;
  if (before_.size() - thought_ < start_->prefix.size()) return Phase::kPrefix;
  return Phase::kGrammar;
}

std::int32_t GrammarConstraint::next_prefix() const {
  return start_->prefix[before_.size() - thought_];
}

void GrammarConstraint::fill_mask(std::span<std::uint32_t> bits) {
  const Phase now = phase();
  if (now == Phase::kThinking) {
    std::fill(bits.begin(), bits.end(), ~std::uint32_t{0});
    return;
  }
  if (before_.size() - thought_ < start_->prefix.size()) {
    std::fill(bits.begin(), bits.end(), 0);
    set_bit(bits, next_prefix());
  } else {
    matcher_.fill_mask(bits);
  }
  if (now == Phase::kUndecided)
    for (const std::int32_t token : start_->think_start_ids) set_bit(bits, token);
}

bool GrammarConstraint::accept(std::int32_t token) {
  Phase now = phase();
  if (now == Phase::kUndecided) {
    const auto& starts = start_->think_start_ids;
    if (std::find(starts.begin(), starts.end(), token) != starts.end()) {
      thinking_ = true;
      before_.push_back(token);
      thought_ = 1;
      return true;
    }
    now = start_->prefix.empty() ? Phase::kGrammar : Phase::kPrefix;
  }
  switch (now) {
    case Phase::kThinking:
      before_.push_back(token);
      thought_ = before_.size();
      thinking_ = !closes_thought();
      return true;
    case Phase::kPrefix:
      if (token != next_prefix()) return false;
      before_.push_back(token);
      return true;
    default:
      if (!matcher_.accept(token)) return false;
      ++matched_;
      return true;
  }
}

// Whether the last token of the thought completes a text that closes it.
bool GrammarConstraint::closes_thought() const {
  constexpr std::size_t kTokens = 16;  // no closing text has more
  std::string tail;
  for (std::size_t i = thought_ - std::min(thought_, kTokens); i < thought_; ++i)
    tail += trie_->bytes(before_[i]);
  const std::size_t last = trie_->bytes(before_[thought_ - 1]).size();
  for (const std::string& end : start_->think_ends) {
    const std::size_t at = tail.rfind(end);
    if (at != std::string::npos && at + end.size() > tail.size() - last) return true;
  }
  return false;
}

void GrammarConstraint::rollback(std::int64_t count) {
  const std::int64_t matched = std::min(count, matched_);
  matcher_.rollback(matched);
  matched_ -= matched;
  const auto rest = static_cast<std::size_t>(count - matched);
  if (rest == 0) return;
  before_.resize(before_.size() - rest);
  if (before_.size() >= thought_) return;  // only prefix tokens were taken back
  // Back inside the thought: before it was closed, or before it began.
  thought_ = before_.size();
  thinking_ = start_->thinking || thought_ > 0;
}

}  // namespace bise
