// A file that arrives in pieces, in any order, over any number of runs: the bytes at PATH, and beside them
// PATH.pieces, which says how much of each piece is there. Killed at any moment, it goes on from there.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

// What PATH.pieces holds: "bisepart", the file's size, bytes of a piece, then bytes done of each piece
// (64-bit numbers of this machine). Nothing when it is damaged or speaks of another file.
std::optional<std::vector<std::uint64_t>> parse_piece_journal(std::string_view bytes, std::uint64_t size,
                                                              std::uint64_t piece_bytes);

class PartialFile {
 public:
  // Opens or begins the file, whose content has `size` bytes. Notes that do not fit make it begin anew.
  // Throws Error when it cannot be made.
  PartialFile(std::filesystem::path path, std::uint64_t size, std::uint64_t piece_bytes);
  ~PartialFile();
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  // Bytes at `path` that an earlier run left, without opening it for writing.
  static std::uint64_t bytes_present(const std::filesystem::path& path, std::uint64_t size,
                                     std::uint64_t piece_bytes);
  // Makes the beginning of a file, as huggingface_hub's older versions leave it, the beginning of this one.
  static void adopt(const std::filesystem::path& beginning, const std::filesystem::path& path,
                    std::uint64_t size, std::uint64_t piece_bytes);

  std::size_t pieces() const { return done_.size(); }
  std::uint64_t begin(std::size_t piece) const { return piece * piece_bytes_; }
  std::uint64_t end(std::size_t piece) const;
  // The first byte of the piece that is missing; end(piece) when none is.
  std::uint64_t next(std::size_t piece) const { return begin(piece) + done_[piece]; }
  bool complete() const;

  // `bytes` at `offset`, which is next() of its piece; it may run into the pieces behind. Threads write to
  // different pieces. Throws Error (a full disk included).
  void write(std::uint64_t offset, std::string_view bytes);
  // Flushes and closes the file and removes the notes; it is whole.
  void close();
  // Closes and removes both.
  void remove();

  const std::filesystem::path& path() const { return path_; }

 private:
  void put(int descriptor, const std::filesystem::path& path, std::uint64_t offset, std::string_view bytes);
  void close_descriptors();

  std::filesystem::path path_, journal_path_;
  std::uint64_t size_, piece_bytes_;
  int data_ = -1, journal_ = -1;
  std::vector<std::atomic<std::uint64_t>> done_;
};

}  // namespace bise
