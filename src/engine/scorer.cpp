#include "engine/scorer.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "engine/logit_rows.h"

namespace bise {
namespace {

// How many sequences from `first` on run together: as many as fit one step, each counted with the longest.
std::size_t group_size(const Decoder& decoder, std::span<const std::vector<std::int32_t>> rest) {
  std::size_t longest = 0, count = 0;
  for (; count < rest.size(); ++count) {
    longest = std::max(longest, rest[count].size());
    if (count > 0 && static_cast<std::int64_t>((count + 1) * longest) > decoder.limits().max_tokens) break;
  }
  return count;
}

void score_group(Decoder& decoder, ThreadPool& pool, std::span<const std::vector<std::int32_t>> group,
                 std::int64_t top_k, DType kv_cache_dtype, std::span<TokenScores> out) {
  std::vector<std::span<const std::int32_t>> views;
  std::size_t longest = 0;
  for (std::size_t s = 0; s < group.size(); ++s) {
    check(!group[s].empty(), "a sequence to score has tokens");
    for (const std::int32_t token : group[s])
      check(token >= 0 && token < decoder.config().vocab_size, "a token is in the vocabulary");
    views.emplace_back(group[s]);
    longest = std::max(longest, group[s].size());
    out[s].logprobs.assign(group[s].size(), std::numeric_limits<double>::quiet_NaN());
    if (top_k > 0) out[s].top.resize(group[s].size());
  }
  LogitRows rows({&decoder}, pool, static_cast<std::int64_t>(group.size()),
                 static_cast<std::int64_t>(longest), {kv_cache_dtype});
  // Without `top` the last row predicts nothing that is asked for.
  rows.run(views, 0, top_k > 0 ? 0 : 1, [&](RowPlace place, std::span<const std::span<const float>> logits) {
    const auto position = static_cast<std::size_t>(place.position);
    TokenScores& scores = out[place.sequence];
    const double normalizer = log_sum_exp(logits[0]);
    if (position + 1 < scores.logprobs.size()) {
      const auto token = static_cast<std::size_t>(group[place.sequence][position + 1]);
      scores.logprobs[position + 1] = static_cast<double>(logits[0][token]) - normalizer;
    }
    if (top_k > 0) scores.top[position] = top_logprobs(logits[0], normalizer, top_k);
  });
}

}  // namespace

std::vector<TokenScores> score(Decoder& decoder, ThreadPool& pool,
                               std::span<const std::vector<std::int32_t>> sequences, std::int64_t top_k,
                               DType kv_cache_dtype) {
  std::vector<TokenScores> result(sequences.size());
  for (std::size_t first = 0; first < sequences.size();) {
    const std::size_t count = group_size(decoder, sequences.subspan(first));
    score_group(decoder, pool, sequences.subspan(first, count), top_k, kv_cache_dtype,
                std::span(result).subspan(first, count));
    first += count;
  }
  return result;
}

}  // namespace bise
