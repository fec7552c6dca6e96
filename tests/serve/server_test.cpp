// Dispatch, keys, CORS and the error answers that no handler sees.
#include "serve/server.h"

#include <gtest/gtest.h>

#include "serve/api_error.h"
#include "tests/serve/fake_exchange.h"

namespace bise {
namespace {

Router small_router() {
  Router router;
  router.add("/health", {"GET"}, [](auto exchange) { exchange->respond({200, {}, "healthy"}); });
  router.add("/ping", {"GET", "POST"}, [](auto exchange) { exchange->respond({200, {}, "pong"}); });
  router.add("/v1/models", {"GET"}, [](auto exchange) { exchange->respond({200, {}, "models"}); });
  router.add("/v1/responses/{id}/cancel", {"POST"}, [](auto exchange) {
    exchange->respond({200, {}, "cancelled"});
  });
  router.add("/v1/completions", {"POST"}, [](auto exchange) {
    exchange->start_stream(200, {});
    exchange->write("data");
    exchange->finish();
  });
  router.add("/throws", {"GET"}, [](auto) { throw bad_request("no good", "field"); });
  return router;
}

HttpResponse ask(const ServerOptions& options, const std::string& method, const std::string& path,
                 HttpHeaders headers = {}) {
  static HttpMetrics metrics;
  const ApiServer server(options, small_router(), metrics);
  const auto exchange =
      std::make_shared<FakeExchange>(HttpRequest{method, path, "", std::move(headers), "", "test"});
  server.handle(exchange);
  EXPECT_EQ(exchange->answers, 1);
  return exchange->response;
}

TEST(ApiServer, DispatchesAndRefuses) {
  ServerOptions options;
  options.root_path = "/proxy";
  struct Case {
    std::string method, path;
    int status;
    std::string body;
  };
  for (const Case& test : std::vector<Case>{
           {"GET", "/health", 200, "healthy"},
           {"POST", "/ping", 200, "pong"},
           {"GET", "/proxy/v1/models", 200, "models"},
           {"GET", "/v1/models", 200, "models"},
           {"GET", "/proxyv1/models", 404, R"({"detail":"Not Found"})"},
           {"POST", "/v1/responses/abc/cancel", 200, "cancelled"},
           {"POST", "/v1/responses//cancel", 404, R"({"detail":"Not Found"})"},
           {"POST", "/v1/responses/a/b/cancel", 404, R"({"detail":"Not Found"})"},
           {"GET", "/", 404, R"({"detail":"Not Found"})"},
           {"GET", "", 404, R"({"detail":"Not Found"})"},
           {"DELETE", "/v1/models", 405, R"({"detail":"Method Not Allowed"})"},
           {"OPTIONS", "/v1/models", 405, R"({"detail":"Method Not Allowed"})"},
           {"GET", "/v1/models/", 307, ""},
           {"POST", "/v1/completions", 200, "data"},
           {"GET", "/throws", 400,
            R"({"error":{"message":"no good","type":"BadRequestError","param":"field","code":400}})"}}) {
    const HttpResponse response = ask(options, test.method, test.path);
    EXPECT_EQ(response.status, test.status) << test.method << " " << test.path;
    EXPECT_EQ(response.body, test.body) << test.method << " " << test.path;
  }
  EXPECT_EQ(ask(options, "PUT", "/ping").headers.find("Allow"), "GET, POST");
  EXPECT_EQ(ask(options, "GET", "/proxy/v1/models/").headers.find("Location"), "/proxy/v1/models");
}

TEST(ApiServer, KeysGuardWhatVllmGuardsOrEverything) {
  ServerOptions some, all;
  some.api_keys = all.api_keys = {"first", "second"};
  all.api_key_guards_all = true;
  all.root_path = some.root_path = "/proxy";
  struct Case {
    const ServerOptions& options;
    std::string method, path, authorization;
    int status;
  };
  for (const Case& test : std::vector<Case>{{some, "GET", "/v1/models", "", 401},
                                            {some, "GET", "/v1/models", "Bearer first", 200},
                                            {some, "GET", "/v1/models", "bearer second", 200},
                                            {some, "GET", "/v1/models", "Bearer secon", 401},
                                            {some, "GET", "/v1/models", "Bearer secondsecond", 401},
                                            {some, "GET", "/v1/models", "Bearer ", 401},
                                            {some, "GET", "/v1/models", "first", 401},
                                            {some, "GET", "/v1/models", "Basic first", 401},
                                            {some, "GET", "/proxy/v1/models", "", 401},
                                            {some, "GET", "/v1/unknown", "", 401},
                                            {some, "OPTIONS", "/v1/models", "", 405},
                                            {some, "GET", "/ping", "", 200},
                                            {some, "GET", "/throws", "", 400},
                                            {all, "GET", "/throws", "", 401},
                                            {all, "GET", "/throws", "Bearer first", 400},
                                            {all, "GET", "/health", "", 200}}) {
    HttpHeaders headers;
    if (!test.authorization.empty()) headers.set("Authorization", test.authorization);
    const HttpResponse response = ask(test.options, test.method, test.path, headers);
    EXPECT_EQ(response.status, test.status) << test.method << " " << test.path << " " << test.authorization;
    if (test.status == 401) {
      EXPECT_EQ(response.body, R"({"error":"Unauthorized"})");
    }
  }
}

TEST(ApiServer, AnswersPreflights) {
  ServerOptions any, one;
  any.cors.allowed_origins = {"*"};
  one.cors.allowed_origins = {"https://a.example"};
  one.cors.allowed_methods = {"GET"};
  one.cors.allowed_headers = {"X-Mine"};
  one.cors.allow_credentials = true;
  struct Case {
    const ServerOptions& options;
    std::string origin, method, headers;
    int status;
    std::string body, allow_origin;
  };
  const ServerOptions none;
  for (const Case& test : std::vector<Case>{
           {any, "https://b.example", "POST", "authorization", 200, "OK", "*"},
           {one, "https://a.example", "GET", "x-mine, content-type", 200, "OK", "https://a.example"},
           {one, "https://a.example", "POST", "x-other", 400, "Disallowed CORS method, headers",
            "https://a.example"},
           {one, "https://b.example", "GET", "", 400, "Disallowed CORS origin", ""},
           {none, "https://a.example", "GET", "", 400, "Disallowed CORS origin", ""}}) {
    const HttpResponse response = ask(test.options, "OPTIONS", "/v1/models",
                                      {{"Origin", test.origin},
                                       {"Access-Control-Request-Method", test.method},
                                       {"Access-Control-Request-Headers", test.headers}});
    EXPECT_EQ(response.status, test.status) << test.body;
    EXPECT_EQ(response.body, test.body);
    EXPECT_EQ(response.headers.find("access-control-allow-origin").value_or(""), test.allow_origin);
  }
}

TEST(ApiServer, AddsCorsAndRequestIdsToAnswersAndStreams) {
  ServerOptions options;
  options.cors.allowed_origins = {"*"};
  options.enable_request_id_headers = true;
  for (const char* path : {"/health", "/unknown", "/throws"}) {
    const HttpResponse response = ask(options, "GET", path, {{"Origin", "https://a.example"}});
    EXPECT_EQ(response.headers.find("access-control-allow-origin"), "*") << path;
    EXPECT_EQ(response.headers.find("x-request-id").value_or("").size(), 32u) << path;
  }
  const HttpResponse stream = ask(options, "POST", "/v1/completions", {{"X-Request-Id", "mine"}});
  EXPECT_EQ(stream.headers.find("x-request-id"), "mine");
  EXPECT_EQ(stream.headers.find("access-control-allow-origin"), std::nullopt);
}

TEST(ApiServer, CountsCallsByHandlerWithFewLabels) {
  HttpMetrics metrics;
  ServerOptions options;
  options.access_log = false;
  const ApiServer server(options, small_router(), metrics);
  const auto done = [&](const std::string& method, const std::string& path, int status) {
    server.on_done({method, path, "", {{"Content-Length", "10"}}, "", "test"}, status, 100, 0.2);
  };
  done("POST", "/v1/completions", 200);
  done("POST", "/v1/completions", 201);
  done("POST", "/v1/responses/x/cancel", 404);
  done("GET", "/health", 200);
  done("BREW", "/random/7", 404);
  MetricsWriter out({});
  metrics.write(out);
  const std::string text = out.take();
  for (const char* line :
       {"http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"2xx\"} 2.0\n",
        "http_requests_total{handler=\"/v1/responses/{id}/cancel\",method=\"POST\",status=\"4xx\"} 1.0\n",
        "http_requests_total{handler=\"none\",method=\"other\",status=\"4xx\"} 1.0\n",
        "http_request_size_bytes_sum{handler=\"/v1/completions\"} 20.0\n",
        "http_request_duration_seconds_bucket{handler=\"/v1/completions\",method=\"POST\",le=\"0.5\"} 2.0\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  EXPECT_EQ(text.find("/health"), std::string::npos);
}

}  // namespace
}  // namespace bise
