// The requests for one blob: where its content really is, ranges of it into a PartialFile, again after cut
// connections. The workers of blob_fetcher.cpp call it, each for its own piece.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "hub/blob_fetcher.h"
#include "hub/partial_file.h"

namespace bise {

class BlobTransfer {
 public:
  // All outlive the transfer. `arrived` is told of every byte that is written, on any thread.
  BlobTransfer(HubClient& client, const Blob& blob, PartialFile& file,
               std::function<void(std::uint64_t bytes)> arrived);

  // Brings the rest of a piece; throws Error. fetch_first: with `others` the content is asked for in ranges,
  // and `ranges_work` is called (once, on the client's thread) when the server gave one; a server that
  // ignores ranges sends everything, which is taken from here to the end of the file.
  void fetch_first(std::size_t piece, bool others, const std::function<void()>& ranges_work);
  void fetch(std::size_t piece);

 private:
  struct Answer;  // what one request brings

  void fetch_rest(std::size_t piece, bool first, bool others, const std::function<void()>& ranges_work);
  HttpResult request(Answer& answer, const std::string& range);
  void take_header(Answer& answer, int status, const HttpHeaders& headers) const;
  void find_location(bool again);
  std::string location();

  HubClient& client_;
  const Blob& blob_;
  PartialFile& file_;
  const std::function<void(std::uint64_t)> arrived_;
  std::mutex mutex_;  // guards location_
  std::string location_;
};

}  // namespace bise
