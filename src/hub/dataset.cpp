#include "hub/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "hub/digest.h"
#include "hub/file_lock.h"
#include "hub/names.h"
#include "net/url.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

constexpr std::uint64_t kRowsPerPage = 100;  // the API's most
constexpr char kNotes[] = "dataset.json";

struct Page {
  RowsPage rows;
  std::string revision;  // of the data set, or "" where the server does not say
};

std::string dataset_url(const HubSettings& settings, const char* route, const std::string& repo) {
  return fmt::format("{}/{}?dataset={}", settings.datasets_endpoint, route, percent_encoded(repo));
}

Page fetch_page(HubClient& client, const SplitRequest& request, std::uint64_t first) {
  const std::string url = fmt::format(
      "{}&config={}&split={}&offset={}&length={}", dataset_url(client.settings(), "rows", request.repo),
      percent_encoded(request.config), percent_encoded(request.split), first, kRowsPerPage);
  const HttpResult result =
      client.fetch(client.call("GET", url),
                   fmt::format("rows of {} ({}, {})", request.repo, request.config, request.split));
  Page page{parse_rows_page(result.body, first, url),
            std::string(result.headers.find("x-revision").value_or(""))};
  return page;
}

// What dataset.json says, or an empty object.
Json read_notes(const fs::path& folder) {
  std::error_code absent;
  if (!fs::is_regular_file(folder / kNotes, absent)) return Json::object();
  Json notes = read_json_file(folder / kNotes, std::size_t{16} << 20);
  if (!notes.is_object()) throw Error("damaged notes on the data set").at((folder / kNotes).string());
  return notes;
}

// One split being brought, under its temporary name.
class SplitFile {
 public:
  explicit SplitFile(const SplitRequest& request)
      : request_(request),
        target_(request.folder / (request.split + ".jsonl")),
        partial_(target_.string() + ".incomplete"),
        origin_(partial_.string() + ".json") {}

  // The result, when the file is here as it was recorded.
  bool is_here(SplitResult& result) const {
    std::error_code absent;
    const Json notes = read_notes(request_.folder);
    const auto files = notes.find("files");
    if (request_.again || !fs::is_regular_file(target_, absent) || files == notes.end()) return false;
    const auto entry = files->find(target_.filename().string());
    if (entry == files->end()) return false;
    const std::string where = (request_.folder / kNotes).string();
    if (require_string(*entry, "dataset", where) != request_.repo ||
        require_string(*entry, "config", where) != request_.config)
      return false;
    const std::string recorded = require_string(*entry, "sha256", where);
    if (sha256_file(target_) != recorded) {
      log_warning("{}: not as it was downloaded; bringing it again", target_.string());
      return false;
    }
    result = {target_, static_cast<std::uint64_t>(require_int(*entry, "rows", where)), fs::file_size(target_),
              recorded, true};
    return true;
  }

  // Rows that an earlier run left for this revision; anything else there is dropped.
  std::uint64_t resume(const std::string& revision) {
    std::error_code absent;
    std::uint64_t rows = 0;
    std::uintmax_t whole = 0;
    if (!request_.again && fs::is_regular_file(partial_, absent) && fs::is_regular_file(origin_, absent) &&
        read_file(origin_, 1 << 20) == origin_text(revision)) {
      std::ifstream file(partial_, std::ios::binary);
      for (std::string line; std::getline(file, line) && !file.eof(); ++rows) whole += line.size() + 1;
      file.close();
      fs::resize_file(partial_, whole);
    } else {
      write_file(origin_, origin_text(revision));
      fs::remove(partial_, absent);
    }
    out_.open(partial_, std::ios::binary | std::ios::app);
    return rows;
  }

  void append(const std::vector<std::string>& rows) {
    for (const std::string& row : rows) out_ << row << '\n';
    out_.flush();
    if (!out_) throw Error("cannot write").at(partial_.string());
  }

  SplitResult commit(std::uint64_t rows, const std::string& revision) {
    out_.close();
    SplitResult result{target_, rows, fs::file_size(partial_), sha256_file(partial_)};
    fs::rename(partial_, target_);
    fs::remove(origin_);
    Json notes = read_notes(request_.folder);
    notes["files"][target_.filename().string()] = {{"dataset", request_.repo},
                                                   {"config", request_.config},
                                                   {"split", request_.split},
                                                   {"revision", revision},
                                                   {"rows", rows},
                                                   {"bytes", result.bytes},
                                                   {"sha256", result.sha256}};
    write_file(request_.folder / kNotes, json_text(notes, 1) + "\n");
    return result;
  }

 private:
  std::string origin_text(const std::string& revision) const {
    return json_text({{"dataset", request_.repo},
                      {"config", request_.config},
                      {"split", request_.split},
                      {"revision", revision}});
  }

  const SplitRequest& request_;
  const fs::path target_, partial_, origin_;
  std::ofstream out_;
};

// Every page must be of the same data set as the first.
void require_same(const Page& page, const Page& first, const std::string& what) {
  if (page.revision == first.revision && page.rows.total == first.rows.total) return;
  throw Error("{} changed on the hub meanwhile; download it again", what)
      .expected(fmt::format("revision {}, {} rows", first.revision, first.rows.total))
      .got(fmt::format("revision {}, {} rows", page.revision, page.rows.total));
}

// A page that is short would leave a hole before the next one.
void require_full(const Page& page, std::uint64_t first, const SplitRequest& request) {
  const std::uint64_t expected = std::min(kRowsPerPage, page.rows.total - first);
  if (page.rows.rows.size() != expected)
    throw Error("{}: the rows API sent a short page", request.repo)
        .at(fmt::format("split {}, from row {}", request.split, first))
        .expected(fmt::format("{} rows", expected))
        .got(fmt::format("{} rows", page.rows.rows.size()));
}

}  // namespace

std::vector<DatasetSplit> list_splits(HubClient& client, const std::string& repo) {
  require_repo_id(repo);
  const std::string url = dataset_url(client.settings(), "splits", repo);
  const HttpResult result = client.fetch(client.call("GET", url), "the splits of the data set " + repo);
  return parse_splits(result.body, url);
}

SplitResult download_split(HubClient& client, const SplitRequest& request, const RowsProgress& progress) {
  require_repo_id(request.repo);
  require_safe_path(request.split, "split");
  std::error_code error;
  fs::create_directories(request.folder, error);
  if (error) throw Error("cannot make the folder: {}", error.message()).at(request.folder.string());
  const FileLock lock(request.folder / ".dataset.lock", [] {});
  SplitFile file(request);
  SplitResult result;
  if (file.is_here(result)) return result;

  const Page first = fetch_page(client, request, 0);
  const std::uint64_t total = first.rows.total;
  if (total == 0) throw Error("{} has no rows in split {}", request.repo, request.split);
  std::uint64_t done = file.resume(first.revision);
  if (done > total)
    throw Error("more rows are here than the hub has; remove them").at(request.folder.string());
  if (done == 0) {
    require_full(first, 0, request);
    file.append(first.rows.rows);
    done = first.rows.rows.size();
  }
  progress(done, total);
  // In order; each begins where the one before it ends.
  std::deque<std::future<Page>> pages;
  std::uint64_t asked = done;
  try {
    while (done < total) {
      for (; asked < total && pages.size() < static_cast<std::size_t>(request.connections);
           asked += kRowsPerPage)
        pages.push_back(
            std::async(std::launch::async, fetch_page, std::ref(client), std::cref(request), asked));
      const Page page = pages.front().get();
      pages.pop_front();
      require_same(page, first, request.repo);
      require_full(page, done, request);
      file.append(page.rows.rows);
      done += page.rows.rows.size();
      progress(done, total);
    }
  } catch (...) {
    client.stop();
    pages.clear();
    client.go_on();
    throw;
  }
  return file.commit(done, first.revision);
}

}  // namespace bise
