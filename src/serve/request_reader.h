// Reads the fields of a JSON object by type, as pydantic's lax mode does: an integer or number may also come
// as text or as a whole fraction, a boolean as 0, 1 or "true". Everything that has the wrong type is
// collected, so that one answer names all problems of a body. An absent field and null are the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace bise {

// What is wrong with a body, place by place.
class Problems {
 public:
  // `location`: "body.temperature".
  void add(std::string location, std::string_view text);
  // The offending input is shown, cut to 200 characters.
  void add(std::string location, std::string_view text, const Json& input);
  bool empty() const { return count_ == 0; }
  // Throws ApiError (400 "Bad Request"): "N validation errors:", then a line for each of the first 10.
  void throw_if_any() const;

 private:
  std::size_t count_ = 0;
  std::string lines_, first_location_;
};

class RequestReader {
 public:
  // `object` and `problems` outlive the reader.
  RequestReader(const Json& object, std::string location, Problems& problems);

  std::optional<bool> boolean(const char* name);
  std::optional<std::int64_t> integer(const char* name);
  std::optional<double> number(const char* name);
  std::optional<std::string> string(const char* name);
  // One string counts as a list of one with `or_one`.
  std::optional<std::vector<std::string>> strings(const char* name, bool or_one = false);
  std::optional<std::vector<std::int64_t>> integers(const char* name);
  const Json* object(const char* name);  // null: absent
  const Json* array(const char* name);
  const Json* any(const char* name) const;

  std::string location(const char* name) const;
  Problems& problems() { return problems_; }

 private:
  void wrong_type(const char* name, std::string_view expected);

  const Json& object_;
  std::string location_;
  Problems& problems_;
};

// An integer as pydantic's lax mode takes it; nothing when `value` is none.
std::optional<std::int64_t> lax_integer(const Json& value);

}  // namespace bise
