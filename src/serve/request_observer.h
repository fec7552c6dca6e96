// What the request handlers tell the metrics. Methods are called from any thread and return quickly.
#pragma once

#include <cstdint>

#include "engine/engine.h"

namespace bise {

// One choice of one request, when its last token is out or it was given up.
struct FinishedSequence {
  FinishReason reason = FinishReason::kAbort;
  std::int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  double arrival = 0;  // engine_clock_seconds() when the HTTP request was whole
  RequestTimes times;
};

class RequestObserver {
 public:
  virtual ~RequestObserver() = default;
  // An accepted request with its n and max_tokens.
  virtual void on_accepted(std::int64_t n, std::int64_t max_tokens) = 0;
  // A step's output: seconds since arrival for the first, else since the output before it.
  virtual void on_first_token(double seconds_since_arrival) = 0;
  virtual void on_next_tokens(double seconds_since_previous) = 0;
  virtual void on_finished(const FinishedSequence& sequence) = 0;
  // A request refused by a queue limit.
  virtual void on_rejected(Admission admission) = 0;
};

}  // namespace bise
