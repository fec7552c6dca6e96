// The table of routes on a service with a scripted model.
#include "serve/server_routes.h"

#include <gtest/gtest.h>

#include "serve/server.h"
#include "tests/serve/test_service.h"

namespace bise {
namespace {

// A whole server but for the connections. `script_ids` as TestServiceOptions has it.
class RoutesTest {
 public:
  explicit RoutesTest(RouteOptions routes = {}, TestServiceOptions options = {})
      : service_(std::move(options)),
        server_({}, make_routes(routes, service_.service(), service_.engine(), workers_, metrics_), http_) {}

  std::shared_ptr<WaitingExchange> begin(const std::string& method, const std::string& path,
                                         std::string body = "") {
    HttpHeaders headers;
    if (!body.empty()) headers.set("content-type", "application/json");
    auto exchange = std::make_shared<WaitingExchange>(
        HttpRequest{method, path, "", std::move(headers), std::move(body), "test"});
    server_.handle(exchange);
    return exchange;
  }
  HttpResponse ask(const std::string& method, const std::string& path, std::string body = "") {
    const auto exchange = begin(method, path, std::move(body));
    EXPECT_TRUE(exchange->wait()) << method << " " << path;
    return exchange->response();
  }
  Engine& engine() { return service_.engine(); }

 private:
  Metrics metrics_{{"tiny", 512, {}}};
  HttpMetrics http_;
  TestService service_;
  ApiServer server_;
  WorkerPool workers_{1};  // last: its tasks use what stands above
};

TEST(ServerRoutes, ProbesAnswer) {
  RouteOptions options;
  options.version = "1.2.3";
  RoutesTest server(options);
  EXPECT_EQ(server.ask("GET", "/health").status, 200);
  EXPECT_EQ(server.ask("GET", "/health").body, "");
  EXPECT_EQ(server.ask("POST", "/ping").status, 200);
  EXPECT_EQ(server.ask("GET", "/version").body, R"({"version":"1.2.3"})");
  EXPECT_EQ(server.ask("GET", "/load").body, R"({"server_load":0})");
  const HttpResponse metrics = server.ask("GET", "/metrics");
  EXPECT_EQ(metrics.headers.find("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_NE(metrics.body.find("vllm:num_requests_running"), std::string::npos);
}

TEST(ServerRoutes, ADeadEngineIsUnhealthy) {
  TestServiceOptions options;
  options.script_ids = [](auto) { return std::vector<std::int32_t>{-1}; };  // the step throws
  RoutesTest server({}, std::move(options));
  EXPECT_EQ(server.ask("GET", "/health").status, 200);
  EXPECT_EQ(server.ask("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 2})").status, 500);
  EXPECT_FALSE(server.engine().healthy());
  EXPECT_EQ(server.ask("GET", "/health").status, 503);
  EXPECT_EQ(server.ask("GET", "/ping").status, 503);
}

TEST(ServerRoutes, InvocationsGoByTheBodysShape) {
  RoutesTest server;
  struct Case {
    std::string body, part;
    int status;
  };
  for (const Case& test :
       std::vector<Case>{{R"({"prompt": "a", "max_tokens": 2})", "\"text_completion\"", 200},
                         {R"({"messages": [{"role": "user", "content": "a"}], "max_tokens": 2})",
                          "\"chat.completion\"", 200},
                         {R"({"input": "a"})", "Cannot find suitable handler", 400},
                         {"[1]", "Cannot find suitable handler", 400},
                         {"{", "invalid JSON", 400}}) {
    const HttpResponse response = server.ask("POST", "/invocations", test.body);
    EXPECT_EQ(response.status, test.status) << test.body;
    EXPECT_NE(response.body.find(test.part), std::string::npos) << response.body;
  }
}

TEST(ServerRoutes, LoadCountsRequestsThatRun) {
  RouteOptions options;
  options.enable_server_load_tracking = true;
  TestServiceOptions slow;
  slow.script = "a long answer that takes a while";
  slow.seconds_per_step = 0.02;
  RoutesTest server(options, std::move(slow));
  auto exchange = server.begin("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 20})");
  EXPECT_EQ(server.ask("GET", "/load").body, R"({"server_load":1})");
  EXPECT_TRUE(exchange->wait());
  exchange.reset();
  for (int i = 0; i < 500 && server.ask("GET", "/load").body != R"({"server_load":0})"; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(server.ask("GET", "/load").body, R"({"server_load":0})");
}

TEST(ServerRoutes, DevelopmentRoutesAreOffByDefault) {
  RouteOptions options;
  options.server_info = R"({"a":1})";
  options.dev_mode = true;
  RoutesTest usual, development(options);
  for (const char* path : {"/reset_prefix_cache", "/sleep"})
    EXPECT_EQ(usual.ask("POST", path, "{}").status, 404) << path;
  EXPECT_EQ(development.ask("POST", "/reset_prefix_cache").body, R"({"success":true})");
  EXPECT_EQ(development.ask("GET", "/server_info").body, R"({"a":1})");
  EXPECT_EQ(development.ask("POST", "/sleep").status, 501);
}

TEST(ServerRoutes, WhatIsNotServedIsRefusedClearly) {
  RoutesTest server;
  for (const auto& [path, status] :
       std::vector<std::pair<std::string, int>>{{"/v1/embeddings", 404},
                                                {"/v1/score", 404},
                                                {"/v1/audio/translations", 404},
                                                {"/v1/responses", 501},
                                                {"/v1/messages/count_tokens", 501}}) {
    const HttpResponse response = server.ask("POST", path, "{}");
    EXPECT_EQ(response.status, status) << path;
    EXPECT_NE(response.body.find(path), std::string::npos) << response.body;
  }
  EXPECT_EQ(server.ask("GET", "/v1/responses/abc").status, 501);
  EXPECT_EQ(server.ask("GET", "/v1/embeddings").status, 405);
}

}  // namespace
}  // namespace bise
