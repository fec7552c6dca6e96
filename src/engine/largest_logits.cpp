#include "engine/largest_logits.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "base/check.h"
#include "engine/logit_kernels.h"

namespace bise {

LargestLogits::LargestLogits(std::int64_t vocab_size) {
  const auto blocks = (static_cast<std::size_t>(vocab_size) + kLogitBlock - 1) / kLogitBlock;
  maxima_.reserve(blocks);
  sorted_maxima_.reserve(blocks);
}

void LargestLogits::scan(std::span<const float> logits) {
  check(!logits.empty(), "there are logits");
  logits_ = logits;
  maxima_.resize((logits.size() + kLogitBlock - 1) / kLogitBlock);
  if (!logit_kernels().block_maxima(logits.data(), logits.size(), maxima_.data())) throw NanLogit();
  largest_ = *std::max_element(maxima_.begin(), maxima_.end());
}

std::int32_t LargestLogits::argmax() const {
  const auto block = std::find(maxima_.begin(), maxima_.end(), largest_) - maxima_.begin();
  const auto from = logits_.begin() + block * static_cast<std::ptrdiff_t>(kLogitBlock);
  return static_cast<std::int32_t>(std::find(from, logits_.end(), largest_) - logits_.begin());
}

void LargestLogits::collect(float threshold, std::vector<RankedLogit>& out) const {
  for (std::size_t block = 0; block < maxima_.size(); ++block) {
    if (maxima_[block] < threshold) continue;
    const std::size_t end = std::min((block + 1) * kLogitBlock, logits_.size());
    for (std::size_t i = block * kLogitBlock; i < end; ++i)
      if (logits_[i] >= threshold) out.push_back({logits_[i], static_cast<std::int32_t>(i)});
  }
}

void LargestLogits::select(std::size_t count, bool ties, std::vector<RankedLogit>& out) {
  out.clear();
  if (count == 0) return;
  // As many blocks as wanted logits reach the threshold, so at least as many logits do.
  float threshold = -std::numeric_limits<float>::infinity();
  if (count <= maxima_.size()) {
    sorted_maxima_ = maxima_;
    const auto last = sorted_maxima_.begin() + static_cast<std::ptrdiff_t>(count - 1);
    std::nth_element(sorted_maxima_.begin(), last, sorted_maxima_.end(), std::greater<>());
    threshold = *last;
  }
  collect(threshold, out);
  if (out.size() <= count) return;
  const auto last = out.begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(out.begin(), last, out.end());
  auto end = last + 1;
  if (ties)
    end = std::partition(end, out.end(), [&](const RankedLogit& each) { return each.logit == last->logit; });
  out.erase(end, out.end());
}

}  // namespace bise
