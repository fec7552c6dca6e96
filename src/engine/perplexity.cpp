#include "engine/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/log_softmax.h"
#include "engine/logit_rows.h"
#include "engine/sampler.h"

namespace bise {
namespace {

// One number for each prediction, [windows, window - 1].
class Predictions {
 public:
  Predictions(std::int64_t windows, std::int64_t window)
      : per_window_(static_cast<std::size_t>(window - 1)),
        values_(static_cast<std::size_t>(windows) * per_window_) {}

  double& at(std::size_t window, std::int64_t position) {
    return values_[window * per_window_ + static_cast<std::size_t>(position)];
  }
  // Sum over one window, from position `first` on, in the order of positions.
  double sum(std::size_t window, std::int64_t first) const {
    double total = 0;
    for (auto i = static_cast<std::size_t>(first); i < per_window_; ++i)
      total += values_[window * per_window_ + i];
    return total;
  }

 private:
  std::size_t per_window_;
  std::vector<double> values_;
};

std::int64_t first_counted(const WindowOptions& options) {
  return options.window / 2;
}

// Mean over the counted predictions of all windows.
double counted_mean(const Predictions& values, std::int64_t windows, const WindowOptions& options) {
  double total = 0;
  for (std::int64_t w = 0; w < windows; ++w)
    total += values.sum(static_cast<std::size_t>(w), first_counted(options));
  return total / static_cast<double>(windows * (options.window - 1 - first_counted(options)));
}

PerplexityResult summarize(const Predictions& nll, std::int64_t windows, const WindowOptions& options) {
  PerplexityResult result;
  result.windows = windows;
  double all = 0;
  for (std::int64_t w = 0; w < windows; ++w) {
    result.window_nll_sums.push_back(nll.sum(static_cast<std::size_t>(w), first_counted(options)));
    all += nll.sum(static_cast<std::size_t>(w), 0);
  }
  result.ppl = std::exp(counted_mean(nll, windows, options));
  result.ppl_all = std::exp(all / static_cast<double>(windows * (options.window - 1)));
  return result;
}

// Runs all windows and calls `visit` with the number of the window in place.sequence.
void for_each_prediction(std::vector<Decoder*> decoders, const std::vector<DType>& kv_cache_dtypes,
                         ThreadPool& pool, std::span<const std::int32_t> token_ids,
                         const WindowOptions& options, std::int64_t windows, const VisitRow& visit) {
  std::int64_t at_once = windows;
  for (const Decoder* decoder : decoders)
    at_once = std::min(at_once, LogitRows::sequences_at_once(*decoder, options.window));
  LogitRows rows(std::move(decoders), pool, at_once, options.window, kv_cache_dtypes);
  for (std::int64_t first = 0; first < windows; first += at_once) {
    std::vector<std::span<const std::int32_t>> group;
    for (std::int64_t w = first; w < std::min(first + at_once, windows); ++w)
      group.push_back(token_ids.subspan(static_cast<std::size_t>(w * options.window),
                                        static_cast<std::size_t>(options.window)));
    rows.run(group, 0, 1, [&](RowPlace place, std::span<const std::span<const float>> logits) {
      visit({place.sequence + static_cast<std::size_t>(first), place.position}, logits);
    });
    if (options.on_progress) options.on_progress(std::min(first + at_once, windows));
  }
}

std::int64_t require_windows(std::span<const std::int32_t> token_ids, const WindowOptions& options,
                             const Decoder& decoder) {
  const std::int64_t windows = count_windows(token_ids, options);
  if (windows == 0)
    throw Error("the text does not fill one window")
        .expected(fmt::format("at least {} tokens", options.window))
        .got(fmt::format("{}", token_ids.size()));
  for (const std::int32_t token : token_ids)
    if (token < 0 || token >= decoder.config().vocab_size)
      throw Error("a token id is outside the vocabulary")
          .expected(fmt::format("0 to {}", decoder.config().vocab_size - 1))
          .got(fmt::format("{}", token));
  return windows;
}

}  // namespace

std::int64_t count_windows(std::span<const std::int32_t> token_ids, const WindowOptions& options) {
  if (options.window < 4)
    throw Error("the window is too short").expected("4 tokens").got(fmt::format("{}", options.window));
  const std::int64_t windows = static_cast<std::int64_t>(token_ids.size()) / options.window;
  return options.max_windows > 0 ? std::min(windows, options.max_windows) : windows;
}

PerplexityResult perplexity(Decoder& decoder, ThreadPool& pool, std::span<const std::int32_t> token_ids,
                            const WindowOptions& options) {
  const std::int64_t windows = require_windows(token_ids, options, decoder);
  Predictions nll(windows, options.window);
  for_each_prediction({&decoder}, {options.kv_cache_dtype}, pool, token_ids, options, windows,
                      [&](RowPlace place, std::span<const std::span<const float>> logits) {
                        const std::size_t next = place.sequence * static_cast<std::size_t>(options.window) +
                                                 static_cast<std::size_t>(place.position) + 1;
                        const auto token = static_cast<std::size_t>(token_ids[next]);
                        nll.at(place.sequence, place.position) =
                            log_sum_exp(logits[0]) - static_cast<double>(logits[0][token]);
                      });
  return summarize(nll, windows, options);
}

LogitComparison compare_logits(Decoder& base, Decoder& quantized, ThreadPool& pool,
                               std::span<const std::int32_t> token_ids, const WindowOptions& options) {
  const std::int64_t windows = require_windows(token_ids, options, base);
  Predictions base_nll(windows, options.window), quantized_nll(windows, options.window);
  Predictions kl(windows, options.window), same_top(windows, options.window);
  for_each_prediction(
      {&base, &quantized}, {options.base_kv_cache_dtype, options.kv_cache_dtype}, pool, token_ids, options,
      windows, [&](RowPlace place, std::span<const std::span<const float>> logits) {
        const std::size_t next = place.sequence * static_cast<std::size_t>(options.window) +
                                 static_cast<std::size_t>(place.position) + 1;
        const auto token = static_cast<std::size_t>(token_ids[next]);
        const double base_sum = log_sum_exp(logits[0]), quantized_sum = log_sum_exp(logits[1]);
        base_nll.at(place.sequence, place.position) = base_sum - static_cast<double>(logits[0][token]);
        quantized_nll.at(place.sequence, place.position) =
            quantized_sum - static_cast<double>(logits[1][token]);
        if (place.position < first_counted(options)) return;
        kl.at(place.sequence, place.position) = kl_divergence(logits[0], base_sum, logits[1], quantized_sum);
        same_top.at(place.sequence, place.position) = argmax(logits[0]) == argmax(logits[1]) ? 1 : 0;
      });
  return {summarize(base_nll, windows, options), summarize(quantized_nll, windows, options),
          counted_mean(kl, windows, options), counted_mean(same_top, windows, options)};
}

}  // namespace bise
