// What may be generated next, as a mask over token ids: the engine's view of structured output. The grammars
// behind it are src/grammar's; serve/ joins the two.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace bise {

// The state of one sequence. Used by one thread at a time.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // A copy in the same state: one for each of n sequences.
  virtual std::unique_ptr<TokenConstraint> clone() const = 0;

  // Sets bit i % 32 of bits[i / 32] when token i may come next, clears it otherwise. At least one bit is set.
  virtual void fill_mask(std::span<std::uint32_t> bits) = 0;
  // Goes on by one token; false, and no change, when it may not come next.
  virtual bool accept(std::int32_t token) = 0;
  // Takes back the last `count` accepted tokens (speculation).
  virtual void rollback(std::int64_t count) = 0;
};

}  // namespace bise
