// One generated text on its way through a Grammar: which tokens may come next, and going on by one. A
// Matcher is used by one thread at a time; Matchers of the same Grammar may be used by several threads at
// once and share the masks that each of them has computed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/vocabulary.h"

namespace bise {

class MaskCache;

class Matcher {
 public:
  // `stop_token_ids`: the tokens that end the text (EOS and the like), those outside the vocabulary are
  // ignored. They are matched as stops only, never as text.
  Matcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie,
          std::vector<std::int32_t> stop_token_ids);
  // Copies are cheap: what is computed is shared.

  // Sets bit i % 32 of bits[i / 32] when token i may come next and clears all others, also those past the
  // vocabulary. Stop tokens may come exactly when the text may end here, or when nothing else may (which
  // then includes a finished text). `bits` has at least trie.mask_words() words.
  void fill_mask(std::span<std::uint32_t> bits);
  // Goes on by one token; false, and no change, when it may not come next. A stop token finishes the text,
  // after which only further stop tokens are accepted.
  bool accept(std::int32_t token);
  // Whether the text so far is complete: it may end here.
  bool accepts() const;
  // Whether a stop token was accepted.
  bool finished() const;
  // Takes back the last `count` accepted tokens; at most kMaxRollback of them are remembered.
  void rollback(std::int64_t count);
  static constexpr std::int64_t kMaxRollback = 256;

 private:
  bool is_stop(std::int32_t token) const;
  bool may_stop() const;
  void push(std::uint64_t state);
  void renew_cache();

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  std::shared_ptr<const std::vector<std::int32_t>> stop_token_ids_;  // sorted
  std::shared_ptr<MaskCache> cache_;                                 // what state numbers refer to
  std::vector<std::uint64_t> history_;                               // states, the current one last
};

// Computes masks ahead, on the calling thread (the one that compiled `grammar`), so that the engine's does
// not wait for them; stops after `budget_seconds`.
void prepare_masks(const std::shared_ptr<const Grammar>& grammar,
                   const std::shared_ptr<const TokenTrie>& trie, double budget_seconds);

}  // namespace bise
