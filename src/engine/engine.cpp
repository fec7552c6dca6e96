#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "base/log.h"
#include "engine/engine_core.h"
#include "engine/model_runner.h"

namespace bise {

struct Engine::State {
  State(std::unique_ptr<ModelRunner> model_runner, const EngineOptions& options, OnStep step_listener)
      : runner(std::move(model_runner)),
        core(*runner, options),
        on_step(std::move(step_listener)),
        stats(core.stats()) {}

  // Of the engine thread.
  void run();
  void loop();
  bool take_in();
  void add_taken();
  void publish_and_deliver();
  void end_all();

  // Of any thread, with the mutex held.
  Admission room_for(std::int64_t requests, std::int64_t prompt_tokens) const;
  Admission put_in(std::vector<std::unique_ptr<Sequence>> sequences);

  const std::unique_ptr<ModelRunner> runner;
  EngineCore core;
  const OnStep on_step;
  // Taken in, not yet with the core. Reused.
  std::vector<std::unique_ptr<Sequence>> taken;
  std::int64_t taken_tokens = 0;
  std::vector<std::pair<RequestId, FinishReason>> taken_finishes;

  mutable std::mutex mutex;  // guards what follows; held for moments only
  std::condition_variable wake, thread_ended;
  std::vector<std::unique_ptr<Sequence>> submitted;
  std::vector<std::pair<RequestId, FinishReason>> finishes;
  std::int64_t submitted_tokens = 0;
  // After the last step. Requests that came since then, taken in or not, and the tokens of their prompts
  // count apart: none of them has had the chance to run.
  EngineStats stats;
  std::int64_t waiting_tokens = 0, arrived = 0, arrived_tokens = 0;
  bool accepts = true, healthy = true;
  bool reset_prefixes = false, abort = false;
  bool ended = false;  // the thread does nothing more

  std::mutex joining;
  std::thread thread;
};

void Engine::State::run() {
  try {
    loop();
  } catch (const std::exception& error) {
    log_line(LogLevel::kError, fmt::format("the engine failed: {}", error.what()));
    const std::lock_guard lock(mutex);
    accepts = healthy = false;
  }
  end_all();
  const std::lock_guard lock(mutex);
  ended = true;
  thread_ended.notify_all();
}

void Engine::State::loop() {
  while (take_in()) {
    const auto finish = [&] {
      for (const auto& [id, reason] : taken_finishes) core.finish(id, reason);
    };
    finish();
    if (!core.outputs().empty()) publish_and_deliver();
    add_taken();
    finish();  // of those that came with their end
    taken_finishes.clear();
    const std::int64_t tokens = core.step();
    publish_and_deliver();
    if (tokens > 0 && on_step) on_step(tokens);
  }
}

// Waits for work and takes in what was submitted and finished; false when all is to end.
bool Engine::State::take_in() {
  std::unique_lock lock(mutex);
  wake.wait(lock, [&] {
    return abort || !accepts || reset_prefixes || core.has_work() || !submitted.empty() || !finishes.empty();
  });
  if (abort || (!accepts && !core.has_work() && submitted.empty())) return false;
  if (std::exchange(reset_prefixes, false)) core.reset_prefix_cache();
  taken.swap(submitted);
  taken_tokens = std::exchange(submitted_tokens, 0);
  taken_finishes.swap(finishes);
  return true;
}

void Engine::State::add_taken() {
  for (auto& sequence : taken) core.add(std::move(sequence));
  taken.clear();
  taken_tokens = 0;
}

// First the figures: who hears that a request is over may rely on them.
void Engine::State::publish_and_deliver() {
  {
    const std::lock_guard lock(mutex);
    stats = core.stats();
    waiting_tokens = core.waiting_tokens();
    arrived = static_cast<std::int64_t>(submitted.size() + taken.size());
    arrived_tokens = submitted_tokens + taken_tokens;
  }
  for (EngineCore::Output& each : core.outputs()) each.sequence->listener(std::move(each.output));
  core.clear_outputs();
}

void Engine::State::end_all() {
  {
    const std::lock_guard lock(mutex);
    accepts = false;
    taken.insert(taken.end(), std::make_move_iterator(submitted.begin()),
                 std::make_move_iterator(submitted.end()));
    submitted.clear();
    submitted_tokens = 0;
  }
  add_taken();
  if (healthy)
    core.finish_all(FinishReason::kAbort);
  else
    core.abandon_all(FinishReason::kError);
  publish_and_deliver();
}

// Those that wait after a step had no place; without such, free places take new ones at once.
Admission Engine::State::room_for(std::int64_t requests, std::int64_t prompt_tokens) const {
  if (!accepts) return Admission::kStopped;
  const EngineOptions& options = core.options();
  const std::int64_t places = stats.waiting > 0 ? 0 : options.max_num_seqs - stats.running;
  const std::int64_t would_wait = stats.waiting + arrived + requests - places;
  if (would_wait <= 0) return Admission::kAccepted;
  if (options.max_num_queued_reqs > 0 && would_wait > options.max_num_queued_reqs)
    return Admission::kQueueFull;
  if (options.max_num_queued_tokens > 0 &&
      waiting_tokens + arrived_tokens + prompt_tokens > options.max_num_queued_tokens)
    return Admission::kQueueTokensFull;
  return Admission::kAccepted;
}

Admission Engine::State::put_in(std::vector<std::unique_ptr<Sequence>> sequences) {
  std::int64_t prompt_tokens = 0;
  for (const auto& sequence : sequences) prompt_tokens += sequence->prompt_tokens;
  {
    const std::lock_guard lock(mutex);
    const Admission room = room_for(static_cast<std::int64_t>(sequences.size()), prompt_tokens);
    if (room != Admission::kAccepted) return room;
    for (auto& sequence : sequences) submitted.push_back(std::move(sequence));
    submitted_tokens += prompt_tokens;
    arrived += static_cast<std::int64_t>(sequences.size());
    arrived_tokens += prompt_tokens;
  }
  wake.notify_one();
  return Admission::kAccepted;
}

Engine::Engine(std::unique_ptr<ModelRunner> runner, const EngineOptions& options, OnStep on_step)
    : state_(std::make_unique<State>(std::move(runner), options, std::move(on_step))) {
  state_->thread = std::thread([this] { state_->run(); });
}

Engine::~Engine() {
  stop(0);
}

const EngineOptions& Engine::options() const {
  return state_->core.options();
}

Admission Engine::admission(const GenerationRequest& request) const {
  return state_->core.admission(request);
}

Admission Engine::submit(GenerationRequest request, Listener listener, RequestId& id) {
  std::vector<Listener> listeners;
  listeners.push_back(std::move(listener));
  std::vector<RequestId> ids;
  const Admission admission = submit(request, std::move(listeners), ids);
  if (admission == Admission::kAccepted) id = ids.front();
  return admission;
}

Admission Engine::submit(const GenerationRequest& request, std::vector<Listener> listeners,
                         std::vector<RequestId>& ids) {
  if (const Admission wrong = admission(request); wrong != Admission::kAccepted) return wrong;
  {
    // Once more in put_in(); but whom it refuses shall cost little.
    const std::lock_guard lock(state_->mutex);
    const auto count = static_cast<std::int64_t>(listeners.size());
    const Admission room = state_->room_for(count, count * static_cast<std::int64_t>(request.prompt.size()));
    if (room != Admission::kAccepted) return room;
  }
  GenerationRequest each = request;
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<RequestId> new_ids;
  for (Listener& listener : listeners) {
    sequences.push_back(state_->core.make_sequence(each));
    sequences.back()->listener = std::move(listener);
    new_ids.push_back(sequences.back()->id);
    if (each.sampling.seed) ++*each.sampling.seed;
  }
  const Admission admission = state_->put_in(std::move(sequences));
  if (admission == Admission::kAccepted) ids = std::move(new_ids);
  return admission;
}

void Engine::finish(RequestId id, FinishReason reason) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->finishes.emplace_back(id, reason);
  }
  state_->wake.notify_one();
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(state_->mutex);
  EngineStats stats = state_->stats;
  stats.waiting += state_->arrived;
  return stats;
}

bool Engine::healthy() const {
  const std::lock_guard lock(state_->mutex);
  return state_->healthy;
}

// Done by the engine thread before it admits anything more: nothing can hold a block until then.
bool Engine::reset_prefix_cache() {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->stats.running + state_->stats.waiting + state_->arrived > 0) return false;
    state_->reset_prefixes = true;
  }
  state_->wake.notify_one();
  return true;
}

void Engine::stop(double seconds) {
  {
    std::unique_lock lock(state_->mutex);
    state_->accepts = false;
    state_->wake.notify_one();
    state_->thread_ended.wait_for(lock, std::chrono::duration<double>(seconds),
                                  [&] { return state_->ended; });
    state_->abort = true;
  }
  state_->wake.notify_one();
  const std::lock_guard lock(state_->joining);
  if (state_->thread.joinable()) state_->thread.join();
}

}  // namespace bise
