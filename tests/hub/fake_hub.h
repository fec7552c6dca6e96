// A hub on this machine: one model repository with its routes as huggingface.co answers them, large files
// behind a redirect to a store of another origin; and the ways in which servers fail.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "hub/hub_client.h"
#include "net/http_server.h"

namespace bise {

class FakeHub {
 public:
  static constexpr const char* kRepo = "owner/tiny-model";
  static constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";

  FakeHub();
  ~FakeHub();

  std::string endpoint() const;
  // Settings for a client: the cache in `cache`, short waits.
  HubSettings settings(const std::filesystem::path& cache) const;

  // `large`: SHA-256 as the etag, content from the store.
  void add(const std::string& path, const std::string& content, bool large = false);
  // An entry of the list of files as it is, without content.
  void add_raw(const std::string& json);

  // What happens to the next `times` requests whose "METHOD /path" contains `part`.
  struct Trick {
    int status = 0;  // answer with this and nothing else
    HttpHeaders headers = {};
    std::string body = {};
    std::optional<std::size_t> cut_after = {};  // bytes of the content
    bool ignore_range = false;
    std::optional<std::string> content = {};  // instead of the right one
  };
  void trick(const std::string& part, Trick trick, int times = 1);

  // "GET /path?query", then " range=..." and " token=..." where the request had them; " store" at the store.
  std::vector<std::string> seen();
  std::size_t count(const std::string& part);

  int files_per_page = 1000;
  std::string token;  // that every request to the hub must have, when not ""

 private:
  struct File {
    std::string content, etag, json;
    bool large = false;
  };
  struct Plan {
    std::string part;
    Trick trick;
    int times;
  };
  using Exchange = std::shared_ptr<HttpExchange>;

  void answer(const Exchange& exchange, bool store);
  void answer_tree(const Exchange& exchange);
  void answer_file(const Exchange& exchange, const std::string& path, const Trick& trick);
  void send_content(const Exchange& exchange, const std::string& content, HttpHeaders headers,
                    const Trick& trick);
  Trick note(const Exchange& exchange, bool store);

  std::mutex mutex_;
  std::map<std::string, File> files_;
  std::vector<std::string> raw_;
  std::vector<Plan> plans_;
  std::vector<std::string> seen_;
  std::vector<std::thread> cutters_;
  std::unique_ptr<HttpServer> hub_, store_;
};

// `size` bytes without repetition, the same for the same seed.
std::string noise(std::size_t size, unsigned seed);

}  // namespace bise
