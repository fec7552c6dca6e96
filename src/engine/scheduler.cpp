#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace bise {

class Planner {
 public:
  Planner(const SchedulerState& state, std::int64_t budget, StepPlan& plan)
      : state_(state),
        blocks_(state.blocks),
        plan_(plan),
        budget_(budget),
        free_(state.blocks.pool().free_blocks()) {
    plan.sequences.clear();
    plan.preempted.clear();
    plan.hits.clear();
    plan.filling_.clear();
    plan.tokens = 0;
    plan.blocked = nullptr;
    plan.sequences.reserve(static_cast<std::size_t>(state.options.max_num_seqs));
    plan.filling_.reserve(static_cast<std::size_t>(state.options.max_num_seqs));
    plan.changes_.resize(static_cast<std::size_t>(blocks_.pool().num_blocks()));
    ++plan.stamp_;
  }

  void plan_running();
  void plan_waiting();

 private:
  bool preempted(const Sequence* sequence) const {
    return std::ranges::find(plan_.preempted, sequence) != plan_.preempted.end();
  }
  PlannedSequence chunk(Sequence& sequence, std::int64_t computed, std::int64_t room) const;
  Sequence* victim() const;
  void preempt(Sequence* sequence);
  void add(const PlannedSequence& planned);
  std::int32_t& change(std::int32_t block);

  bool admit(Sequence& sequence);
  std::int32_t find(const Sequence& sequence, std::int64_t block, std::int64_t group) const;
  std::int64_t share_prefix(const Sequence& sequence);

  const SchedulerState& state_;
  const KvBlocks& blocks_;
  StepPlan& plan_;
  std::int64_t budget_, free_;
};

// The next tokens of a sequence, at most `room`; guesses only after all known ones.
PlannedSequence Planner::chunk(Sequence& sequence, std::int64_t computed, std::int64_t room) const {
  std::int64_t known = std::min(sequence.known() - computed, room);
  const std::int64_t threshold = state_.options.long_prefill_token_threshold;
  const bool alone = state_.running.size() + state_.waiting.size() == 1;
  if (threshold > 0 && !alone && state_.options.enable_chunked_prefill) known = std::min(known, threshold);
  const bool all = known == sequence.known() - computed;
  const std::int64_t drafts = all ? std::min(sequence.drafts, room - known) : 0;
  return {.sequence = &sequence, .computed = computed, .tokens = known + drafts, .drafts = drafts};
}

void Planner::add(const PlannedSequence& planned) {
  if (planned.sequence->root && planned.end() / blocks_.block_size() > planned.sequence->blocks_cached)
    plan_.filling_.push_back(plan_.sequences.size());
  plan_.sequences.push_back(planned);
  plan_.tokens += planned.tokens;
  budget_ -= planned.tokens;
  free_ -= planned.new_blocks;
}

std::int32_t& Planner::change(std::int32_t block) {
  StepPlan::Change& change = plan_.changes_[static_cast<std::size_t>(block)];
  if (change.stamp != plan_.stamp_) change = {plan_.stamp_, 0};
  return change.references;
}

// The one that is served last: with FCFS it is the last of the running ones.
Sequence* Planner::victim() const {
  Sequence* last = nullptr;
  for (Sequence* sequence : state_.running)
    if (!preempted(sequence) && (last == nullptr || ServedFirst()(last, sequence))) last = sequence;
  return last;
}

void Planner::preempt(Sequence* sequence) {
  plan_.preempted.push_back(sequence);
  const auto planned = std::ranges::find(plan_.sequences, sequence, &PlannedSequence::sequence);
  if (planned != plan_.sequences.end()) {
    budget_ += planned->tokens;
    plan_.tokens -= planned->tokens;
    free_ += planned->new_blocks;
    plan_.sequences.erase(planned);
  }
  for (const auto& table : sequence->block_tables)
    for (const std::int32_t block : table)
      if (block != PrefixCache::kNone && blocks_.pool().references(block) + --change(block) == 0) ++free_;
}

void Planner::plan_running() {
  auto after = static_cast<std::int64_t>(state_.running.size());
  check(budget_ >= after, "a step has a token for every running sequence");
  for (Sequence* sequence : state_.running) {
    --after;
    if (!plan_.preempted.empty() && preempted(sequence)) continue;
    // Those that follow keep a token each: nobody waits for another's long prompt or lucky guesses.
    PlannedSequence planned = chunk(*sequence, sequence->computed, budget_ - after);
    planned.new_blocks = blocks_.blocks_to_grow(*sequence, planned.computed + planned.tokens);
    if (planned.new_blocks > free_ && planned.drafts > 0) {
      planned.tokens -= std::exchange(planned.drafts, 0);  // nobody is preempted for guesses
      planned.new_blocks = blocks_.blocks_to_grow(*sequence, planned.computed + planned.tokens);
    }
    while (planned.new_blocks > free_ && !preempted(sequence)) preempt(victim());
    if (plan_.preempted.empty() || !preempted(sequence)) add(planned);
  }
}

void Planner::plan_waiting() {
  auto running = static_cast<std::int64_t>(state_.running.size());
  for (Sequence* sequence : state_.waiting) {
    if (running >= state_.options.max_num_seqs || budget_ == 0 || !admit(*sequence)) break;
    ++running;
  }
}

// A block that holds the sequence's block `block`, now or after this step.
std::int32_t Planner::find(const Sequence& sequence, std::int64_t block, std::int64_t group) const {
  const BlockHash& hash = sequence.hashes[static_cast<std::size_t>(block)];
  if (const std::int32_t found = blocks_.cache().find(hash, group); found != PrefixCache::kNone) return found;
  for (const std::size_t i : plan_.filling_) {
    const PlannedSequence& other = plan_.sequences[i];
    if (block >= other.computed / blocks_.block_size() && block < other.end() / blocks_.block_size() &&
        other.sequence->hashes[static_cast<std::size_t>(block)] == hash)
      return StepPlan::from_planned(i);
  }
  return PrefixCache::kNone;
}

// Appends the hits of a waiting sequence to the plan; their number of blocks.
std::int64_t Planner::share_prefix(const Sequence& sequence) {
  if (!sequence.root || sequence.scores_prompt) return 0;
  // The last known token must be computed, for its logits.
  const std::int64_t length = longest_joint_hit(
      blocks_.windows(), blocks_.block_size(), (sequence.known() - 1) / blocks_.block_size(),
      [&](std::int64_t block, std::int64_t g) { return find(sequence, block, g) != PrefixCache::kNone; });
  for (std::int64_t g = 0; g < blocks_.groups(); ++g) {
    const std::int64_t visible = blocks_.first_visible(length * blocks_.block_size(), g);
    for (std::int64_t block = 0; block < length; ++block)
      plan_.hits.push_back(block < visible ? PrefixCache::kNone : find(sequence, block, g));
  }
  return length;
}

// Plans the first chunk of a waiting sequence if its whole prompt has room now; false, and nothing but a
// note, otherwise.
bool Planner::admit(Sequence& sequence) {
  if (state_.blocked == &sequence && free_ < state_.blocked_until) {
    plan_.blocked = state_.blocked;
    plan_.blocked_until = state_.blocked_until;
    return false;
  }
  const std::size_t first_hit = plan_.hits.size();
  const std::int64_t hit_blocks = share_prefix(sequence);
  PlannedSequence planned = chunk(sequence, hit_blocks * blocks_.block_size(), budget_);
  planned.admitted = true;
  planned.first_hit = first_hit;
  planned.hit_blocks = hit_blocks;
  planned.new_blocks =
      blocks_.groups() * (blocks_.blocks_for(planned.computed + planned.tokens) - hit_blocks);

  // Free blocks that it takes as they are, and those it will need for all it knows.
  std::int64_t revived = 0, needed = 0;
  const std::span hits = std::span(plan_.hits).subspan(first_hit);
  for (std::int64_t g = 0; g < blocks_.groups(); ++g) {
    const std::int64_t shared = hit_blocks - blocks_.first_visible(planned.computed, g);
    needed += std::min(blocks_.blocks_for(sequence.known()) - hit_blocks,
                       blocks_.most_blocks(sequence.known(), g) - shared);
  }
  for (const std::int32_t block : hits)
    if (block > 0 && blocks_.pool().references(block) + change(block) == 0) ++revived;
  const bool whole = planned.computed + planned.tokens == sequence.known();
  if (revived + std::max(needed, planned.new_blocks) > free_) {
    plan_.blocked = &sequence;
    plan_.blocked_until = revived + std::max(needed, planned.new_blocks);
  }
  if (plan_.blocked == &sequence || (!state_.options.enable_chunked_prefill && !whole)) {
    plan_.hits.resize(first_hit);
    return false;
  }
  for (const std::int32_t block : hits)
    if (block > 0) ++change(block);
  free_ -= revived;
  add(planned);
  return true;
}

void schedule(const SchedulerState& state, std::int64_t budget, StepPlan& plan) {
  Planner planner(state, budget, plan);
  planner.plan_running();
  // What was just taken from one sequence is not given to a newcomer.
  if (plan.preempted.empty()) planner.plan_waiting();
}

namespace {

void preempt(Sequence& sequence, SchedulerState& state) {
  state.blocks.release(sequence);
  sequence.drop_drafts();
  sequence.was_preempted = true;
  sequence.prompt_logprobs.clear();  // computed again, all or none
  state.waiting.insert(&sequence);
  ++state.preemptions;
}

// The tables of an admitted sequence begin with what it shares. Sequences planned before it have their
// blocks.
void share_hits(const PlannedSequence& planned, const StepPlan& plan, SchedulerState& state) {
  Sequence& sequence = *planned.sequence;
  const std::int32_t* hit = plan.hits.data() + planned.first_hit;
  for (std::size_t g = 0; g < sequence.block_tables.size(); ++g) {
    auto& table = sequence.block_tables[g];
    for (std::size_t i = 0; i < static_cast<std::size_t>(planned.hit_blocks); ++i, ++hit) {
      std::int32_t block = *hit;
      if (block < PrefixCache::kNone) {
        block = plan.sequences[StepPlan::planned_index(*hit)].sequence->block_tables[g][i];
        state.blocks.share(block);
      }
      sequence.freed_blocks[g] += block == PrefixCache::kNone;
      table.push_back(block);
    }
  }
  sequence.computed = planned.computed;
  sequence.blocks_cached = planned.hit_blocks;
  if (!sequence.was_preempted) sequence.cached_tokens = planned.computed;
}

}  // namespace

void apply(const StepPlan& plan, SchedulerState& state) {
  if (!plan.preempted.empty()) {
    for (Sequence* sequence : plan.preempted) preempt(*sequence, state);
    std::erase_if(state.running, [&](Sequence* sequence) {
      return std::ranges::find(plan.preempted, sequence) != plan.preempted.end();
    });
  }
  // What is shared must not be taken for something else.
  for (const std::int32_t block : plan.hits)
    if (block > 0) state.blocks.share(block);
  for (const PlannedSequence& planned : plan.sequences) {
    Sequence& sequence = *planned.sequence;
    if (planned.admitted) {
      share_hits(planned, plan, state);
      state.waiting.erase(&sequence);
      state.running.push_back(&sequence);
    }
    state.blocks.grow(sequence, planned.computed + planned.tokens);
    state.blocks.remember(sequence, planned.end());
  }
  state.blocked = plan.blocked;
  state.blocked_until = plan.blocked_until;
}

}  // namespace bise
