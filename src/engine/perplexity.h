// Perplexity of a text, and how far a quantized model's predictions on it are from the original's. Windows
// of consecutive tokens, each from an empty cache, the incomplete last one dropped: the method of
// llama-perplexity. Belongs to the thread that uses the decoders' backends.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "model/decoder.h"

namespace bise {

struct WindowOptions {
  std::int64_t window = 512;
  std::int64_t max_windows = 0;                                             // 0 = all
  DType kv_cache_dtype = DType::kBF16, base_kv_cache_dtype = DType::kBF16;  // base: of compare_logits
  std::function<void(std::int64_t windows_done)> on_progress = {};          // may be empty
};

struct PerplexityResult {
  std::int64_t windows = 0;
  // exp(mean negative log-likelihood) of the predictions made from positions [window/2, window - 2] of each
  // window, those that llama-perplexity counts; and of all of them.
  double ppl = 0, ppl_all = 0;
  // Negative log-likelihood of the predictions counted in `ppl`, summed per window.
  std::vector<double> window_nll_sums;
};

// Windows of `options.window` in `token_ids`.
std::int64_t count_windows(std::span<const std::int32_t> token_ids, const WindowOptions& options);

// Throws Error when `token_ids` does not fill one window.
PerplexityResult perplexity(Decoder& decoder, ThreadPool& pool, std::span<const std::int32_t> token_ids,
                            const WindowOptions& options = {});

struct LogitComparison {
  PerplexityResult base, quantized;
  // Over the predictions that `ppl` counts: mean of KL(base || quantized) in nats, and the share where both
  // have the same most likely token.
  double mean_kl = 0, same_top = 0;
};

// Both models on the same windows, in one pass. They share a vocabulary (checked).
LogitComparison compare_logits(Decoder& base, Decoder& quantized, ThreadPool& pool,
                               std::span<const std::int32_t> token_ids, const WindowOptions& options = {});

}  // namespace bise
