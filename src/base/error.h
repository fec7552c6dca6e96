// The one exception type for bad input: a file, a flag, a request. It says what is wrong, where, what was
// expected and what was found. It is caught in cli/main, the HTTP handler and the task runner only.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace bise {

class Error : public std::runtime_error {
 public:
  // Error("tensor {} has the wrong shape", name).at(path).expected("[2, 3]").got(shape)
  template <class... Args>
  explicit Error(fmt::format_string<Args...> format, Args&&... args)
      : Error(Parts{fmt::format(format, std::forward<Args>(args)...), {}, {}, {}}) {}

  // Each returns a copy with that part filled in. `where` is a path, tensor, key or line.
  Error at(std::string where) const;
  Error expected(std::string what) const;
  Error got(std::string what) const;

  const std::string& what_failed() const { return parts_.what; }
  const std::string& where() const { return parts_.where; }

 private:
  struct Parts {
    std::string what, where, expected, got;
  };
  explicit Error(Parts parts);
  static std::string message(const Parts& parts);

  Parts parts_;
};

// Rethrows the Error in flight with `where` put before its place: "DIR/model.safetensors: tensor x".
// Call it in a catch block only.
[[noreturn]] void rethrow_inside(const Error& error, const std::string& where);

}  // namespace bise
