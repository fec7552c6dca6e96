#include "hub/blob_fetcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "hub/blob_transfer.h"
#include "hub/digest.h"
#include "hub/file_lock.h"
#include "hub/partial_file.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

// Thrown inside a worker to leave without a word: another one has failed.
struct Stopped {};

bool is_present(const Blob& blob) {
  std::error_code absent;
  return fs::is_regular_file(blob.target, absent) && fs::file_size(blob.target, absent) == blob.size;
}

// A blob that is being brought, shared by the workers that have a piece of it.
struct OpenBlob {
  OpenBlob(const Blob& source, const std::function<void()>& waiting)
      : blob(source), lock(source.lock, waiting) {}

  const Blob& blob;
  FileLock lock;
  std::unique_ptr<PartialFile> file;
  std::unique_ptr<BlobTransfer> transfer;
  std::size_t pieces_left = 0;  // guarded by the fetcher's mutex
  int tries = 0;
};

class Fetcher {
 public:
  Fetcher(HubClient& client, const std::vector<Blob>& blobs, const FetchOptions& options)
      : client_(client), options_(options), blobs_left_(blobs.size()) {
    for (const Blob& blob : blobs) waiting_.push_back(&blob);
    // The largest first: the end is then not one long file alone.
    std::ranges::stable_sort(waiting_, std::greater(), [](const Blob* blob) { return blob->size; });
  }

  void run(const FetchProgress& progress, std::uint64_t total) {
    std::vector<std::thread> workers;
    for (int i = 0; i < options_.connections; ++i) workers.emplace_back([this] { work(); });
    {
      std::unique_lock lock(mutex_);
      while (blobs_left_ > 0 && !failure_) {
        changed_.wait_for(lock, std::chrono::milliseconds(100));
        lock.unlock();
        progress(std::min(bytes_.load(), total), total);
        lock.lock();
      }
    }
    for (std::thread& worker : workers) worker.join();
    client_.go_on();
    if (failure_) std::rethrow_exception(failure_);
    progress(total, total);
  }

 private:
  struct Piece {
    std::shared_ptr<OpenBlob> blob;
    std::size_t index;
  };

  void work() {
    try {
      while (true) {
        std::optional<Piece> piece;
        const Blob* next = nullptr;
        if (!take(piece, next)) return;
        if (piece) {
          bring(*piece);
        } else {
          begin(*next);
        }
      }
    } catch (const Stopped&) {
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_ && !client_.stopped()) failure_ = std::current_exception();
      client_.stop();
      changed_.notify_all();
    }
  }

  // Pieces of open blobs go before new blobs, so that whoever holds a lock always moves on: two processes
  // cannot wait for each other.
  bool take(std::optional<Piece>& piece, const Blob*& next) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      return failure_ || client_.stopped() || blobs_left_ == 0 || !pieces_.empty() || !waiting_.empty();
    });
    if (failure_ || client_.stopped() || blobs_left_ == 0) return false;
    if (!pieces_.empty()) {
      piece = std::move(pieces_.front());
      pieces_.pop_front();
    } else {
      next = waiting_.front();
      waiting_.pop_front();
    }
    return true;
  }

  void leave_if_stopped() const {
    if (client_.stopped()) throw Stopped();
  }

  void begin(const Blob& blob) {
    bool told = false;
    const auto open = std::make_shared<OpenBlob>(blob, [&] {
      leave_if_stopped();
      if (!told) log_info("{}: another download of it is running; waiting", blob.name);
      told = true;
    });
    if (is_present(blob)) {  // the one we waited for brought it
      bytes_ += blob.size;
      return finish();
    }
    if (!blob.beginning.empty())
      PartialFile::adopt(blob.beginning, blob.partial, blob.size, options_.piece_bytes);
    start(open);
  }

  void start(const std::shared_ptr<OpenBlob>& open) {
    const Blob& blob = open->blob;
    open->file = std::make_unique<PartialFile>(blob.partial, blob.size, options_.piece_bytes);
    open->transfer = std::make_unique<BlobTransfer>(client_, blob, *open->file,
                                                    [this](std::uint64_t bytes) { bytes_ += bytes; });
    std::vector<std::size_t> missing;
    for (std::size_t i = 0; i < open->file->pieces(); ++i)
      if (open->file->next(i) < open->file->end(i)) missing.push_back(i);
    if (missing.empty()) return verify(open);
    open->pieces_left = 1;
    // The first answer says whether the server knows ranges; only then may others ask for theirs.
    open->transfer->fetch_first(missing.front(), missing.size() > 1, [&] {
      const std::lock_guard lock(mutex_);
      open->pieces_left += missing.size() - 1;
      for (std::size_t i = 1; i < missing.size(); ++i) pieces_.push_back({open, missing[i]});
      changed_.notify_all();
    });
    end_piece(open);
  }

  void bring(const Piece& piece) {
    piece.blob->transfer->fetch(piece.index);
    end_piece(piece.blob);
  }

  void end_piece(const std::shared_ptr<OpenBlob>& open) {
    leave_if_stopped();
    bool last = false;
    {
      const std::lock_guard lock(mutex_);
      last = --open->pieces_left == 0;
    }
    if (last) verify(open);
  }

  void verify(const std::shared_ptr<OpenBlob>& open) {
    const Blob& blob = open->blob;
    open->file->close();
    const std::string got = content_etag(blob.partial, blob.etag, &client_.stopped());
    leave_if_stopped();
    if (got == blob.etag) {
      std::error_code error;
      fs::rename(blob.partial, blob.target, error);
      if (error) throw Error("cannot name the finished file: {}", error.message()).at(blob.target.string());
      return finish();
    }
    open->file->remove();
    const Error wrong = Error("{}: the content has another checksum than the hub's list says", blob.name)
                            .at(blob.url)
                            .expected(blob.etag)
                            .got(got);
    if (++open->tries == 2) throw wrong;
    log_warning("{}; fetching it once more", wrong.what());
    bytes_ -= std::min(bytes_.load(), blob.size);
    start(open);
  }

  void finish() {
    const std::lock_guard lock(mutex_);
    --blobs_left_;
    changed_.notify_all();
  }

  HubClient& client_;
  const FetchOptions options_;
  std::atomic<std::uint64_t> bytes_ = 0;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<const Blob*> waiting_;
  std::deque<Piece> pieces_;
  std::size_t blobs_left_;
  std::exception_ptr failure_;
};

// The disk of `path`, which may not exist yet.
std::uintmax_t free_bytes(fs::path path) {
  std::error_code error;
  while (!fs::exists(path, error) && path.has_parent_path() && path != path.parent_path())
    path = path.parent_path();
  const fs::space_info space = fs::space(path, error);
  return error ? UINTMAX_MAX : space.available;
}

}  // namespace

void fetch_blobs(HubClient& client, const std::vector<Blob>& blobs, const FetchOptions& options,
                 const FetchProgress& progress) {
  std::vector<Blob> missing;
  std::uint64_t total = 0;
  for (const Blob& blob : blobs) {
    if (is_present(blob)) continue;
    total += blob.size - PartialFile::bytes_present(blob.partial, blob.size, options.piece_bytes);
    missing.push_back(blob);
  }
  if (missing.empty()) return;
  const fs::path folder = missing.front().target.parent_path();
  if (const std::uintmax_t room = free_bytes(folder); room < total)
    throw Error("not enough room on the disk")
        .at(folder.string())
        .expected(fmt::format("{} bytes free", total))
        .got(fmt::format("{} bytes free", room));
  Fetcher(client, missing, options).run(progress, total);
}

}  // namespace bise
