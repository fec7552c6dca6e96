#include "serve/api_error.h"

#include <fmt/format.h>

#include <utility>

#include "serve/json_text.h"

namespace bise {
namespace {

// Messages quote what a client sent, whatever its length and bytes.
constexpr std::size_t kMaxMessage = 4096;

}  // namespace

ApiError::ApiError(int status, std::string type, std::string message, std::string param)
    : status_(status), type_(std::move(type)), message_(std::move(message)), param_(std::move(param)) {}

std::string ApiError::body() const {
  std::string text = R"({"error":{"message":)";
  append_json_string(text, valid_utf8(std::string_view(message_).substr(0, kMaxMessage)));
  text += R"(,"type":)";
  append_json_string(text, type_);
  text += R"(,"param":)";
  if (param_.empty()) {
    text += "null";
  } else {
    append_json_string(text, param_);
  }
  text += R"(,"code":)";
  append_number(text, std::int64_t{status_});
  return text += "}}";
}

HttpResponse ApiError::response() const {
  HttpResponse response;
  response.status = status_;
  response.headers.set("content-type", "application/json");
  if (status_ == 503) response.headers.set("retry-after", "1");
  response.body = body();
  return response;
}

ApiError bad_request(std::string message, std::string param) {
  return {400, "BadRequestError", std::move(message), std::move(param)};
}

ApiError field_error(const std::string& message, const std::string& param, const std::string& value) {
  return bad_request(fmt::format("{} (parameter={}, value={})", message, param, value), param);
}

ApiError validation_error(std::string message, std::string location) {
  return {400, "Bad Request", "1 validation error:\n  " + location + ": " + message, location};
}

ApiError model_not_found(const std::string& model) {
  return {404, "NotFoundError", "The model `" + model + "` does not exist.", "model"};
}

ApiError not_implemented(std::string message, std::string param) {
  return {501, "NotImplementedError", std::move(message), std::move(param)};
}

ApiError queue_full(std::string message) {
  return {503, "Service Unavailable", std::move(message)};
}

ApiError internal_error(std::string message) {
  return {500, "InternalServerError", std::move(message)};
}

}  // namespace bise
