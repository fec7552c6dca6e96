// The step loop without a thread: sequences in, tokens out. Engine runs it on its own thread, Generator on
// the caller's. Belongs to one thread, except for admission() and make_sequence(), which any may call.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "engine/model_runner.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"

namespace bise {

class EngineCore {
 public:
  // The runner outlives the core. Throws Error when the options cannot work together or with the runner.
  EngineCore(ModelRunner& runner, const EngineOptions& options);
  ~EngineCore();

  // With max_model_len no longer than the cache.
  const EngineOptions& options() const { return state_.options; }

  Admission admission(const GenerationRequest& request) const;
  // An admitted request with a new id, higher than all before. Everything that takes long with a long prompt
  // is done here: hashing, indexing for speculation.
  std::unique_ptr<Sequence> make_sequence(const GenerationRequest& request);

  void add(std::unique_ptr<Sequence> sequence);
  // Ends a sequence with an output without tokens; unknown ids are ignored.
  void finish(RequestId id, FinishReason reason);
  // The same for all sequences.
  void finish_all(FinishReason reason);
  // The same after step() has thrown, when blocks may be in any state: the core is of no more use.
  void abandon_all(FinishReason reason);

  bool has_work() const { return !sequences_.empty(); }
  // Computes a step, if there is work; the number of its tokens. What it throws comes from the runner, and
  // leaves the core fit for abandon_all() only.
  std::int64_t step();
  // Whether the last step computed a prompt's token.
  bool step_had_prompt() const { return step_had_prompt_; }

  // Of the finish() and step() since clear_outputs(). A finished sequence lives until then.
  struct Output {
    Sequence* sequence = nullptr;
    RequestOutput output;
  };
  // What is not moved out of them is reused.
  std::span<Output> outputs() { return std::span(outputs_).first(output_count_); }
  void clear_outputs();

  // After the last call; `waiting_tokens` are those of the waiting sequences' prompts.
  const EngineStats& stats();
  std::int64_t waiting_tokens() const { return waiting_tokens_; }
  bool reset_prefix_cache() { return state_.blocks.forget_prefixes(); }
  const SchedulerState& state() const { return state_; }

 private:
  void launch();
  void commit(std::span<const StepResult> results);
  void commit(const PlannedSequence& planned, const StepResult& result, double now);
  void append(Sequence& sequence, std::int32_t token);
  void guess(Sequence& sequence);
  void collect_prompt(Sequence& sequence, const PlannedSequence& planned, const StepResult& result);
  void count_prompt(const Sequence& sequence);
  void end(Sequence& sequence, FinishReason reason);
  RequestOutput& add_output(Sequence& sequence);

  ModelRunner& runner_;
  const BlockHasher hasher_;
  const std::uint64_t seed_;  // of unseeded requests
  std::atomic<RequestId> next_id_ = 1;

  SchedulerState state_;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::int64_t waiting_tokens_ = 0;
  EngineStats stats_;

  // Of the step that runs. Reused.
  StepPlan plan_;
  std::vector<StepSequence> step_;
  std::vector<std::span<const std::int32_t>> tables_;
  std::vector<std::int32_t> drafts_;
  bool step_had_prompt_ = false;
  std::vector<Output> outputs_;
  std::size_t output_count_ = 0;
  std::vector<std::unique_ptr<Sequence>> ended_;
};

}  // namespace bise
