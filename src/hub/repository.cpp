#include "hub/repository.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "net/url.h"

namespace bise {
namespace {

constexpr std::size_t kMostPages = 1000, kMostFiles = 200'000;
constexpr std::uint64_t kMostFileBytes = std::uint64_t{1} << 46;
constexpr int kTreeCacheVersion = 1;

std::uint64_t read_size(const Json& object, const std::string& where) {
  const std::int64_t size = require_int(object, "size", where);
  if (size < 0 || static_cast<std::uint64_t>(size) > kMostFileBytes)
    throw Error("the size of a file cannot be")
        .at(where)
        .expected("0 to 2^46 bytes")
        .got(std::to_string(size));
  return static_cast<std::uint64_t>(size);
}

HubFile read_file_entry(const Json& entry, const std::string& where) {
  HubFile file;
  file.path = require_string(entry, "path", where);
  require_safe_path(file.path, where);
  const std::string place = where + ": " + file.path;
  file.size = read_size(entry, place);
  file.blob_id = require_string(entry, "oid", place);
  if (!is_commit_hash(file.blob_id)) throw Error("not a git object id").at(place).got(file.blob_id);
  if (const auto lfs = entry.find("lfs"); lfs != entry.end() && !lfs->is_null()) {
    file.lfs_sha256 = require_string(*lfs, "oid", place);
    if (!is_sha256(file.lfs_sha256)) throw Error("not a SHA-256").at(place).got(file.lfs_sha256);
    file.size = read_size(*lfs, place);
  }
  file.xet_hash = find_string(entry, "xetHash", "", place);
  if (!is_sha256(file.xet_hash)) file.xet_hash.clear();
  return file;
}

std::string api_url(const HubSettings& settings, RepoType type, const std::string& repo) {
  return fmt::format("{}/api/{}/{}", settings.endpoint, type == RepoType::kModel ? "models" : "datasets",
                     repo);
}

// The next page at our own endpoint, whatever host the answer names: mirrors answer with the hub's own, and
// the token goes to nobody else.
std::string own_url(const HubSettings& settings, const std::string& base, const std::string& next) {
  const Url url = resolve_url(parse_url(base), next);
  return url.same_origin(parse_url(settings.endpoint)) ? url.text() : settings.endpoint + url.target();
}

}  // namespace

std::vector<HubFile> parse_tree_page(std::string_view json, const std::string& where) {
  const Json page = parse_json(json, where);
  if (!page.is_array()) throw Error("the list of files is malformed").at(where).expected("a JSON list");
  std::vector<HubFile> files;
  for (const Json& entry : page) {
    const std::string type = require_string(entry, "type", where);
    if (type == "file") files.push_back(read_file_entry(entry, where));
  }
  return files;
}

std::string parse_commit(std::string_view json, const std::string& where) {
  const std::string commit = require_string(parse_json(json, where), "sha", where);
  if (!is_commit_hash(commit)) throw Error("not a commit").at(where).expected("40 hex digits").got(commit);
  return commit;
}

std::string next_link(std::string_view field) {
  for (std::size_t at = 0; at < field.size();) {
    const std::size_t open = field.find('<', at), close = field.find('>', open);
    if (open == field.npos || close == field.npos) return "";
    const std::size_t end = std::min(field.find('<', close), field.size());
    const std::string_view parameters = field.substr(close, end - close);
    if (parameters.find("rel=\"next\"") != field.npos || parameters.find("rel=next") != field.npos)
      return std::string(field.substr(open + 1, close - open - 1));
    at = end;
  }
  return "";
}

std::string tree_cache_text(const std::vector<HubFile>& files) {
  Json entries = Json::object();
  for (const HubFile& file : files) {
    Json entry = {{"size", file.size}, {"blob_id", file.blob_id}};
    if (!file.lfs_sha256.empty()) {
      entry["lfs_sha256"] = file.lfs_sha256;
      entry["lfs_size"] = file.size;
    }
    if (!file.xet_hash.empty()) entry["xet_hash"] = file.xet_hash;
    entries[file.path] = std::move(entry);
  }
  return json_text({{"format_version", kTreeCacheVersion}, {"files", std::move(entries)}}, 1);
}

std::vector<HubFile> parse_tree_cache(std::string_view json) {
  std::vector<HubFile> files;
  try {
    const Json cache = parse_json(json, "trees");
    if (require_int(cache, "format_version", "trees") != kTreeCacheVersion) return {};
    for (const auto& [path, entry] : require(cache, "files", "trees").items()) {
      HubFile file;
      file.path = path;
      file.size = read_size(entry, path);
      require_safe_path(path, "trees");
      file.blob_id = require_string(entry, "blob_id", path);
      file.lfs_sha256 = find_string(entry, "lfs_sha256", "", path);
      file.xet_hash = find_string(entry, "xet_hash", "", path);
      if (!is_commit_hash(file.blob_id) || (!file.lfs_sha256.empty() && !is_sha256(file.lfs_sha256)))
        return {};
      files.push_back(std::move(file));
    }
  } catch (const Error&) {
    return {};
  }
  return files;
}

std::string resolve_revision(HubClient& client, RepoType type, const std::string& repo,
                             const std::string& revision) {
  require_repo_id(repo);
  if (is_commit_hash(revision)) return revision;
  require_safe_path(revision, "revision");
  const std::string url =
      fmt::format("{}/revision/{}", api_url(client.settings(), type, repo), percent_encoded(revision));
  const HttpResult result =
      client.fetch(client.call("GET", url), fmt::format("revision {} of {}", revision, repo));
  return parse_commit(result.body, url);
}

std::vector<HubFile> list_files(HubClient& client, RepoType type, const std::string& repo,
                                const std::string& commit) {
  std::string url =
      fmt::format("{}/tree/{}?recursive=true&expand=false", api_url(client.settings(), type, repo), commit);
  std::vector<HubFile> files;
  std::set<std::string> pages, paths;
  while (!url.empty()) {
    if (!pages.insert(url).second || pages.size() > kMostPages)
      throw Error("the list of files has no end").at(url).got(fmt::format("{} pages", pages.size()));
    const HttpResult result = client.fetch(client.call("GET", url), "the list of files of " + repo);
    for (HubFile& file : parse_tree_page(result.body, url)) {
      if (!paths.insert(file.path).second) throw Error("a file is listed twice").at(url).got(file.path);
      files.push_back(std::move(file));
    }
    if (files.size() > kMostFiles) throw Error("more than {} files", kMostFiles).at(url);
    const std::string next = next_link(result.headers.find("link").value_or(""));
    url = next.empty() ? "" : own_url(client.settings(), url, next);
  }
  std::ranges::sort(files, {}, &HubFile::path);
  return files;
}

std::string file_url(const HubSettings& settings, RepoType type, const std::string& repo,
                     const std::string& commit, const std::string& path) {
  return fmt::format("{}/{}/resolve/{}/{}", settings.endpoint, repo_url_path(type, repo), commit,
                     percent_encoded(path, "/"));
}

}  // namespace bise
