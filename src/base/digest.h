// SHA-256 and SHA-1, OpenSSL's.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace bise {

class Digest {
 public:
  enum class Kind { kSha1, kSha256 };
  explicit Digest(Kind kind);
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void update(std::string_view bytes);
  std::string hex();  // ends it; lower case

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Of all of `bytes`.
std::string sha256_hex(std::string_view bytes);

}  // namespace bise
