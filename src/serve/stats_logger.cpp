#include "serve/stats_logger.h"

#include <fmt/format.h>

#include <chrono>

#include "base/clock.h"
#include "serve/server_log.h"

namespace bise {

std::string stats_line(const EngineStats& before, const EngineStats& now, double seconds,
                       double prefix_hit_rate, std::string_view device) {
  const auto rate = [&](std::int64_t from, std::int64_t to) {
    return seconds > 0 ? static_cast<double>(to - from) / seconds : 0;
  };
  const double usage = now.total_blocks > 0 ? 100 * static_cast<double>(now.used_blocks) /
                                                  static_cast<double>(now.total_blocks)
                                            : 0;
  std::string line = fmt::format(
      "Engine 000: Avg prompt throughput: {:.1f} tokens/s, Avg generation throughput: {:.1f} tokens/s, "
      "Running: {} reqs, Waiting: {} reqs, ",
      rate(before.prompt_tokens, now.prompt_tokens), rate(before.generation_tokens, now.generation_tokens),
      now.running, now.waiting);
  if (now.preemptions > before.preemptions)
    line += fmt::format("Preemptions: {}, ", now.preemptions - before.preemptions);
  line += fmt::format("{} KV cache usage: {:.1f}%, Prefix cache hit rate: {:.1f}%", device, usage,
                      100 * prefix_hit_rate);
  if (now.drafts > before.drafts)
    line += fmt::format(", Mean acceptance length: {:.2f}",
                        1 + static_cast<double>(now.accepted_tokens - before.accepted_tokens) /
                                static_cast<double>(now.drafts - before.drafts));
  return line;
}

StatsLogger::StatsLogger(const Engine& engine, const Metrics& metrics, std::string device,
                         double interval_seconds)
    : engine_(engine), metrics_(metrics), device_(std::move(device)), interval_(interval_seconds) {
  thread_ = std::thread([this] { run(); });
}

StatsLogger::~StatsLogger() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void StatsLogger::run() {
  EngineStats before = engine_.stats();
  Stopwatch watch;
  bool was_idle = true;
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, std::chrono::duration<double>(interval_), [this] { return stopping_; })) {
    const EngineStats now = engine_.stats();
    const bool idle = now.steps == before.steps && now.running == 0 && now.waiting == 0;
    if (!idle || !was_idle)
      server_info("{}", stats_line(before, now, watch.seconds(), metrics_.recent_prefix_hit_rate(), device_));
    was_idle = idle;
    before = now;
    watch.restart();
  }
}

}  // namespace bise
