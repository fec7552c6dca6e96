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

// A draw for `row` from edited logits (bise::LogitEdits). Of the words that all draws share, the row's begin
// at `first`: pairs of token and bias, pairs of token and output_count, tokens to remove, words of the mask.
struct EditedDraw {
  TokenDraw draw;
  float repetition, frequency, presence;
  std::int32_t row, first;
  std::int32_t biases, counts, removed, allowed;  // how many of each
};

// Whether a row of so many logits fits the multiprocessors that share it.
bool supports_draw(std::int64_t columns);
// The token of each of `rows` rows of logits [rows, columns]; -1 where a logit is no number.
void draw(const float* logits, std::int64_t rows, std::int64_t columns, const TokenDraw* draws,
          std::int32_t* tokens, cudaStream_t stream);
// The tokens of some of the rows, each at its row's place; the logits stay as they are.
void draw_edited(const float* logits, std::int64_t columns, const EditedDraw* draws, std::int64_t count,
                 const std::int32_t* words, std::int32_t* tokens, cudaStream_t stream);

}  // namespace bise::cuda
