// Data sets through a rows API on this machine.
#include "hub/dataset.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "hub/digest.h"
#include "net/http_server.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

// One data set with one split of `rows` rows.
class FakeRows {
 public:
  explicit FakeRows(int rows) : rows_(rows) {
    HttpServerOptions options;
    options.host = "127.0.0.1";
    options.port = 0;
    server_ = std::make_unique<HttpServer>(options, [this](std::shared_ptr<HttpExchange> exchange) {
      exchange->respond(answer(exchange->request()));
    });
    server_->start();
  }

  HubSettings settings() const {
    HubSettings settings;
    settings.datasets_endpoint = fmt::format("http://127.0.0.1:{}", server_->port());
    settings.endpoint = settings.datasets_endpoint;
    settings.first_wait = 0.01;
    settings.max_attempts = 3;
    return settings;
  }
  static std::string row(int i) { return fmt::format(R"({{"question":"q{} é\n","answer":{}}})", i, i * 0.5); }

  std::function<std::optional<HttpResponse>(const HttpRequest&, int offset, int request)> before;
  std::function<void(Json&)> change;
  std::string revision = "r1";
  std::atomic<int> requests = 0;

 private:
  HttpResponse answer(const HttpRequest& request) {
    if (request.path == "/splits")
      return {200,
              {},
              R"({"splits":[{"dataset":"o/d","config":"main","split":"train"},)"
              R"({"dataset":"o/d","config":"main","split":"test"}]})"};
    const int number = requests++;
    const std::size_t at = request.query.find("offset=");
    const int offset = std::stoi(request.query.substr(at + 7));
    if (before)
      if (auto other = before(request, offset, number)) return *other;
    Json page = {{"features", Json::array()},
                 {"rows", Json::array()},
                 {"num_rows_total", rows_},
                 {"num_rows_per_page", 100},
                 {"partial", false}};
    for (int i = offset; i < std::min(rows_, offset + 100); ++i)
      page["rows"].push_back(
          {{"row_idx", i}, {"row", Json::parse(row(i))}, {"truncated_cells", Json::array()}});
    if (change) change(page);
    return {200, {{"X-Revision", revision}}, json_text(page)};
  }

  int rows_;
  std::unique_ptr<HttpServer> server_;
};

struct Download {
  explicit Download(FakeRows& rows) : client(rows.settings()) {
    request.repo = "o/d";
    request.config = "main";
    request.split = "test";
    request.folder = scratch.path() / "gsm8k";
  }
  SplitResult run() {
    return download_split(client, request, [](std::uint64_t, std::uint64_t) {});
  }
  std::string refusal() {
    try {
      run();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  ScratchFolder scratch;
  HubClient client;
  SplitRequest request;
};

std::string expected_text(int rows) {
  std::string text;
  for (int i = 0; i < rows; ++i) text += json_text(Json::parse(FakeRows::row(i))) + "\n";
  return text;
}

TEST(HubDataset, RowsBecomeLinesInTheirOrder) {
  FakeRows rows(457);
  Download download(rows);
  const auto splits = list_splits(download.client, "o/d");
  ASSERT_EQ(splits.size(), 2u);
  EXPECT_EQ(splits[1].split, "test");
  const SplitResult result = download.run();
  EXPECT_EQ(result.path, download.request.folder / "test.jsonl");
  EXPECT_EQ(read_file(result.path), expected_text(457));
  EXPECT_EQ(result.rows, 457u);
  EXPECT_EQ(result.sha256, sha256_hex(expected_text(457)));
  EXPECT_EQ(rows.requests, 5);
  const Json notes = read_json_file(download.request.folder / "dataset.json");
  const Json& noted = notes["files"]["test.jsonl"];
  EXPECT_EQ(noted["dataset"], "o/d");
  EXPECT_EQ(noted["revision"], "r1");
  EXPECT_EQ(noted["rows"], 457);
  EXPECT_EQ(noted["sha256"], result.sha256);
}

TEST(HubDataset, WhatIsHereStays) {
  FakeRows rows(120);
  Download download(rows);
  download.run();
  EXPECT_TRUE(download.run().was_here);
  EXPECT_EQ(rows.requests, 2);
  // Another checksum than recorded: brought again.
  write_file(download.request.folder / "test.jsonl", "{}\n");
  EXPECT_FALSE(download.run().was_here);
  EXPECT_EQ(read_file(download.request.folder / "test.jsonl"), expected_text(120));
  download.request.again = true;
  EXPECT_FALSE(download.run().was_here);
}

TEST(HubDataset, ItGoesOnBehindTheLastWholeRow) {
  FakeRows rows(950);
  Download download(rows);
  download.request.connections = 1;
  rows.before = [](const HttpRequest&, int offset, int) -> std::optional<HttpResponse> {
    if (offset < 500) return std::nullopt;
    return HttpResponse{404, {}, "{\"error\":\"gone\"}"};
  };
  EXPECT_NE(download.refusal().find("gone"), std::string::npos);
  EXPECT_FALSE(fs::exists(download.request.folder / "test.jsonl"));
  rows.before = nullptr;
  // A line that was being written when the power went.
  const fs::path partial = download.request.folder / "test.jsonl.incomplete";
  write_file(partial, read_file(partial) + "{\"question\":\"q5");
  const int before = rows.requests;
  EXPECT_EQ(read_file(download.run().path), expected_text(950));
  EXPECT_EQ(rows.requests, before + 6) << "the first page again, then what is missing";
  EXPECT_FALSE(fs::exists(partial));
}

TEST(HubDataset, AnotherRevisionBeginsAnew) {
  FakeRows rows(300);
  Download download(rows);
  rows.before = [](const HttpRequest&, int offset, int) -> std::optional<HttpResponse> {
    if (offset < 200) return std::nullopt;
    return HttpResponse{404, {}, "{}"};
  };
  download.request.connections = 1;
  download.refusal();
  rows.before = nullptr;
  rows.revision = "r2";
  const int before = rows.requests;
  EXPECT_EQ(read_file(download.run().path), expected_text(300));
  EXPECT_EQ(rows.requests, before + 3);
  // And one that changes between two pages is an error.
  download.request.again = true;
  rows.before = [&](const HttpRequest&, int offset, int) -> std::optional<HttpResponse> {
    if (offset == 100) rows.revision = "r3";
    return std::nullopt;
  };
  EXPECT_NE(download.refusal().find("changed on the hub"), std::string::npos);
}

TEST(HubDataset, BusyServersAreAskedAgain) {
  FakeRows rows(350);
  Download download(rows);
  rows.before = [](const HttpRequest&, int, int request) -> std::optional<HttpResponse> {
    if (request % 2 == 1) return std::nullopt;
    return HttpResponse{request % 4 == 0 ? 429 : 502, {{"Retry-After", "0"}}, ""};
  };
  download.request.connections = 1;
  EXPECT_EQ(read_file(download.run().path), expected_text(350));
}

TEST(HubDataset, WrongAnswersAreErrorsThatSayWhat) {
  const struct {
    const char* word;
    std::function<void(Json&)> change;
  } cases[] = {
      {"cut cells", [](Json& page) { page["rows"][3]["truncated_cells"] = {"question"}; }},
      {"only a part", [](Json& page) { page["partial"] = true; }},
      {"another row", [](Json& page) { page["rows"][3]["row_idx"] = 4; }},
      {"short page", [](Json& page) { page["rows"].erase(page["rows"].size() - 1); }},
      {"another row", [](Json& page) { page["rows"].push_back(page["rows"][0]); }},
      {"not a JSON object", [](Json& page) { page["rows"][0]["row"] = "x"; }},
      {"num_rows_total", [](Json& page) { page.erase("num_rows_total"); }},
      {"cannot be", [](Json& page) { page["num_rows_total"] = -1; }},
      {"a list", [](Json& page) { page["rows"] = 1; }},
      {"no rows", [](Json& page) { page["num_rows_total"] = 0, page["rows"] = Json::array(); }},
  };
  for (const auto& test : cases) {
    FakeRows rows(150);
    Download download(rows);
    rows.change = test.change;
    EXPECT_NE(download.refusal().find(test.word), std::string::npos)
        << test.word << ": " << download.refusal();
    EXPECT_FALSE(fs::exists(download.request.folder / "test.jsonl"));
  }
}

TEST(HubDataset, ServersWithoutTheSet) {
  FakeRows rows(10);
  Download download(rows);
  rows.before = [](const HttpRequest&, int, int) -> std::optional<HttpResponse> {
    return HttpResponse{
        401,
        {{"X-Error-Code", "ExternalUnauthenticatedError"}},
        "{\"error\":\"The dataset does not exist, or is not accessible without authentication\"}"};
  };
  const std::string message = download.refusal();
  EXPECT_NE(message.find("o/d"), std::string::npos) << message;
  EXPECT_NE(message.find("HF_TOKEN"), std::string::npos) << message;
  EXPECT_NE(message.find("without authentication"), std::string::npos) << message;
  download.request.split = "../x";
  EXPECT_NE(download.refusal().find("refused"), std::string::npos);
}

}  // namespace
}  // namespace bise
