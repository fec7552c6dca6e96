// One HTTP request that generates: it submits its prompts to the engine, turns what comes into the answer and
// ends when the client is gone. The engine's thread only queues outputs here; text and JSON are made on a
// worker, one at a time for one call. It lives as long as the engine or a worker holds it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "net/http_server.h"
#include "serve/answer.h"
#include "serve/choice_stream.h"
#include "serve/request_observer.h"
#include "serve/worker_pool.h"

namespace bise {

// What a call works with; outlives it.
struct CallContext {
  const ServedModel& model;
  Engine& engine;
  WorkerPool& workers;
  RequestObserver& observer;
};

class GenerationCall : public std::enable_shared_from_this<GenerationCall> {
 public:
  // `request` is what `answer`, `fields` and `prompts` (the ids of each) refer to.
  GenerationCall(const CallContext& context, std::shared_ptr<HttpExchange> exchange, double arrival,
                 std::shared_ptr<const void> request, const GenerationFields& fields,
                 std::vector<std::span<const std::int32_t>> prompts, std::vector<std::int32_t> visible,
                 std::unique_ptr<Answer> answer);

  // Submits all prompts, or throws ApiError when one cannot run. Call once, on a worker.
  void start(std::shared_ptr<const TokenConstraint> constraint);

 private:
  struct Arrived {
    std::size_t choice;
    RequestOutput output;
  };
  struct Progress {
    double last_output = 0;  // seconds of the engine's clock; 0 before the first
    bool ended = false;      // its last frame is written
  };

  void submit(const GenerationRequest& request, std::size_t prompt);
  void arrive(std::size_t choice, RequestOutput&& output);  // engine thread
  void cancel();                                            // any thread
  void drain();
  void take(Arrived&& arrived);
  void flush(bool all);
  void complete();
  void fail();
  void observe(std::size_t choice, const RequestOutput& output);
  Usage usage() const;

  const CallContext context_;
  const std::shared_ptr<HttpExchange> exchange_;
  const double arrival_;
  const std::shared_ptr<const void> request_;
  const GenerationFields& fields_;
  const std::vector<std::span<const std::int32_t>> prompts_;
  const std::vector<std::int32_t> visible_;
  const std::unique_ptr<Answer> answer_;

  // Of the thread that drains.
  std::vector<ChoiceStream> choices_;
  std::vector<Progress> progress_;
  std::size_t finished_ = 0;
  bool streaming_ = false;  // the stream has begun
  bool done_ = false;       // the answer is complete, or given up

  std::mutex mutex_;
  std::vector<Arrived> arrived_;
  std::vector<RequestId> ids_;
  bool draining_ = true;  // until start() has submitted everything
  bool cancelled_ = false;
};

}  // namespace bise
