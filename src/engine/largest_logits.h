// The largest of a row of logits, found by the maxima of its blocks: blocks whose maximum is too small are
// not looked at again.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"

namespace bise {

// A logit is no number: weights or sums overflowed.
class NanLogit : public InternalError {
 public:
  NanLogit() : InternalError("a logit is no number") {}
};

struct RankedLogit {
  float logit;
  std::int32_t token;
  // Larger logits first; of equals the smaller token.
  bool operator<(const RankedLogit& other) const {
    return logit > other.logit || (logit == other.logit && token < other.token);
  }
};

// Belongs to one thread; its memory is reused from row to row.
class LargestLogits {
 public:
  LargestLogits() = default;
  explicit LargestLogits(std::int64_t vocab_size);

  // Looks at a row, which stays where it is. Throws NanLogit when it has a NaN.
  void scan(std::span<const float> logits);
  // Of the row scanned last.
  float largest() const { return largest_; }
  std::int32_t argmax() const;  // the first of equals
  // Appends all logits >= threshold to `out`, in the order of tokens.
  void collect(float threshold, std::vector<RankedLogit>& out) const;
  // `out` becomes the `count` first ones by RankedLogit's order, in no order; with `ties` also all that equal
  // the last of them.
  void select(std::size_t count, bool ties, std::vector<RankedLogit>& out);

 private:
  std::span<const float> logits_;
  float largest_ = 0;
  std::vector<float> maxima_, sorted_maxima_;
};

}  // namespace bise
