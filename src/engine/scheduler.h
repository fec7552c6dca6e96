// Decides what a step computes. Each sequence has known tokens (prompt and output) and computed ones; a step
// gives tokens to sequences until the budget is spent: to running ones first, in order, then to waiting ones
// (spec/serving.md section 3.1). schedule() only reads; apply() does what a plan says. Engine thread.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_blocks.h"
#include "engine/sequence.h"

namespace bise {

struct SchedulerState {
  EngineOptions options;
  KvBlocks blocks;
  std::vector<Sequence*> running;            // in the order of admission
  std::set<Sequence*, ServedFirst> waiting;  // preempted ones stand before those that came later
  // The first waiting sequence had no room when this many blocks were not free; not looked at again before.
  const Sequence* blocked = nullptr;
  std::int64_t blocked_until = 0;
  std::int64_t preemptions = 0;
};

struct PlannedSequence {
  Sequence* sequence = nullptr;
  std::int64_t computed = 0;            // tokens in the cache before the step
  std::int64_t tokens = 0, drafts = 0;  // to compute; of them guesses (the last ones)
  std::int64_t new_blocks = 0;
  bool admitted = false;        // from the waiting ones
  std::size_t first_hit = 0;    // into StepPlan::hits
  std::int64_t hit_blocks = 0;  // of each group

  // Known tokens that are computed after the step.
  std::int64_t end() const { return computed + tokens - drafts; }
  bool computes_all() const { return end() == sequence->known(); }
};

// What a step does. Reused from step to step, so that planning does not allocate.
class StepPlan {
 public:
  std::vector<PlannedSequence> sequences;  // running ones first
  std::vector<Sequence*> preempted;        // in this order
  std::int64_t tokens = 0;
  // Blocks that admitted sequences share, [groups][hit_blocks] each: a block id; PrefixCache::kNone where a
  // window does not reach; or from_planned(i) for a block that sequences[i] fills in this very step.
  std::vector<std::int32_t> hits;
  const Sequence* blocked = nullptr;  // see SchedulerState
  std::int64_t blocked_until = 0;

  static std::int32_t from_planned(std::size_t i) { return -2 - static_cast<std::int32_t>(i); }
  static std::size_t planned_index(std::int32_t hit) { return static_cast<std::size_t>(-2 - hit); }

 private:
  friend class Planner;
  // Holders that the plan adds to a block or takes from it; valid where `stamp` is the plan's.
  struct Change {
    std::uint64_t stamp = 0;
    std::int32_t references = 0;
  };
  std::vector<Change> changes_;  // [num_blocks]
  std::uint64_t stamp_ = 0;
  std::vector<std::size_t> filling_;  // of sequences: those that fill blocks in this step
};

// Plans a step of at most `budget` >= running sequences tokens. Pure: the plan is a function of the state and
// the budget (and every running sequence gets a token or is preempted). The plan is empty only when nothing
// runs or waits.
void schedule(const SchedulerState& state, std::int64_t budget, StepPlan& plan);

// Preempts, admits and allocates as planned. The plan was made from this very state.
void apply(const StepPlan& plan, SchedulerState& state);

}  // namespace bise
