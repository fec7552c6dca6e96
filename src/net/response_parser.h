// Parses one HTTP/1.x answer out of bytes as they arrive, on top of Beast's parser.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "net/http_message.h"

namespace bise {

class ResponseParser {
 public:
  using OnBody = std::function<void(std::string_view bytes)>;

  // `no_body`: the answer to HEAD or CONNECT.
  ResponseParser(std::size_t max_header_bytes, bool no_body);
  ~ResponseParser();

  // Reads the header, or a piece of the body, and returns how many bytes it took; 0 when it needs more,
  // when the answer is done or when it is none (failed()). It stops behind the header.
  std::size_t put(std::string_view bytes, const OnBody& on_body);
  void put_end();  // the connection ended: some bodies end there

  bool header_done() const;
  bool done() const;
  const std::string& failed() const;  // why this is no HTTP, or ""
  int status() const;
  HttpHeaders& headers();
  bool keep_alive() const;  // once done

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace bise
