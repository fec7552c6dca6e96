#include "grammar/mask_cache.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/clock.h"
#include "grammar/plain_run.h"

namespace bise {
namespace {

// Per grammar and vocabulary. Beyond either a cache is full.
constexpr std::size_t kMaxMaskBytes = std::size_t{128} << 20;
constexpr std::size_t kMaxParserEntries = 1'000'000;
// Vocabularies per grammar that keep their caches.
constexpr std::size_t kMaxCaches = 4;

void set_bit(std::span<std::uint32_t> bits, std::int32_t token) {
  bits[static_cast<std::size_t>(token) / 32] |= std::uint32_t{1} << (token % 32);
}

void add_bits(std::span<const std::uint32_t> from, std::span<std::uint32_t> to) {
  for (std::size_t i = 0; i < from.size(); ++i) to[i] |= from[i];
}

}  // namespace

TokenMask::TokenMask(std::span<const std::uint32_t> bits) {
  for (const std::uint32_t word : bits) count_ += std::popcount(word);
  if (static_cast<std::size_t>(count_) > bits.size()) {
    bits_.assign(bits.begin(), bits.end());
    return;
  }
  tokens_.reserve(static_cast<std::size_t>(count_));
  for (std::size_t i = 0; i < bits.size(); ++i)
    for (std::uint32_t word = bits[i]; word != 0; word &= word - 1)
      tokens_.push_back(static_cast<std::int32_t>(32 * i) + std::countr_zero(word));
}

void TokenMask::write(std::span<std::uint32_t> bits) const {
  const auto rest = std::copy(bits_.begin(), bits_.end(), bits.begin());
  std::fill(rest, bits.end(), 0);
  for (const std::int32_t token : tokens_) set_bit(bits, token);
}

bool TokenMask::has(std::int32_t token) const {
  if (bits_.empty()) return std::binary_search(tokens_.begin(), tokens_.end(), token);
  return bits_[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1;
}

MaskCache::MaskCache(const Automaton& automaton, std::shared_ptr<const TokenTrie> trie)
    : automaton_(automaton), trie_(std::move(trie)), states_(automaton) {
  const std::size_t depth =
      std::max({trie_->plain_short().max_depth, trie_->plain_long().max_depth, trie_->other().max_depth});
  path_.resize(depth + 1);
}

ParserState MaskCache::start() {
  const std::lock_guard lock(mutex_);
  return states_.start();
}

ParserState MaskCache::step(ParserState from, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  const ParserState result = states_.step(from, bytes);
  note_size();
  return result;
}

bool MaskCache::done(ParserState state) const {
  const std::lock_guard lock(mutex_);
  return states_.done(state);
}

std::shared_ptr<const TokenMask> MaskCache::mask(ParserState state) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const TokenMask>& known = masks_[state];
  if (!known) {
    known = compute(state);
    bytes_ += known->bytes() + 100;
    note_size();
  }
  return known;
}

void MaskCache::import(MaskCache& other, std::span<ParserState> states) {
  const std::scoped_lock lock(mutex_, other.mutex_);
  states_.import(other.states_, states);
  imported_ = std::max(imported_, states_.size());
}

void MaskCache::prepare(double budget_seconds) {
  const Stopwatch watch;
  for (std::uint32_t state = 1; state < automaton_.states.size() && watch.seconds() < budget_seconds;
       ++state) {
    const std::lock_guard lock(mutex_);
    if (bytes_ > kMaxMaskBytes / 4) return;  // the rest is for what texts come upon
    if (automaton_.states[state].edge_count > 0) local_mask(state);
  }
}

void MaskCache::note_size() {
  if (bytes_ > kMaxMaskBytes || states_.size() > imported_ + kMaxParserEntries)
    full_.store(true, std::memory_order_relaxed);
}

// Follows the nodes in [begin, end), which lie below a place whose state is `from`. `on_token` gets each
// token whose bytes are all accepted; `on_exit` each node after which `from`'s root frame may be complete.
template <class OnToken, class OnExit>
void MaskCache::walk(const Trie& trie, std::size_t begin, std::size_t end, ParserState from,
                     const OnToken& on_token, const OnExit& on_exit) {
  if (begin == end) return;
  const TrieNode* nodes = trie.nodes.data();
  path_[nodes[begin].depth - 1u] = from;
  for (std::size_t i = begin; i < end;) {
    const TrieNode& node = nodes[i];
    const ParserState state = states_.step(path_[node.depth - 1u], node.byte);
    if (state == ParserStates::kDead) {
      i = node.after;
      continue;
    }
    path_[node.depth] = state;
    for (std::uint32_t token = node.first_token; token < nodes[i + 1].first_token; ++token)
      on_token(trie.tokens[token]);
    if (node.after > i + 1 && states_.done(state)) on_exit(static_cast<std::uint32_t>(i));
    ++i;
  }
}

const LocalMask& MaskCache::local_mask(std::uint32_t state) {
  const auto found = locals_.find(state);
  if (found != locals_.end()) return found->second;
  LocalMask mask = compute_local(state);
  bytes_ += 4 * (mask.bits.size() + mask.tokens.size()) + 16 * mask.exits.size() + 150;
  return locals_.emplace(state, std::move(mask)).first->second;
}

LocalMask MaskCache::compute_local(std::uint32_t state) {
  LocalMask mask;
  const ParserState from = ParserStates::item(state, ParserStates::kRootFrame);
  const auto follow = [&](const Trie& trie) {
    walk(
        trie, 0, trie.size(), from, [&](std::int32_t token) { mask.tokens.push_back(token); },
        [&](std::uint32_t node) {
          mask.exits.push_back({&trie, node});
        });
  };
  mask.plain_short = plain_run(automaton_, state, TokenTrie::kShortCharacters) >= TokenTrie::kShortCharacters;
  if (!mask.plain_short) follow(trie_->plain_short());
  follow(trie_->plain_long());
  follow(trie_->other());
  if (mask.tokens.size() > trie_->mask_words()) {
    mask.bits.assign(trie_->mask_words(), 0);
    for (const std::int32_t token : mask.tokens) set_bit(mask.bits, token);
    mask.tokens = {};
  }
  return mask;
}

// Tokens that go on after the rule was complete; `all_plain`: those of plain_short() are all there already.
void MaskCache::add_exits(const LocalMask& local, std::uint32_t frame, bool all_plain) {
  if (local.exits.empty()) return;
  const ParserState after = states_.after_return(frame);
  std::array<bool, 256> possible;
  for (int byte = 0; byte < 256; ++byte)
    possible[static_cast<std::size_t>(byte)] =
        states_.step(after, static_cast<std::uint8_t>(byte)) != ParserStates::kDead;
  for (const LocalMask::Exit& exit : local.exits) {
    if (all_plain && exit.trie == &trie_->plain_short()) continue;
    const std::vector<TrieNode>& nodes = exit.trie->nodes;
    for (std::uint32_t child = exit.node + 1; child < nodes[exit.node].after; child = nodes[child].after) {
      if (!possible[nodes[child].byte]) continue;
      walk(
          *exit.trie, child, nodes[child].after, after, [&](std::int32_t token) { set_bit(scratch_, token); },
          [](std::uint32_t) {});
    }
  }
}

std::shared_ptr<const TokenMask> MaskCache::compute(ParserState state) {
  scratch_.assign(trie_->mask_words(), 0);
  const std::span<const Item> items_now = states_.items(state);
  const std::vector<Item> items(items_now.begin(), items_now.end());  // walking may move them
  bool all_plain = false;
  for (const Item item : items) {
    if (item == ParserStates::kDoneItem) continue;
    const LocalMask& local = local_mask(ParserStates::state_of(item));
    if (local.plain_short && !all_plain) add_bits(trie_->plain_short_mask(), scratch_);
    all_plain |= local.plain_short;
    add_bits(local.bits, scratch_);
    for (const std::int32_t token : local.tokens) set_bit(scratch_, token);
  }
  for (const Item item : items) {
    const std::uint32_t frame = ParserStates::frame_of(item);
    if (frame != ParserStates::kRootFrame)
      add_exits(local_mask(ParserStates::state_of(item)), frame, all_plain);
  }
  return std::make_shared<const TokenMask>(scratch_);
}

std::shared_ptr<MaskCache> Grammar::cache(const std::shared_ptr<const TokenTrie>& trie) const {
  const std::lock_guard lock(mutex_);
  const auto found =
      std::find_if(caches_.begin(), caches_.end(), [&](const auto& cache) { return cache->trie() == trie; });
  if (found != caches_.end()) {
    if (!(*found)->full()) return *found;
    caches_.erase(found);
  }
  if (caches_.size() >= kMaxCaches) caches_.erase(caches_.begin());
  caches_.push_back(std::make_shared<MaskCache>(automaton_, trie));
  return caches_.back();
}

}  // namespace bise
