#include "net/response_parser.h"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <cstdint>

namespace bise {
namespace {
namespace http = boost::beast::http;
using Text = boost::beast::string_view;
using ErrorCode = boost::beast::error_code;
}  // namespace

struct ResponseParser::Parser final : http::basic_parser<false> {
  Parser(std::size_t most, bool no_body) : max_header_bytes(most) {
    header_limit(static_cast<std::uint32_t>(std::min<std::size_t>(most, UINT32_MAX)));
    body_limit(boost::none);
    skip(no_body);
  }

  void on_response_impl(int code, Text, int, ErrorCode&) override { status = code; }
  void on_field_impl(http::field, Text name, Text value, ErrorCode& error) override {
    if (in_body) return;  // trailers
    header_bytes += name.size() + value.size() + 4;
    if (header_bytes > max_header_bytes) {
      error = http::error::header_limit;
      return;
    }
    headers.add({name.data(), name.size()}, {value.data(), value.size()});
  }
  void on_header_impl(ErrorCode&) override { in_body = true; }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, ErrorCode&) override {}
  std::size_t on_body_impl(Text bytes, ErrorCode&) override {
    (*on_body)({bytes.data(), bytes.size()});
    return bytes.size();
  }
  void on_chunk_header_impl(std::uint64_t, Text, ErrorCode&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, Text bytes, ErrorCode&) override {
    (*on_body)({bytes.data(), bytes.size()});
    return bytes.size();
  }
  void on_finish_impl(ErrorCode&) override {}
  void on_request_impl(http::verb, Text, Text, int, ErrorCode&) override {}

  const std::size_t max_header_bytes;
  std::size_t header_bytes = 0;
  int status = 0;
  bool in_body = false;
  HttpHeaders headers;
  std::string failed;
  const OnBody* on_body = nullptr;
};

ResponseParser::ResponseParser(std::size_t max_header_bytes, bool no_body)
    : parser_(std::make_unique<Parser>(max_header_bytes, no_body)) {}
ResponseParser::~ResponseParser() = default;

std::size_t ResponseParser::put(std::string_view bytes, const OnBody& on_body) {
  Parser& parser = *parser_;
  if (bytes.empty() || parser.is_done() || !parser.failed.empty()) return 0;
  parser.on_body = &on_body;
  ErrorCode error;
  const std::size_t used = parser.put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
  if (error == http::error::need_more) {
    if (bytes.size() - used > parser.max_header_bytes) parser.failed = "a chunk header without end";
  } else if (error) {
    parser.failed = error.message();
  }
  return used;
}

void ResponseParser::put_end() {
  if (!parser_->in_body || parser_->is_done()) return;
  ErrorCode error;
  parser_->put_eof(error);
}

bool ResponseParser::header_done() const {
  return parser_->in_body;
}
bool ResponseParser::done() const {
  return parser_->is_done();
}
const std::string& ResponseParser::failed() const {
  return parser_->failed;
}
int ResponseParser::status() const {
  return parser_->status;
}
HttpHeaders& ResponseParser::headers() {
  return parser_->headers;
}
bool ResponseParser::keep_alive() const {
  return parser_->is_done() && parser_->keep_alive();
}

}  // namespace bise
