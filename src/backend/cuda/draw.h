// Drawing tokens from logits on the device (draw.cu). Launched on `stream`; pointers are device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bise::cuda {

// The layout is that of bise::TokenDraw, which says what it means.
struct TokenDraw {
  float factor;
  std::uint32_t key_low, key_high;
  float smallest;
  std::int32_t top_k;
  float top_p;
};

// Whether a row of so many logits fits the multiprocessors that share it.
bool supports_draw(std::int64_t columns);
// The token of each of `rows` rows of logits [rows, columns]; -1 where a logit is no number.
void draw(const float* logits, std::int64_t rows, std::int64_t columns, const TokenDraw* draws,
          std::int32_t* tokens, cudaStream_t stream);

}  // namespace bise::cuda
