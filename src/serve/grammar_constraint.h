// What joins grammar/ and the engine: a Matcher as a TokenConstraint, which begins to hold once the model has
// finished thinking and the tokens that introduce the constrained text are out. Used by one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/token_constraint.h"
#include "grammar/matcher.h"
#include "grammar/vocabulary.h"
#include "serve/structured_output.h"

namespace bise {

class GrammarConstraint : public TokenConstraint {
 public:
  GrammarConstraint(Matcher matcher, std::shared_ptr<const TokenTrie> trie, ConstraintStart start);

  std::unique_ptr<TokenConstraint> clone() const override;
  void fill_mask(std::span<std::uint32_t> bits) override;
  bool accept(std::int32_t token) override;
  void rollback(std::int64_t count) override;

 private:
  enum class Phase {
    kUndecided,  // nothing is out yet: a thought or the answer may begin
    kThinking,   // everything is allowed
    kPrefix,     // the next token of start_->prefix
    kGrammar,
  };
  Phase phase() const;
  bool closes_thought() const;
  std::int32_t next_prefix() const;

  Matcher matcher_;
  std::shared_ptr<const TokenTrie> trie_;
  std::shared_ptr<const ConstraintStart> start_;
  // Tokens accepted before the grammar's own, and how many of them are the thought's.
  std::vector<std::int32_t> before_;
  std::size_t thought_ = 0;
  bool thinking_;             // a thought is open
  std::int64_t matched_ = 0;  // tokens that the matcher has accepted
};

}  // namespace bise
