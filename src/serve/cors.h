// Cross-origin requests from browsers (the Fetch standard's CORS protocol), answered as Starlette's
// CORSMiddleware does, which vLLM uses. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "net/http_message.h"

namespace bise {

struct CorsOptions {
  std::vector<std::string> allowed_origins;          // "*" = any; empty = none
  std::vector<std::string> allowed_methods = {"*"};  // "*" = any that Starlette knows
  std::vector<std::string> allowed_headers = {"*"};  // "*" = any
  bool allow_credentials = false;
};

// Whether this is a browser's question before the request itself.
bool is_preflight(const HttpRequest& request);
// 200, or 400 naming what is not allowed.
HttpResponse preflight_response(const CorsOptions& options, const HttpRequest& request);
// The fields that the answer to `request` carries; none when it has no Origin or the origin is not allowed.
HttpHeaders cors_headers(const CorsOptions& options, const HttpRequest& request);

}  // namespace bise
