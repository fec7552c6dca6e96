#include "hub/blob_transfer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <utility>

#include "base/error.h"
#include "net/url.h"

namespace bise {
namespace {

constexpr int kMostRedirects = 5;

std::string unquoted(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return std::string(etag);
}

bool is_redirect(const HttpResult& result) {
  return result.status >= 300 && result.status < 400 && result.headers.find("location");
}

}  // namespace

// The part of the body that is wanted: [next, end) of the file.
struct BlobTransfer::Answer {
  std::uint64_t next = 0, end = 0;
  std::uint64_t at = 0;  // of the file: where the body's next byte belongs
  bool first = false, others = false;
  const std::function<void()>* ranges_work = nullptr;
  bool whole = false;  // the server ignored the range
  std::exception_ptr problem = nullptr;
};

BlobTransfer::BlobTransfer(HubClient& client, const Blob& blob, PartialFile& file,
                           std::function<void(std::uint64_t bytes)> arrived)
    : client_(client), blob_(blob), file_(file), arrived_(std::move(arrived)), location_(blob.url) {}

void BlobTransfer::fetch_first(std::size_t piece, bool others, const std::function<void()>& ranges_work) {
  if (others) find_location(false);
  fetch_rest(piece, true, others, ranges_work);
}

void BlobTransfer::fetch(std::size_t piece) {
  fetch_rest(piece, false, true, {});
}

void BlobTransfer::fetch_rest(std::size_t piece, bool first, bool others,
                              const std::function<void()>& ranges_work) {
  std::uint64_t end = file_.end(piece);
  for (int attempt = 0; !client_.stopped();) {
    Answer answer{.next = file_.next(piece), .end = end};
    // What a whole answer brought of the pieces behind is not asked for again.
    for (std::size_t i = piece + 1; i < file_.pieces() && answer.next == file_.begin(i) && answer.next < end;
         ++i)
      answer.next = file_.next(i);
    if (answer.next == end) return;
    const std::uint64_t began = answer.next;
    answer.first = std::exchange(first, false);
    answer.others = others;
    answer.ranges_work = &ranges_work;
    const bool everything = answer.next == 0 && file_.pieces() == 1;
    const std::string range = everything ? "" : fmt::format("bytes={}-{}", answer.next, end - 1);
    HttpResult result = request(answer, range);
    if (answer.problem) std::rethrow_exception(answer.problem);
    if (answer.whole) end = answer.end;
    if (answer.next == end) return;
    if (answer.next > began) attempt = 0;
    // The header never came: whether ranges work is still to be learned.
    if (answer.first && result.status != 206 && !answer.whole) first = true;
    if (result.ok()) {
      result.failure = HttpFailure::kCut;
      result.error = fmt::format("{}: the answer ended {} bytes early", blob_.url, end - answer.next);
    }
    // A signed address has its time.
    const bool expired = (result.status == 401 || result.status == 403) && location() != blob_.url;
    if (expired && attempt < 2) {
      find_location(true);
      ++attempt;
      continue;
    }
    client_.wait_to_retry(result, attempt++, blob_.name);
  }
}

std::string BlobTransfer::location() {
  const std::lock_guard lock(mutex_);
  return location_;
}

HttpResult BlobTransfer::request(Answer& answer, const std::string& range) {
  HttpCall call = client_.call("GET", location());
  if (!range.empty()) call.headers.add("Range", range);
  call.on_header = [&](int status, const HttpHeaders& headers) {
    try {
      if (status < 300) take_header(answer, status, headers);
    } catch (...) {
      answer.problem = std::current_exception();
    }
    return !answer.problem;
  };
  call.on_body = [&](std::string_view bytes) {
    try {
      if (answer.at < answer.next) {  // before what is wanted
        const std::uint64_t skipped = std::min<std::uint64_t>(answer.next - answer.at, bytes.size());
        bytes.remove_prefix(skipped);
        answer.at += skipped;
      }
      const bool too_long = answer.end == blob_.size && bytes.size() > answer.end - answer.at;
      if (too_long)
        throw Error("{}: the content is longer than the hub's list says", blob_.name)
            .at(blob_.url)
            .expected(fmt::format("{} bytes", blob_.size));
      bytes = bytes.substr(0, answer.end - answer.at);
      file_.write(answer.at, bytes);
      arrived_(bytes.size());
      answer.at += bytes.size();
      answer.next = std::max(answer.next, answer.at);
    } catch (...) {
      answer.problem = std::current_exception();
    }
    // The rest of an unasked whole is not waited for.
    const bool enough = answer.whole && answer.next == answer.end && answer.end < blob_.size;
    return !answer.problem && !client_.stopped() && !enough;
  };
  return client_.perform(std::move(call));
}

void BlobTransfer::take_header(Answer& answer, int status, const HttpHeaders& headers) const {
  const auto wrong_size = [&](std::uint64_t size) {
    return Error("{}: the server's content has another size than the hub's list says", blob_.name)
        .at(blob_.url)
        .expected(fmt::format("{} bytes", blob_.size))
        .got(fmt::format("{} bytes", size));
  };
  if (headers.find("content-encoding").value_or("identity") != "identity")
    throw Error("{}: the server sends the content encoded, unasked", blob_.name)
        .at(blob_.url)
        .got(std::string(*headers.find("content-encoding")));
  if (status == 206) {
    const auto field = headers.find("content-range");
    const auto range = field ? parse_content_range(*field) : std::nullopt;
    if (!range || range->first != answer.next)
      throw Error("{}: the server sent another range than was asked for", blob_.name)
          .at(blob_.url)
          .expected(fmt::format("from byte {}", answer.next))
          .got(std::string(field.value_or("no Content-Range")));
    if (range->total && *range->total != blob_.size) throw wrong_size(*range->total);
    answer.at = range->first;
    if (answer.first && answer.others) (*answer.ranges_work)();
    return;
  }
  answer.at = 0;
  if (const auto field = headers.find("content-length")) {
    std::uint64_t length = 0;
    const auto [end, error] = std::from_chars(field->data(), field->data() + field->size(), length);
    if (error == std::errc() && end == field->data() + field->size() && length != blob_.size)
      throw wrong_size(length);
  }
  answer.whole = true;
  // Nobody else works on the file yet: all that follows is ours.
  if (answer.first) answer.end = blob_.size;
}

// The hub answers with the address of a store, signed for an hour; asking it once spares a request a piece.
void BlobTransfer::find_location(bool again) {
  const std::lock_guard lock(mutex_);
  if (!again && location_ != blob_.url) return;
  std::string url = blob_.url;
  for (int redirects = 0; redirects < kMostRedirects; ++redirects) {
    HttpCall call = client_.call("HEAD", url);
    call.max_redirects = 0;
    const HttpResult result = client_.fetch(call, blob_.name);
    const auto linked = result.headers.find("x-linked-etag");
    if (linked && unquoted(*linked) != blob_.etag)
      throw Error("{}: the hub's list and its file disagree", blob_.name)
          .at(url)
          .expected("etag " + blob_.etag)
          .got(std::string(*linked));
    if (!is_redirect(result)) {
      location_ = url;
      return;
    }
    const Url here = parse_url(url), next = resolve_url(here, *result.headers.find("location"));
    if (here.tls() && !next.tls())
      throw Error("{}: redirected from https to http", blob_.name).at(url).got(next.text());
    url = next.text();
    location_ = url;
    if (!next.same_origin(here)) return;
  }
  throw Error("{}: too many redirects", blob_.name).at(blob_.url);
}

}  // namespace bise
