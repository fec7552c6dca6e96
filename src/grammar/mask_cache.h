// Which tokens may come next, worked out once per situation and shared by all texts that follow the same
// grammar over the same vocabulary.
//
// A mask is put together from the items of a parser state (grammar/parser_states.h). What happens inside the
// rule an item stands in does not depend on who called it: for each state of the automaton the trie is walked
// once (LocalMask), giving the tokens that stay inside the rule and the trie nodes at which the rule is
// complete; only below those nodes the callers matter. Whole masks are kept by parser state, so that the
// second visit is a copy.
//
// Every method locks; a state number is valid for the cache it came from only.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "grammar/parser_states.h"
#include "grammar/vocabulary.h"

namespace bise {

// Tokens as a list when there are few, as bits otherwise.
class TokenMask {
 public:
  TokenMask() = default;
  explicit TokenMask(std::span<const std::uint32_t> bits);

  // Overwrites `bits`.
  void write(std::span<std::uint32_t> bits) const;
  std::int64_t count() const { return count_; }
  bool has(std::int32_t token) const;
  std::size_t bytes() const { return 4 * (bits_.size() + tokens_.size()); }

 private:
  std::vector<std::uint32_t> bits_;
  std::vector<std::int32_t> tokens_;  // ascending; when bits_ is empty
  std::int64_t count_ = 0;
};

// What the tokens do from one state of the automaton, as far as its rule goes.
struct LocalMask {
  struct Exit {
    const Trie* trie;
    std::uint32_t node;  // the rule is complete after the bytes up to here; tokens go on below
  };
  bool plain_short = false;          // all tokens of TokenTrie::plain_short()
  std::vector<std::uint32_t> bits;   // further tokens, as bits
  std::vector<std::int32_t> tokens;  // or as a list
  std::vector<Exit> exits;
};

class MaskCache {
 public:
  MaskCache(const Automaton& automaton, std::shared_ptr<const TokenTrie> trie);

  ParserState start();
  // After the bytes of a token, or ParserStates::kDead.
  ParserState step(ParserState from, std::string_view bytes);
  bool done(ParserState state) const;
  // The tokens, other than stop tokens, that may come next.
  std::shared_ptr<const TokenMask> mask(ParserState state);
  // The same situations in this cache; `states` are numbers of `other`.
  void import(MaskCache& other, std::span<ParserState> states);
  // Works out local masks, in the order of the automaton's states, until the time is over.
  void prepare(double budget_seconds);

  // The memory budget is spent: whoever uses this cache should go on with a fresh one.
  bool full() const { return full_.load(std::memory_order_relaxed); }
  const std::shared_ptr<const TokenTrie>& trie() const { return trie_; }

 private:
  const LocalMask& local_mask(std::uint32_t state);
  LocalMask compute_local(std::uint32_t state);
  std::shared_ptr<const TokenMask> compute(ParserState state);
  void add_exits(const LocalMask& local, std::uint32_t frame, bool all_plain);
  template <class OnToken, class OnExit>
  void walk(const Trie& trie, std::size_t begin, std::size_t end, ParserState from, const OnToken& on_token,
            const OnExit& on_exit);
  void note_size();

  const Automaton& automaton_;
  std::shared_ptr<const TokenTrie> trie_;
  mutable std::mutex mutex_;
  ParserStates states_;
  std::unordered_map<std::uint32_t, LocalMask> locals_;  // by state of the automaton
  std::unordered_map<ParserState, std::shared_ptr<const TokenMask>> masks_;
  std::size_t bytes_ = 0;     // of masks_ and locals_
  std::size_t imported_ = 0;  // entries of states_ that running texts brought along
  std::atomic<bool> full_{false};
  std::vector<ParserState> path_;       // scratch of walk(): the state at each depth
  std::vector<std::uint32_t> scratch_;  // scratch of compute(): bits
};

// A compiled constraint: its automaton, and the caches for the vocabularies it is used with.
class Grammar {
 public:
  explicit Grammar(Automaton automaton) : automaton_(std::move(automaton)) {}

  const Automaton& automaton() const { return automaton_; }
  // The cache in use for `trie`; a fresh one when that is full.
  std::shared_ptr<MaskCache> cache(const std::shared_ptr<const TokenTrie>& trie) const;

 private:
  Automaton automaton_;
  mutable std::mutex mutex_;
  mutable std::vector<std::shared_ptr<MaskCache>> caches_;
};

}  // namespace bise
