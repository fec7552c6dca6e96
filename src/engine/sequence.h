// One request while it waits or runs: its tokens, how many of them the cache holds, its blocks, its sampler.
// Made by the thread that submits, then the engine thread's.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/ngram_proposer.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/sampler.h"

namespace bise {

struct Sequence {
  RequestId id = 0;  // in the order of arrival
  std::int64_t priority = 0;
  std::vector<std::int32_t> token_ids;  // prompt, output, then `drafts` guesses
  std::int64_t prompt_tokens = 0, drafts = 0;
  std::int64_t computed = 0;   // tokens whose keys and values are in the cache
  std::int64_t max_total = 0;  // tokens at which it is finished for length
  std::int64_t min_tokens = 0;
  std::vector<std::int32_t> stop_token_ids;
  Sampler sampler;
  std::optional<NgramProposer> proposer;  // with speculation

  // [groups][blocks] with PrefixCache::kNone for blocks freed behind a window; all of one length.
  std::vector<std::vector<std::int32_t>> block_tables;
  std::vector<std::int64_t> freed_blocks;  // [groups] entries that are kNone, all at the begin
  // With the prefix cache: hashes of all full blocks of known tokens, the first of which are in it.
  std::optional<BlockHash> root;
  std::vector<BlockHash> hashes;
  std::int64_t blocks_cached = 0;

  bool scores_prompt = false;  // prompt_logprobs are wanted and not delivered yet
  std::vector<PositionLogprobs> prompt_logprobs;
  bool was_preempted = false;
  std::int64_t cached_tokens = 0;  // prompt tokens that the prefix cache served
  RequestTimes times;
  std::optional<FinishReason> finish_reason;
  std::int32_t stop_token_id = -1;
  Engine::Listener listener;  // null without an Engine

  std::int64_t known() const { return static_cast<std::int64_t>(token_ids.size()) - drafts; }
  std::int64_t generated() const { return known() - prompt_tokens; }
  // Prompt and output so far.
  std::span<const std::int32_t> history() const {
    return std::span(token_ids).first(static_cast<std::size_t>(known()));
  }
  void drop_drafts() {
    token_ids.resize(static_cast<std::size_t>(known()));
    drafts = 0;
  }
};

// Of two sequences the one that is served first: smaller priority, then earlier. (With the FCFS policy all
// priorities are 0.)
struct ServedFirst {
  bool operator()(const Sequence* a, const Sequence* b) const {
    return a->priority != b->priority ? a->priority < b->priority : a->id < b->id;
  }
};

}  // namespace bise
