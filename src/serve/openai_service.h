// The routes that need the model: chat completions, completions, tokenize, detokenize, models. Each method
// answers its exchange, at once or later from other threads, and returns without blocking: parsing,
// tokenizing, templates, detokenizing and JSON run on the workers, the model on the engine's thread.
#pragma once

#include <memory>

#include "engine/engine.h"
#include "net/http_server.h"
#include "serve/request_observer.h"
#include "serve/served_model.h"
#include "serve/worker_pool.h"

namespace bise {

class OpenAiService {
 public:
  // All outlive the service; the engine's and the workers' threads are stopped before it is destroyed.
  OpenAiService(const ServedModel& model, Engine& engine, WorkerPool& workers, RequestObserver& observer);
  ~OpenAiService();

  using Exchange = std::shared_ptr<HttpExchange>;
  void chat_completions(Exchange exchange);
  void completions(Exchange exchange);
  void tokenize(Exchange exchange);
  void detokenize(Exchange exchange);
  void models(Exchange exchange);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bise
