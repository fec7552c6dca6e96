#include "net/request_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>

#include <cctype>
#include "net/url.h"

namespace bise {
namespace {
namespace http = boost::beast::http;
using Text = boost::beast::string_view;
using ErrorCode = boost::beast::error_code;

std::string_view view(Text text) {
  return {text.data(), text.size()};
}

// What no later byte can mend in the first line, said before the header is whole: a client that speaks
// another protocol (TLS, bare newlines) gets its answer now and not after the read timeout.
bool hopeless(std::string_view start) {
  if (start.empty()) return false;
  const bool token = std::isalnum(static_cast<unsigned char>(start[0])) ||
                     std::string_view("!#$%&'*+-.^_`|~").find(start[0]) != std::string_view::npos;
  if (!token) return true;
  const std::size_t newline = start.find('\n');
  return newline != std::string_view::npos && (newline == 0 || start[newline - 1] != '\r');
}

}  // namespace

struct RequestParser::Parser final : http::basic_parser<true> {
  explicit Parser(const RequestLimits& request_limits) : limits(request_limits) {
    header_limit(static_cast<std::uint32_t>(std::min<std::size_t>(limits.header_bytes, UINT32_MAX)));
    body_limit(limits.body_bytes);
    eager(true);
  }

  void refuse(int status, std::string why) {
    refused = status;
    reason = std::move(why);
  }
  void refuse(int status, std::string why, ErrorCode& error) {
    refuse(status, std::move(why));
    error = http::error::bad_value;
  }

  void on_request_impl(http::verb, Text method, Text target, int version, ErrorCode& error) override {
    request.method = view(method);
    minor_version = version - 10;
    header_bytes = method.size() + target.size() + 12;
    if (header_bytes > limits.header_bytes) return refuse(431, "the request line is too long", error);
    std::string_view place = view(target);
    if (const std::size_t scheme = place.find("://"); !place.starts_with('/') && scheme != place.npos) {
      const std::size_t path = place.find('/', scheme + 3);
      place = path == place.npos ? "/" : place.substr(path);
    }
    const std::size_t question = place.find('?');
    request.path = percent_decoded(place.substr(0, question));
    if (question != place.npos) request.query = place.substr(question + 1);
    if (request.path.find('\0') != std::string::npos) refuse(400, "the path holds a NUL", error);
  }

  void on_field_impl(http::field name, Text name_text, Text value, ErrorCode& error) override {
    if (in_body) return;  // trailers may not change what the header said
    header_bytes += name_text.size() + value.size() + 4;
    if (header_bytes > limits.header_bytes) return refuse(431, "the header is too long", error);
    if (request.headers.fields().size() >= limits.headers) {
      return refuse(431, fmt::format("more than {} header fields", limits.headers), error);
    }
    hosts += name == http::field::host;
    encoded |= name == http::field::transfer_encoding;
    if (name == http::field::expect) {
      if (!equal_ignoring_case(view(value), "100-continue")) return refuse(417, "unknown Expect", error);
      expects = true;
    }
    request.headers.add(std::string(view(name_text)), std::string(view(value)));
  }

  void on_header_impl(ErrorCode& error) override {
    in_body = true;
    if (hosts > 1 || (hosts == 0 && minor_version == 1)) {
      return refuse(400, "the request needs one Host field", error);
    }
    if (encoded && (!chunked() || minor_version == 0)) {
      return refuse(501, "a Transfer-Encoding other than chunked", error);
    }
  }

  void on_body_init_impl(const boost::optional<std::uint64_t>& length, ErrorCode&) override {
    // A lie about the length may not cost memory.
    if (length) request.body.reserve(std::min<std::uint64_t>(*length, 256 << 10));
  }
  std::size_t on_body_impl(Text bytes, ErrorCode&) override {
    request.body.append(bytes.data(), bytes.size());
    return bytes.size();
  }
  void on_chunk_header_impl(std::uint64_t, Text, ErrorCode&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, Text bytes, ErrorCode&) override {
    request.body.append(bytes.data(), bytes.size());
    return bytes.size();
  }
  void on_finish_impl(ErrorCode&) override {}
  void on_response_impl(int, Text, int, ErrorCode&) override {}

  RequestLimits limits;
  HttpRequest request;
  std::size_t header_bytes = 0;
  int minor_version = 1;
  int hosts = 0;
  bool encoded = false, expects = false, in_body = false;
  std::optional<int> refused;
  std::string reason;
};

RequestParser::RequestParser(const RequestLimits& limits) : parser_(std::make_unique<Parser>(limits)) {}
RequestParser::~RequestParser() = default;

std::size_t RequestParser::put(std::string_view bytes) {
  Parser& parser = *parser_;
  if (bytes.empty() || parser.refused || parser.is_done()) return 0;
  if (parser.request.method.empty() && hopeless(bytes)) {
    parser.refuse(400, "not an HTTP request");
    return 0;
  }
  ErrorCode error;
  const std::size_t used = parser.put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
  if (parser.refused) return used;
  if (error == http::error::need_more) {
    // Only a chunk's header can leave so much behind: its extensions have no other limit.
    if (bytes.size() - used > parser.limits.header_bytes) parser.refuse(400, "a chunk header without end");
  } else if (error == http::error::header_limit) {
    parser.refuse(431, "the header is too long");
  } else if (error == http::error::body_limit) {
    parser.refuse(413, fmt::format("the body may have {} bytes", parser.limits.body_bytes));
  } else if (error) {
    parser.refuse(400, error.message());
  }
  return used;
}

bool RequestParser::done() const {
  return !parser_->refused && parser_->is_done();
}
bool RequestParser::header_done() const {
  return parser_->in_body;
}
std::optional<int> RequestParser::refused() const {
  return parser_->refused;
}
const std::string& RequestParser::reason() const {
  return parser_->reason;
}
bool RequestParser::keep_alive() const {
  return parser_->keep_alive();
}
bool RequestParser::http_1_1() const {
  return parser_->minor_version == 1;
}
bool RequestParser::expects_continue() const {
  return parser_->expects && http_1_1();
}
std::size_t RequestParser::body_expected() const {
  if (!parser_->in_body) return 0;
  const auto length = parser_->content_length();
  return length ? static_cast<std::size_t>(*length) - parser_->request.body.size() : 0;
}
HttpRequest& RequestParser::request() {
  return parser_->request;
}

}  // namespace bise
