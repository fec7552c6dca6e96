// JSON files with a vocabulary inside: the few containers that hold hundreds of thousands of members are
// handed over while they are read instead of being built as a tree.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/json.h"

namespace bise {

// Receives the inside of one container. Depth 1 is a direct member of it.
class JsonSink {
 public:
  virtual ~JsonSink() = default;
  virtual void key(std::string&) {}
  virtual void string(int depth, std::string& value) = 0;
  virtual void integer(int depth, std::int64_t value) = 0;
  virtual void begin(int depth, bool array) = 0;
  virtual void end(int depth) = 0;
  // true, false, null, a fraction.
  virtual void other(int depth) = 0;
};

// Parses like parse_json. The containers at the dotted paths in `sinks` ("model.vocab") go to their sinks
// and stay empty in the result. Throws Error also when any other object has more than 20,000 members.
Json parse_bulk_json(std::string_view text, const std::string& where,
                     const std::map<std::string, JsonSink*>& sinks);

}  // namespace bise
