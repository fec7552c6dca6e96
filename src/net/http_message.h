// What HTTP/1.1 carries, as plain values for server and client.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bise {

// Names compare without regard to case; order is kept.
class HttpHeaders {
 public:
  HttpHeaders() = default;
  HttpHeaders(std::initializer_list<std::pair<std::string, std::string>> fields) : fields_(fields) {}

  void set(std::string name, std::string value);  // replaces all of that name
  void add(std::string name, std::string value);
  void remove(std::string_view name);                                 // all of that name
  std::optional<std::string_view> find(std::string_view name) const;  // the first
  const std::vector<std::pair<std::string, std::string>>& fields() const { return fields_; }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // "/v1/models", percent-decoded, without the query
  std::string query;   // what follows '?', as sent
  HttpHeaders headers;
  std::string body;
  std::string remote;  // "127.0.0.1:54321", or "unix"
};

struct HttpResponse {
  int status = 200;
  HttpHeaders headers;  // content-length, date and connection are added by the server
  std::string body;
};

// ASCII letters only, as HTTP compares names.
bool equal_ignoring_case(std::string_view a, std::string_view b);

// "Not Found" for 404.
std::string_view status_phrase(int status);

}  // namespace bise
