#include "base/error.h"

namespace bise {

Error::Error(Parts parts) : std::runtime_error(message(parts)), parts_(std::move(parts)) {}

std::string Error::message(const Parts& parts) {
  std::string text = parts.where.empty() ? parts.what : parts.where + ": " + parts.what;
  if (!parts.expected.empty()) text += "; expected " + parts.expected;
  if (!parts.got.empty()) text += (parts.expected.empty() ? "; got " : ", got ") + parts.got;
  return text;
}

Error Error::at(std::string where) const {
  Parts parts = parts_;
  parts.where = std::move(where);
  return Error(std::move(parts));
}

Error Error::expected(std::string what) const {
  Parts parts = parts_;
  parts.expected = std::move(what);
  return Error(std::move(parts));
}

Error Error::got(std::string what) const {
  Parts parts = parts_;
  parts.got = std::move(what);
  return Error(std::move(parts));
}

void rethrow_inside(const Error& error, const std::string& where) {
  throw error.at(error.where().empty() ? where : where + ": " + error.where());
}

}  // namespace bise
