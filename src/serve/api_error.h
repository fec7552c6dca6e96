// An error as the OpenAI API answers it (spec/serving.md section 1.3). Thrown by request parsing, caught
// where a handler begins; also made directly.
#pragma once

#include <exception>
#include <string>

#include "net/http_message.h"

namespace bise {

class ApiError : public std::exception {
 public:
  ApiError(int status, std::string type, std::string message, std::string param = {});

  const char* what() const noexcept override { return message_.c_str(); }
  int status() const { return status_; }
  // {"error": {"message", "type", "param", "code"}}
  std::string body() const;
  HttpResponse response() const;

 private:
  int status_;
  std::string type_, message_, param_;  // param_ empty: null
};

// The usual ones.
ApiError bad_request(std::string message, std::string param = {});  // 400 BadRequestError
// "message (parameter=param, value=value)", as vLLM ends such messages.
ApiError field_error(const std::string& message, const std::string& param, const std::string& value);
ApiError validation_error(std::string message,
                          std::string location);     // 400 Bad Request, "1 validation error: ..."
ApiError model_not_found(const std::string& model);  // 404 NotFoundError
ApiError not_implemented(std::string message, std::string param = {});  // 501 NotImplementedError
ApiError queue_full(std::string message);                               // 503, with Retry-After
ApiError internal_error(std::string message);                           // 500 InternalServerError

}  // namespace bise
