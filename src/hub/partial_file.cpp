#include "hub/partial_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/files.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kMagic = "bisepart";
constexpr std::size_t kWord = sizeof(std::uint64_t), kHeader = kMagic.size() + 2 * kWord;
constexpr std::uint64_t kMostPieces = std::uint64_t{1} << 24;

Error system_error(const char* action, const fs::path& path, int code) {
  return Error("cannot {}: {}", action, std::strerror(code)).at(path.string());
}

std::uint64_t count_pieces(std::uint64_t size, std::uint64_t piece_bytes) {
  check(piece_bytes > 0, "a piece has bytes");
  const std::uint64_t count = size / piece_bytes + (size % piece_bytes != 0);
  if (count > kMostPieces) throw Error("a file of {} bytes is too large", size);
  return count;
}

std::string word(std::uint64_t value) {
  std::string bytes(kWord, '\0');
  std::memcpy(bytes.data(), &value, kWord);
  return bytes;
}

std::uint64_t word_at(std::string_view bytes, std::size_t at) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data() + at, kWord);
  return value;
}

std::string journal_text(std::uint64_t size, std::uint64_t piece_bytes,
                         const std::vector<std::uint64_t>& done) {
  std::string text = std::string(kMagic) + word(size) + word(piece_bytes);
  for (const std::uint64_t bytes : done) text += word(bytes);
  return text;
}

fs::path journal_of(const fs::path& path) {
  return path.string() + ".pieces";
}

// What an earlier run left, where it left both files.
std::optional<std::vector<std::uint64_t>> read_journal(const fs::path& path, std::uint64_t size,
                                                       std::uint64_t piece_bytes) {
  std::error_code absent;
  if (!fs::is_regular_file(path, absent) || !fs::is_regular_file(journal_of(path), absent))
    return std::nullopt;
  const std::size_t expected = kHeader + count_pieces(size, piece_bytes) * kWord;
  if (fs::file_size(journal_of(path), absent) != expected) return std::nullopt;
  return parse_piece_journal(read_file(journal_of(path), expected), size, piece_bytes);
}

}  // namespace

std::optional<std::vector<std::uint64_t>> parse_piece_journal(std::string_view bytes, std::uint64_t size,
                                                              std::uint64_t piece_bytes) {
  const std::uint64_t count = count_pieces(size, piece_bytes);
  if (bytes.size() != kHeader + count * kWord || !bytes.starts_with(kMagic)) return std::nullopt;
  if (word_at(bytes, kMagic.size()) != size || word_at(bytes, kMagic.size() + kWord) != piece_bytes)
    return std::nullopt;
  std::vector<std::uint64_t> done(count);
  for (std::size_t i = 0; i < count; ++i) {
    done[i] = word_at(bytes, kHeader + i * kWord);
    if (done[i] > std::min(piece_bytes, size - i * piece_bytes)) return std::nullopt;
  }
  return done;
}

std::uint64_t PartialFile::bytes_present(const fs::path& path, std::uint64_t size,
                                         std::uint64_t piece_bytes) {
  std::uint64_t total = 0;
  const auto done = read_journal(path, size, piece_bytes);
  for (const std::uint64_t bytes : done.value_or(std::vector<std::uint64_t>())) total += bytes;
  return total;
}

void PartialFile::adopt(const fs::path& beginning, const fs::path& path, std::uint64_t size,
                        std::uint64_t piece_bytes) {
  std::error_code error;
  const std::uint64_t present = fs::file_size(beginning, error);
  if (error || present == 0 || present > size || fs::exists(path, error)) return;
  std::vector<std::uint64_t> done(count_pieces(size, piece_bytes));
  for (std::size_t i = 0; i < done.size(); ++i)
    done[i] = std::min(piece_bytes, present - std::min(present, i * piece_bytes));
  write_file(journal_of(path), journal_text(size, piece_bytes, done));
  fs::rename(beginning, path, error);
}

PartialFile::PartialFile(fs::path path, std::uint64_t size, std::uint64_t piece_bytes)
    : path_(std::move(path)),
      journal_path_(journal_of(path_)),
      size_(size),
      piece_bytes_(piece_bytes),
      done_(count_pieces(size, piece_bytes)) {
  const auto known = read_journal(path_, size, piece_bytes);
  const int anew = known ? 0 : O_TRUNC;
  data_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | anew, 0666);
  if (data_ < 0) throw system_error("create", path_, errno);
  journal_ = ::open(journal_path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | anew, 0666);
  if (journal_ < 0) {
    const int code = errno;
    close_descriptors();
    throw system_error("create", journal_path_, code);
  }
  for (std::size_t i = 0; known && i < known->size(); ++i) done_[i] = (*known)[i];
  if (known) return;
  try {
    put(journal_, journal_path_, 0,
        journal_text(size, piece_bytes, std::vector<std::uint64_t>(done_.size())));
  } catch (...) {
    close_descriptors();
    throw;
  }
}

PartialFile::~PartialFile() {
  close_descriptors();
}

void PartialFile::close_descriptors() {
  for (int* descriptor : {&data_, &journal_})
    if (const int open = std::exchange(*descriptor, -1); open >= 0) ::close(open);
}

std::uint64_t PartialFile::end(std::size_t piece) const {
  return begin(piece) + std::min(piece_bytes_, size_ - begin(piece));
}

bool PartialFile::complete() const {
  for (std::size_t i = 0; i < done_.size(); ++i)
    if (next(i) != end(i)) return false;
  return true;
}

void PartialFile::put(int descriptor, const fs::path& path, std::uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw system_error("write", path, errno);
    offset += static_cast<std::uint64_t>(count);
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void PartialFile::write(std::uint64_t offset, std::string_view bytes) {
  check(offset <= size_ && bytes.size() <= size_ - offset, "a write stays inside the file");
  // First the bytes, then the note: a note never promises what is not there.
  put(data_, path_, offset, bytes);
  const std::uint64_t last = offset + bytes.size();
  for (std::size_t piece = offset / piece_bytes_; piece < pieces() && begin(piece) < last; ++piece) {
    const std::uint64_t done = std::min(last, end(piece)) - begin(piece);
    if (done <= done_[piece]) continue;
    done_[piece] = done;
    put(journal_, journal_path_, kHeader + piece * kWord, word(done));
  }
}

void PartialFile::close() {
  check(complete(), "a file is closed when it is whole");
  const int code = ::fsync(data_) == 0 ? 0 : errno;
  close_descriptors();
  if (code != 0) throw system_error("write", path_, code);
  std::error_code ignored;
  fs::remove(journal_path_, ignored);
}

void PartialFile::remove() {
  close_descriptors();
  std::error_code ignored;
  fs::remove(journal_path_, ignored);
  fs::remove(path_, ignored);
}

}  // namespace bise
