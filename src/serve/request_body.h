// The JSON body of a request, checked before anything is built from it. Any thread.
#pragma once

#include <string_view>

#include "base/json.h"
#include "net/http_message.h"

namespace bise {

inline constexpr int kMaxBodyNesting = 64;

// The body as an object. Throws ApiError (400 "Bad Request") when the content type is not JSON, the text is
// not valid JSON or UTF-8, is nested deeper than kMaxBodyNesting, has so many members in one object that
// looking them up would take long, or is no object.
Json parse_request_body(const HttpRequest& request, std::string_view body);

}  // namespace bise
