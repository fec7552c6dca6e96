#include "tests/hub/fake_hub.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>

#include "base/json.h"
#include "hub/digest.h"

namespace bise {
namespace {

std::unique_ptr<HttpServer> serve(HttpServer::Handler handler) {
  HttpServerOptions options;
  options.host = "127.0.0.1";
  options.port = 0;
  auto server = std::make_unique<HttpServer>(options, std::move(handler));
  server->start();
  return server;
}

std::string git_blob(const std::string& content) {
  Digest digest(Digest::Kind::kSha1);
  digest.update(fmt::format("blob {}", content.size()) + '\0');
  digest.update(content);
  return digest.hex();
}

}  // namespace

std::string noise(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

FakeHub::FakeHub() {
  hub_ = serve([this](Exchange exchange) { answer(exchange, false); });
  store_ = serve([this](Exchange exchange) { answer(exchange, true); });
}

FakeHub::~FakeHub() {
  for (std::thread& cutter : cutters_) cutter.join();
}

std::string FakeHub::endpoint() const {
  return fmt::format("http://127.0.0.1:{}", hub_->port());
}

HubSettings FakeHub::settings(const std::filesystem::path& cache) const {
  HubSettings settings;
  settings.endpoint = settings.datasets_endpoint = endpoint();
  settings.cache_dir = cache;
  settings.first_wait = 0.01;
  settings.max_attempts = 4;
  return settings;
}

void FakeHub::add(const std::string& path, const std::string& content, bool large) {
  File file{content, large ? sha256_hex(content) : git_blob(content), "", large};
  Json entry = {{"type", "file"},
                {"oid", git_blob(large ? "pointer to " + content : content)},
                {"size", content.size()},
                {"path", path}};
  if (large) entry["lfs"] = {{"oid", file.etag}, {"size", content.size()}, {"pointerSize", 134}};
  file.json = json_text(entry);
  files_[path] = std::move(file);
}

void FakeHub::add_raw(const std::string& json) {
  raw_.push_back(json);
}

void FakeHub::trick(const std::string& part, Trick trick, int times) {
  const std::lock_guard lock(mutex_);
  plans_.push_back({part, std::move(trick), times});
}

std::vector<std::string> FakeHub::seen() {
  const std::lock_guard lock(mutex_);
  return seen_;
}

std::size_t FakeHub::count(const std::string& part) {
  std::size_t number = 0;
  for (const std::string& line : seen()) number += line.find(part) != std::string::npos;
  return number;
}

FakeHub::Trick FakeHub::note(const Exchange& exchange, bool store) {
  const HttpRequest& request = exchange->request();
  std::string line = request.method + " " + request.path;
  if (!request.query.empty()) line += "?" + request.query;
  if (const auto range = request.headers.find("range")) line += fmt::format(" range={}", *range);
  if (const auto key = request.headers.find("authorization")) line += fmt::format(" token={}", *key);
  if (store) line += " store";
  const std::lock_guard lock(mutex_);
  seen_.push_back(line);
  for (Plan& plan : plans_) {
    if (plan.times <= 0 || line.find(plan.part) == std::string::npos) continue;
    --plan.times;
    return plan.trick;
  }
  return {};
}

void FakeHub::answer(const Exchange& exchange, bool store) {
  const Trick trick = note(exchange, store);
  const HttpRequest& request = exchange->request();
  if (trick.status != 0) return exchange->respond({trick.status, trick.headers, trick.body});
  if (!store && !token.empty() && request.headers.find("authorization") != "Bearer " + token)
    return exchange->respond(
        {401, {{"X-Error-Code", "RepoNotFound"}}, "{\"error\":\"Repository not found\"}"});
  const std::string repo = std::string("/") + kRepo, api = "/api/models" + repo;
  const std::string tree = fmt::format("{}/tree/{}", api, kCommit);
  const std::string resolve = fmt::format("{}/resolve/{}/", repo, kCommit);
  if (store) {
    for (const auto& [path, file] : files_)
      if (request.path == "/store/" + file.etag) return send_content(exchange, file.content, {}, trick);
  } else if (request.path == api + "/revision/main" || request.path == api + "/revision/refs/pr/1") {
    return exchange->respond({200, {}, fmt::format("{{\"id\":\"{}\",\"sha\":\"{}\"}}", kRepo, kCommit)});
  } else if (request.path.starts_with(api + "/revision/")) {
    return exchange->respond({404, {{"X-Error-Code", "RevisionNotFound"}}, "{\"error\":\"Invalid rev id\"}"});
  } else if (request.path == tree) {
    return answer_tree(exchange);
  } else if (request.path.starts_with(resolve)) {
    return answer_file(exchange, request.path.substr(resolve.size()), trick);
  }
  exchange->respond({404, {{"X-Error-Code", "RepoNotFound"}}, "{\"error\":\"Repository not found\"}"});
}

void FakeHub::answer_tree(const Exchange& exchange) {
  std::vector<std::string> entries = {"{\"type\":\"directory\",\"path\":\"x\",\"oid\":\"-\",\"size\":0}"};
  for (const auto& [_, file] : files_) entries.push_back(file.json);
  entries.insert(entries.end(), raw_.begin(), raw_.end());
  const std::string& query = exchange->request().query;
  const std::size_t cursor = query.find("cursor=");
  std::size_t at = cursor == std::string::npos ? 0 : std::stoul(query.substr(cursor + 7));
  std::string page;
  for (int i = 0; i < files_per_page && at < entries.size(); ++i, ++at)
    page += (page.empty() ? "" : ",") + entries[at];
  HttpHeaders headers;
  if (at < entries.size())
    headers.add("Link", fmt::format("<https://huggingface.co{}?recursive=true&cursor={}>; rel=\"next\"",
                                    exchange->request().path, at));
  exchange->respond({200, headers, "[" + page + "]"});
}

void FakeHub::answer_file(const Exchange& exchange, const std::string& path, const Trick& trick) {
  const auto found = files_.find(path);
  if (found == files_.end())
    return exchange->respond({404, {{"X-Error-Code", "EntryNotFound"}}, "Entry not found"});
  const File& file = found->second;
  HttpHeaders headers{{"X-Repo-Commit", kCommit}, {"ETag", "\"" + file.etag + "\""}};
  if (!file.large) return send_content(exchange, file.content, headers, trick);
  headers.set("X-Linked-Etag", "\"" + file.etag + "\"");
  headers.set("X-Linked-Size", std::to_string(file.content.size()));
  headers.set("Location", fmt::format("http://127.0.0.1:{}/store/{}", store_->port(), file.etag));
  exchange->respond({302, headers, "Found"});
}

void FakeHub::send_content(const Exchange& exchange, const std::string& right, HttpHeaders headers,
                           const Trick& trick) {
  const std::string& content = trick.content ? *trick.content : right;
  std::string part = content;
  int status = 200;
  const auto range = exchange->request().headers.find("range");
  if (range && !trick.ignore_range) {
    const std::size_t dash = range->find('-');
    const std::size_t first = std::stoul(std::string(range->substr(6, dash - 6)));
    const std::string last_text(range->substr(dash + 1));
    const std::size_t last =
        std::min(last_text.empty() ? content.size() - 1 : std::stoul(last_text), content.size() - 1);
    part = content.substr(first, last - first + 1);
    status = 206;
    headers.add("Content-Range", fmt::format("bytes {}-{}/{}", first, last, content.size()));
  }
  if (!trick.cut_after) return exchange->respond({status, headers, part});
  exchange->start_stream(status, headers);
  exchange->write(part.substr(0, *trick.cut_after));
  // The dropped exchange cuts the connection, once the bytes have left.
  const std::lock_guard lock(mutex_);
  cutters_.emplace_back([exchange] {
    while (exchange->unsent_bytes() > 0 && !exchange->disconnected())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
}

}  // namespace bise
