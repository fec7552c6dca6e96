#include "hub/digest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/descriptor.h"
#include "base/error.h"
#include "hub/names.h"

namespace bise {

std::string sha256_file(const std::filesystem::path& path) {
  return content_etag(path, std::string(64, '0'));
}

std::string content_etag(const std::filesystem::path& path, std::string_view etag,
                         const std::atomic<bool>* stop) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) throw Error("cannot open: {}", std::strerror(errno)).at(path.string());
  struct stat status {};
  ::fstat(file.get(), &status);
  Digest digest(is_sha256(etag) ? Digest::Kind::kSha256 : Digest::Kind::kSha1);
  if (!is_sha256(etag)) digest.update(fmt::format("blob {}", status.st_size) + '\0');
  std::vector<char> buffer(std::size_t{1} << 20);
  ssize_t count = 0;
  while (!(stop && *stop) && (count = ::read(file.get(), buffer.data(), buffer.size())) > 0)
    digest.update({buffer.data(), static_cast<std::size_t>(count)});
  if (count < 0) throw Error("cannot read: {}", std::strerror(errno)).at(path.string());
  return stop && *stop ? "" : digest.hex();
}

}  // namespace bise
