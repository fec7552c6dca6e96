// Parses one HTTP/1.x request out of bytes as they arrive, on top of Beast's parser, with limits. Strict
// where leniency would let two readers see two requests: line ends, lengths, encodings, Host.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "net/http_message.h"

namespace bise {

struct RequestLimits {
  std::size_t header_bytes, headers, body_bytes;
};

class RequestParser {
 public:
  explicit RequestParser(const RequestLimits& limits);
  ~RequestParser();

  // Reads what it can and returns how many bytes it took; the rest, with more behind it, is to be given
  // again. Takes nothing once the request is done or refused.
  std::size_t put(std::string_view bytes);

  bool done() const;  // the request is whole
  bool header_done() const;
  // Set when the request cannot be served: the status to answer (400, 413, 417, 431, 501) and why. What was
  // read before is in request().
  std::optional<int> refused() const;
  const std::string& reason() const;

  bool keep_alive() const;            // the client wants the connection to stay
  bool http_1_1() const;              // it understands chunks and 1xx answers
  bool expects_continue() const;      // it waits for "100 Continue" before it sends the body
  std::size_t body_expected() const;  // bytes of body still to come, as far as known
  HttpRequest& request();

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace bise
