// One request while it runs: its tokens, how many of them the cache holds, its blocks, its sampler.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"
#include "engine/sampler.h"

namespace bise {

struct Sequence {
  std::size_t request = 0;              // index of the caller's request
  std::vector<std::int32_t> token_ids;  // prompt, then output
  std::int64_t prompt_tokens = 0;
  std::int64_t computed = 0;   // tokens whose keys and values are in the cache
  std::int64_t max_total = 0;  // tokens at which it is finished for length
  std::vector<std::int32_t> blocks;
  Sampler sampler;
  std::vector<std::int32_t> stop_token_ids;

  std::int64_t known() const { return static_cast<std::int64_t>(token_ids.size()); }
  std::int64_t generated() const { return known() - prompt_tokens; }
  // Tokens to compute before the next one can be drawn; 1 while decoding.
  std::int64_t remaining() const { return known() - computed; }
  std::span<const std::int32_t> next_tokens(std::int64_t count) const {
    return std::span(token_ids).subspan(static_cast<std::size_t>(computed), static_cast<std::size_t>(count));
  }
};

}  // namespace bise
