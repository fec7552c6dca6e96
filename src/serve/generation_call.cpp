#include "serve/generation_call.h"

#include <fmt/format.h>

#include "base/log.h"
#include "serve/api_error.h"
#include "serve/prompt_limits.h"

namespace bise {
namespace {

// Frames that wait for a client that reads slowly. Above this its tokens are joined into fewer frames.
constexpr std::size_t kSlowClientBytes = 16 << 10;

[[noreturn]] void refuse(Admission admission, const Engine& engine) {
  const std::string why(admission_text(admission));
  switch (admission) {
    case Admission::kQueueFull:
    case Admission::kQueueTokensFull:
      throw queue_full("The server is overloaded: " + why + ". Try again later.");
    case Admission::kStopped:
      if (!engine.healthy()) throw internal_error("The engine has failed.");
      throw queue_full("The server is shutting down.");
    default: throw bad_request("The request cannot run: " + why + ".");
  }
}

}  // namespace

GenerationCall::GenerationCall(const CallContext& context, std::shared_ptr<HttpExchange> exchange,
                               double arrival, std::shared_ptr<const void> request,
                               const GenerationFields& fields,
                               std::vector<std::span<const std::int32_t>> prompts,
                               std::vector<std::int32_t> visible, std::unique_ptr<Answer> answer)
    : context_(context),
      exchange_(std::move(exchange)),
      arrival_(arrival),
      request_(std::move(request)),
      fields_(fields),
      prompts_(std::move(prompts)),
      visible_(std::move(visible)),
      answer_(std::move(answer)) {
  for (const auto prompt : prompts_)
    for (std::int64_t i = 0; i < fields_.n; ++i)
      choices_.emplace_back(fields_, context_.model, prompt, visible_);
  progress_.resize(choices_.size());
}

void GenerationCall::start(std::shared_ptr<const TokenConstraint> constraint) {
  if (exchange_->disconnected()) return;
  std::vector<GenerationRequest> requests;
  for (const auto prompt : prompts_) {
    GenerationRequest& request = requests.emplace_back();
    request.prompt.assign(prompt.begin(), prompt.end());
    request.sampling = sampling_for_prompt(fields_, static_cast<std::int64_t>(prompt.size()), context_.model);
    request.sampling.constraint = constraint;
    request.priority = fields_.priority;
    request.cache_salt = fields_.cache_salt;
    if (const Admission admission = context_.engine.admission(request); admission != Admission::kAccepted)
      refuse(admission, context_.engine);
  }
  exchange_->on_disconnect([weak = weak_from_this()] {
    if (const auto call = weak.lock()) call->cancel();
  });
  try {
    for (std::size_t i = 0; i < requests.size(); ++i) submit(requests[i], i);
  } catch (...) {
    // What was accepted is taken back; its outputs are never looked at.
    exchange_->on_disconnect([] {});
    cancel();
    throw;
  }
  for (const GenerationRequest& request : requests)
    context_.observer.on_accepted(fields_.n, request.sampling.max_tokens);
  drain();
}

void GenerationCall::submit(const GenerationRequest& request, std::size_t prompt) {
  std::vector<Engine::Listener> listeners;
  for (std::int64_t i = 0; i < fields_.n; ++i) {
    const auto choice = prompt * static_cast<std::size_t>(fields_.n) + static_cast<std::size_t>(i);
    listeners.push_back([self = shared_from_this(), choice](RequestOutput&& output) {
      self->arrive(choice, std::move(output));
    });
  }
  std::vector<RequestId> ids;
  const Admission admission = context_.engine.submit(request, std::move(listeners), ids);
  if (admission != Admission::kAccepted) {
    context_.observer.on_rejected(admission);
    refuse(admission, context_.engine);
  }
  bool cancelled = false;
  {
    const std::lock_guard lock(mutex_);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    cancelled = cancelled_;
  }
  if (cancelled) cancel();
}

void GenerationCall::arrive(std::size_t choice, RequestOutput&& output) {
  {
    const std::lock_guard lock(mutex_);
    arrived_.push_back({choice, std::move(output)});
    if (draining_) return;
    draining_ = true;
  }
  context_.workers.post([self = shared_from_this()] { self->drain(); });
}

void GenerationCall::cancel() {
  std::vector<RequestId> ids;
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    ids = ids_;
  }
  for (const RequestId id : ids) context_.engine.finish(id, FinishReason::kAbort);
}

// All that came while the last batch was worked on makes one frame for each choice.
void GenerationCall::drain() {
  for (std::vector<Arrived> batch;;) {
    batch.clear();
    {
      const std::lock_guard lock(mutex_);
      batch.swap(arrived_);
      if (batch.empty()) {
        draining_ = false;
        return;
      }
    }
    try {
      for (Arrived& arrived : batch) take(std::move(arrived));
      if (fields_.stream && !done_) flush(finished_ == choices_.size());
      if (!done_ && finished_ == choices_.size()) complete();
    } catch (const std::exception& problem) {
      log_line(LogLevel::kError, fmt::format("request {} failed: {}", answer_->id(), problem.what()));
      fail();
    }
  }
}

void GenerationCall::take(Arrived&& arrived) {
  ChoiceStream& choice = choices_[arrived.choice];
  if (choice.finish_reason()) return;
  const RequestId id = arrived.output.id;
  const bool engine_ended = arrived.output.finish_reason.has_value();
  const RequestTimes times = arrived.output.times;
  observe(arrived.choice, arrived.output);
  choice.push(std::move(arrived.output));
  if (!choice.finish_reason()) return;
  ++finished_;
  if (!engine_ended) context_.engine.finish(id, FinishReason::kStop);  // a stop string came
  FinishedSequence sequence;
  sequence.reason = *choice.finish_reason();
  sequence.prompt_tokens =
      static_cast<std::int64_t>(prompts_[arrived.choice / static_cast<std::size_t>(fields_.n)].size());
  sequence.cached_tokens = choice.cached_tokens();
  sequence.generated_tokens = choice.generated();
  sequence.arrival = arrival_;
  sequence.times = times;
  context_.observer.on_finished(sequence);
  if (sequence.reason == FinishReason::kError && !done_) fail();
}

void GenerationCall::observe(std::size_t choice, const RequestOutput& output) {
  if (output.token_ids.empty()) return;
  double& last = progress_[choice].last_output;
  const double now = output.times.last_token;
  if (last == 0) {
    context_.observer.on_first_token(now - arrival_);
  } else {
    context_.observer.on_next_tokens(now - last);
  }
  last = now;
}

void GenerationCall::flush(bool all) {
  std::string frames;
  if (!streaming_) {
    streaming_ = true;
    exchange_->start_stream(
        200, {{"content-type", "text/event-stream; charset=utf-8"}, {"cache-control", "no-cache"}});
    answer_->append_start(frames);
  } else if (!all && exchange_->unsent_bytes() > kSlowClientBytes) {
    return;
  }
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    ChoiceStream& choice = choices_[i];
    if (progress_[i].ended) continue;
    const std::int64_t tokens = choice.delta().tokens;
    const bool first = tokens > 0 && tokens == choice.generated();
    const bool ends = choice.finish_reason().has_value();
    if (!ends && (tokens == 0 || (!first && tokens < fields_.stream_interval))) continue;
    answer_->append_delta(i, choice, frames);
    progress_[i].ended = ends;
  }
  if (!frames.empty()) exchange_->write(std::move(frames));
}

void GenerationCall::complete() {
  done_ = true;
  if (fields_.stream) {
    std::string frames;
    answer_->append_end(usage(), frames);
    exchange_->write(std::move(frames));
    exchange_->finish();
    return;
  }
  HttpResponse response;
  response.headers.set("content-type", "application/json");
  response.body = answer_->whole(choices_, usage());
  exchange_->respond(std::move(response));
}

void GenerationCall::fail() {
  if (done_) return;
  done_ = true;
  cancel();
  const ApiError error = internal_error("The engine has failed; the request was not completed.");
  if (!streaming_) {
    exchange_->respond(error.response());
    return;
  }
  exchange_->write("data: " + error.body() + "\n\n" + std::string(kStreamEnd));
  exchange_->finish();
}

Usage GenerationCall::usage() const {
  Usage usage;
  for (const auto prompt : prompts_) usage.prompt_tokens += static_cast<std::int64_t>(prompt.size());
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    usage.completion_tokens += choices_[i].generated();
    if (i % static_cast<std::size_t>(fields_.n) == 0) usage.cached_tokens += choices_[i].cached_tokens();
  }
  return usage;
}

}  // namespace bise
