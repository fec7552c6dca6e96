// The table of routes (spec/serving.md section 1.1): probes, metrics, the OpenAI handlers, the development
// routes, and clear refusals of what this server does not do.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "serve/metrics.h"
#include "serve/openai_service.h"
#include "serve/routes.h"
#include "serve/worker_pool.h"

namespace bise {

struct RouteOptions {
  std::string version;                       // what GET /version answers
  std::string server_info;                   // JSON: the settings, for GET /server_info
  bool dev_mode = false;                     // /reset_prefix_cache, /server_info and others like them
  bool enable_server_load_tracking = false;  // GET /load counts
};

// The handlers keep references to all of these.
Router make_routes(const RouteOptions& options, OpenAiService& service, Engine& engine, WorkerPool& workers,
                   const Metrics& metrics);

}  // namespace bise
