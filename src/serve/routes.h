// Which handler answers which path and method. A plain value; built once, then read from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "net/http_server.h"

namespace bise {

struct Route {
  std::string path;  // segments in braces stand for any one segment: "/v1/responses/{response_id}"
  std::vector<std::string> methods;
  std::function<void(std::shared_ptr<HttpExchange>)> handle;
};

class Router {
 public:
  void add(std::string path, std::vector<std::string> methods,
           std::function<void(std::shared_ptr<HttpExchange>)> handle);

  struct Match {
    const Route* route = nullptr;  // null: no route has this path and method
    std::string allow;             // the methods of the path, "GET, POST"; empty: the path is unknown
  };
  Match find(std::string_view method, std::string_view path) const;
  // The path of the route that `path` belongs to, whatever the method; "none" when it is unknown.
  std::string_view handler_name(std::string_view path) const;

  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

}  // namespace bise
