#include "hub/digest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "hub/names.h"

namespace bise {

struct Digest::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Digest::Digest(Kind kind) : state_(std::make_unique<State>()) {
  const EVP_MD* method = kind == Kind::kSha1 ? EVP_sha1() : EVP_sha256();
  check(EVP_DigestInit_ex(state_->context, method, nullptr) == 1, "OpenSSL has SHA-1 and SHA-256");
}

Digest::~Digest() = default;

void Digest::update(std::string_view bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
}

std::string Digest::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> value;
  unsigned size = 0;
  EVP_DigestFinal_ex(state_->context, value.data(), &size);
  std::string text;
  for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", value[i]);
  return text;
}

std::string sha256_text(std::string_view bytes) {
  Digest digest(Digest::Kind::kSha256);
  digest.update(bytes);
  return digest.hex();
}

std::string sha256_file(const std::filesystem::path& path) {
  return content_etag(path, std::string(64, '0'));
}

std::string content_etag(const std::filesystem::path& path, std::string_view etag,
                         const std::atomic<bool>* stop) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Error("cannot open: {}", std::strerror(errno)).at(path.string());
  struct stat status {};
  ::fstat(descriptor, &status);
  Digest digest(is_sha256(etag) ? Digest::Kind::kSha256 : Digest::Kind::kSha1);
  if (!is_sha256(etag)) digest.update(fmt::format("blob {}", status.st_size) + '\0');
  std::vector<char> buffer(std::size_t{1} << 20);
  ssize_t count = 0;
  while (!(stop && *stop) && (count = ::read(descriptor, buffer.data(), buffer.size())) > 0)
    digest.update({buffer.data(), static_cast<std::size_t>(count)});
  const int code = errno;
  ::close(descriptor);
  if (count < 0) throw Error("cannot read: {}", std::strerror(code)).at(path.string());
  return stop && *stop ? "" : digest.hex();
}

}  // namespace bise
