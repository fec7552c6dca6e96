#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace bise {
namespace {

constexpr std::array kTimeToFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1,  .25,  .5,   .75,
                                          1.,   2.5,  5.,  7.5, 10., 20., 40., 80., 160., 640., 2560.};
constexpr std::array kInterToken = {.01, .025, .05, .075, .1,  .15, .2,  .3,  .4, .5,
                                    .75, 1.,   2.5, 5.,   7.5, 10., 20., 40., 80.};
// Ours: the floor of 10 ms above is too coarse for a small model or a fast device.
constexpr std::array kFineInterToken = {.0005, .001, .0015, .002, .003, .004, .005, .006, .008, .01, .0125,
                                        .015,  .02,  .03,   .04,  .05,  .075, .1,   .2,   .5,   1.,  5.};
constexpr std::array kLatency = {.3,  .5,  .8,  1.,  1.5,  2.,   2.5,  5.,   10.,   15.,  20.,
                                 30., 40., 50., 60., 120., 240., 480., 960., 1920., 7680.};
constexpr std::array kIteration = {1.,   8.,    16.,   32.,   64.,   128.,  256.,
                                   512., 1024., 2048., 4096., 8192., 16384.};
constexpr std::array kParamsN = {1., 2., 5., 10., 20.};
constexpr std::array kReasons = {FinishReason::kStop, FinishReason::kLength, FinishReason::kAbort,
                                 FinishReason::kError, FinishReason::kRepetition};
constexpr std::size_t kRecentRequests = 1000;

double ratio(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

double number(std::int64_t value) {
  return static_cast<double>(value);
}

}  // namespace

Metrics::Metrics(MetricsOptions options)
    : options_(std::move(options)),
      prompt_tokens_(bounds_1_2_5(options_.max_model_len)),
      generation_tokens_(prompt_tokens_.bounds()),
      max_generation_tokens_(prompt_tokens_.bounds()),
      max_tokens_(prompt_tokens_.bounds()),
      computed_tokens_(prompt_tokens_.bounds()),
      iteration_tokens_(kIteration),
      params_n_(kParamsN),
      time_to_first_token_(kTimeToFirstToken),
      inter_token_(kInterToken),
      time_per_output_token_(kInterToken),
      fine_inter_token_(kFineInterToken),
      fine_time_per_output_token_(kFineInterToken),
      e2e_(kLatency),
      queue_(kLatency),
      inference_(kLatency),
      prefill_(kLatency),
      decode_(kLatency) {}

void Metrics::on_accepted(std::int64_t n, std::int64_t max_tokens) {
  params_n_.observe(number(n));
  max_tokens_.observe(number(max_tokens));
}

void Metrics::on_first_token(double seconds_since_arrival) {
  time_to_first_token_.observe(seconds_since_arrival);
}

void Metrics::on_next_tokens(double seconds_since_previous) {
  inter_token_.observe(seconds_since_previous);
  fine_inter_token_.observe(seconds_since_previous);
}

void Metrics::on_finished(const FinishedSequence& sequence) {
  finished_[static_cast<std::size_t>(sequence.reason)].add();
  prompt_tokens_.observe(number(sequence.prompt_tokens));
  generation_tokens_.observe(number(sequence.generated_tokens));
  max_generation_tokens_.observe(number(sequence.generated_tokens));
  computed_tokens_.observe(number(sequence.prompt_tokens - sequence.cached_tokens));

  // What never happened, as in a request aborted while it waited, took no time.
  const RequestTimes& times = sequence.times;
  const double first = times.first_token > 0 ? times.first_token : times.last_token;
  const double last = std::max(times.last_token, first);
  const double scheduled = times.scheduled > 0 ? times.scheduled : last;
  const auto span = [](double from, double to) { return std::max(0.0, to - from); };
  const double decode = span(first, last);
  if (last > 0) e2e_.observe(span(sequence.arrival, last));
  if (times.scheduled > 0) {
    queue_.observe(span(times.queued, scheduled));
    inference_.observe(span(scheduled, last));
    prefill_.observe(span(scheduled, first));
    decode_.observe(decode);
  }
  if (sequence.generated_tokens > 1) {
    const double each = decode / number(sequence.generated_tokens - 1);
    time_per_output_token_.observe(each);
    fine_time_per_output_token_.observe(each);
  }

  const std::lock_guard lock(recent_mutex_);
  recent_.push_back({sequence.prompt_tokens, sequence.cached_tokens});
  recent_sum_.tokens += sequence.prompt_tokens;
  recent_sum_.cached += sequence.cached_tokens;
  if (recent_.size() > kRecentRequests) {
    recent_sum_.tokens -= recent_.front().tokens;
    recent_sum_.cached -= recent_.front().cached;
    recent_.pop_front();
  }
}

void Metrics::on_rejected(Admission admission) {
  if (admission == Admission::kQueueFull) rejected_requests_.add();
  if (admission == Admission::kQueueTokensFull) rejected_tokens_.add();
}

double Metrics::recent_prefix_hit_rate() const {
  const std::lock_guard lock(recent_mutex_);
  return ratio(recent_sum_.cached, recent_sum_.tokens);
}

void Metrics::write_engine(MetricsWriter& out, const EngineStats& stats) const {
  out.gauge("vllm:num_requests_running", "Number of requests in model execution batches.",
            number(stats.running));
  out.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.",
            number(stats.waiting));
  out.family("vllm:num_requests_waiting_by_reason", "gauge",
             "Number of waiting requests: for capacity, or deferred (never, here).");
  out.sample("vllm:num_requests_waiting_by_reason", number(stats.waiting), {{"reason", "capacity"}});
  out.sample("vllm:num_requests_waiting_by_reason", 0, {{"reason", "deferred"}});
  out.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.",
            ratio(stats.used_blocks, stats.total_blocks));
  out.gauge("vllm:cache_config_info", "The cache's settings.", 1, options_.cache_config);
  out.counter("vllm:prefix_cache_queries", "Prefix cache queries, in tokens.",
              number(stats.prefix_cache_queries));
  out.counter("vllm:prefix_cache_hits", "Prefix cache hits, in tokens.", number(stats.prefix_cache_hits));
  out.counter("vllm:num_preemptions", "Preemptions since the start.", number(stats.preemptions));
  out.counter("vllm:prompt_tokens", "Prompt tokens processed, cached ones included.",
              number(stats.prompt_tokens));
  out.family("vllm:prompt_tokens_by_source_total", "counter", "Prompt tokens by where they came from.");
  const auto source = [&](const char* name, std::int64_t tokens) {
    out.sample("vllm:prompt_tokens_by_source_total", number(tokens), {{"source", name}});
  };
  source("local_compute", stats.prompt_tokens - stats.prompt_tokens_cached);
  source("local_cache_hit", stats.prompt_tokens_cached);
  source("external_kv_transfer", 0);
  out.counter("vllm:prompt_tokens_cached", "Prompt tokens that the prefix cache served.",
              number(stats.prompt_tokens_cached));
  out.counter("vllm:generation_tokens", "Tokens generated.", number(stats.generation_tokens));
  out.histogram("vllm:iteration_tokens_total", "Tokens of each engine step.", iteration_tokens_);
}

void Metrics::write_requests(MetricsWriter& out) const {
  out.family("vllm:request_success_total", "counter", "Finished sequences by reason.");
  for (const FinishReason reason : kReasons)
    out.sample("vllm:request_success_total", number(finished_[static_cast<std::size_t>(reason)].value()),
               {{"finished_reason", std::string(finish_reason_text(reason))}});
  out.sample("vllm:request_success_total", 0, {{"finished_reason", "repetition"}});
  out.histogram("vllm:request_prompt_tokens", "Prompt tokens of each request.", prompt_tokens_);
  out.histogram("vllm:request_generation_tokens", "Tokens generated for each request.", generation_tokens_);
  out.histogram("vllm:request_max_num_generation_tokens", "Largest number of tokens generated for a request.",
                max_generation_tokens_);
  out.histogram("vllm:request_params_max_tokens", "The max_tokens of each request.", max_tokens_);
  out.histogram("vllm:request_params_n", "The n of each request.", params_n_);
  out.histogram("vllm:request_prefill_kv_computed_tokens", "Prompt tokens computed, cached ones left out.",
                computed_tokens_);
  out.histogram("vllm:time_to_first_token_seconds", "Time to the first token.", time_to_first_token_);
  out.histogram("vllm:inter_token_latency_seconds", "Time between outputs of a request.", inter_token_);
  out.histogram("vllm:request_time_per_output_token_seconds", "Mean time per token after the first.",
                time_per_output_token_);
  out.histogram("bise:inter_token_latency_seconds", "The same as vllm's, with finer buckets.",
                fine_inter_token_);
  out.histogram("bise:request_time_per_output_token_seconds", "The same as vllm's, with finer buckets.",
                fine_time_per_output_token_);
  out.histogram("vllm:e2e_request_latency_seconds", "Time from arrival to the last token.", e2e_);
  out.histogram("vllm:request_queue_time_seconds", "Time spent waiting.", queue_);
  out.histogram("vllm:request_inference_time_seconds", "Time spent running.", inference_);
  out.histogram("vllm:request_prefill_time_seconds", "Time from the first step to the first token.",
                prefill_);
  out.histogram("vllm:request_decode_time_seconds", "Time from the first token to the last.", decode_);
}

void Metrics::write_speculation(MetricsWriter& out, const EngineStats& stats) const {
  if (stats.accepted_per_position.empty()) return;
  out.counter("vllm:spec_decode_num_drafts", "Drafts made.", number(stats.drafts));
  out.counter("vllm:spec_decode_num_draft_tokens", "Tokens drafted.", number(stats.draft_tokens));
  out.counter("vllm:spec_decode_num_accepted_tokens", "Drafted tokens accepted.",
              number(stats.accepted_tokens));
  out.family("vllm:spec_decode_num_accepted_tokens_per_pos_total", "counter",
             "Drafted tokens accepted, by place in the draft.");
  for (std::size_t i = 0; i < stats.accepted_per_position.size(); ++i)
    out.sample("vllm:spec_decode_num_accepted_tokens_per_pos_total", number(stats.accepted_per_position[i]),
               {{"position", std::to_string(i)}});
}

std::string Metrics::text(const EngineStats& stats) const {
  MetricsWriter engine({{"model_name", options_.model_name}, {"engine", "0"}});
  write_engine(engine, stats);
  write_requests(engine);
  write_speculation(engine, stats);
  MetricsWriter model({{"model_name", options_.model_name}});
  model.family("vllm:admission_rejections_total", "counter", "Requests refused by a queue limit.");
  model.sample("vllm:admission_rejections_total", number(rejected_requests_.value()),
               {{"reason", "max_num_queued_reqs"}});
  model.sample("vllm:admission_rejections_total", number(rejected_tokens_.value()),
               {{"reason", "max_num_queued_tokens"}});
  MetricsWriter process({});
  http_.write(process);
  write_process_metrics(process);
  return engine.take() + model.take() + process.take();
}

}  // namespace bise
