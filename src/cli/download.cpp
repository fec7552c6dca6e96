#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/dataset_sources.h"
#include "cli/flags.h"
#include "cli/hub_settings.h"
#include "hub/dataset.h"
#include "hub/snapshot.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

struct Options {
  std::string repo, revision = "main", local_dir, cache_dir, token, endpoint;
  std::vector<std::string> include, exclude;
  std::string dataset, config, rows_endpoint, output, data_dir = "data";
  std::vector<std::string> splits;
  std::int64_t connections = 8;
  bool force = false, json = false;
};

// Bytes on the progress bar, in units of which there are enough.
class ByteProgress {
 public:
  void show(std::uint64_t done, std::uint64_t total) {
    if (!bar_) {
      unit_ = total < 20'000'000 ? 1000 : 1'000'000;
      bar_ = std::make_unique<Progress>("downloading", unit_ == 1000 ? "kB" : "MB",
                                        static_cast<std::int64_t>(total / unit_));
    }
    const auto steps = static_cast<std::int64_t>(done / unit_);
    const double seconds = watch_.seconds();
    const std::string speed =
        seconds > 0 ? fmt::format("{:.1f} MB/s", static_cast<double>(done) * 1e-6 / seconds) : "";
    bar_->advance(std::max<std::int64_t>(0, steps - shown_), speed);
    shown_ = std::max(shown_, steps);
  }

 private:
  std::unique_ptr<Progress> bar_;
  std::uint64_t unit_ = 1;
  std::int64_t shown_ = 0;
  Stopwatch watch_;
};

class RowProgress {
 public:
  explicit RowProgress(std::string what) : what_(std::move(what)) {}
  void show(std::uint64_t done, std::uint64_t total) {
    if (!bar_) bar_ = std::make_unique<Progress>(what_, "rows", static_cast<std::int64_t>(total));
    bar_->advance(static_cast<std::int64_t>(done) - shown_);
    shown_ = static_cast<std::int64_t>(done);
  }

 private:
  std::string what_;
  std::unique_ptr<Progress> bar_;
  std::int64_t shown_ = 0;
};

HubSettings settings_of(const Options& options) {
  HubSettings settings = hub_settings();
  if (!options.endpoint.empty()) set_endpoint(settings, options.endpoint);
  if (!options.rows_endpoint.empty()) settings.datasets_endpoint = options.rows_endpoint;
  while (settings.datasets_endpoint.ends_with('/')) settings.datasets_endpoint.pop_back();
  if (!options.token.empty()) settings.token = options.token;
  if (!options.cache_dir.empty()) settings.cache_dir = options.cache_dir;
  return settings;
}

int connections_of(const Options& options) {
  if (options.connections < 1 || options.connections > 64)
    throw Error("wrong number of connections")
        .at("--max-workers")
        .expected("1 to 64")
        .got(std::to_string(options.connections));
  return static_cast<int>(options.connections);
}

int download_model(const Options& options) {
  SnapshotRequest request;
  request.repo = options.repo;
  request.revision = options.revision;
  request.include = options.include;
  request.exclude = options.exclude;
  request.local_dir = options.local_dir;
  request.fetch.connections = connections_of(options);
  HubClient client(settings_of(options));
  ByteProgress progress;
  const Snapshot snapshot = download_snapshot(
      client, request, [&](std::uint64_t done, std::uint64_t total) { progress.show(done, total); });
  if (options.json) {
    fmt::print("{}\n", json_text({{"repo", options.repo},
                                  {"revision", options.revision},
                                  {"commit", snapshot.commit},
                                  {"folder", snapshot.folder.string()},
                                  {"files", snapshot.files},
                                  {"bytes", snapshot.bytes}},
                                 2));
  } else {
    log_info("{}: {} files, {:.1f} MB, commit {}", options.repo, snapshot.files,
             static_cast<double>(snapshot.bytes) * 1e-6, snapshot.commit);
    fmt::print("{}\n", snapshot.folder.string());
  }
  return 0;
}

// What a name given to --dataset stands for: splits on the hub, each with the folder it goes to.
std::vector<SplitRequest> wanted_splits(HubClient& client, const Options& options) {
  std::vector<DatasetSource> sources = find_dataset_sources(options.dataset);
  const bool named = !sources.empty();
  if (!named) {
    if (!is_repo_id(options.dataset))
      throw Error("unknown data set")
          .at("--dataset")
          .expected("the name of a task, of its data, or owner/name on the hub")
          .got(options.dataset);
    const std::string name = options.dataset.substr(options.dataset.rfind('/') + 1);
    for (const DatasetSplit& split : list_splits(client, options.dataset))
      if (options.config.empty() || split.config == options.config)
        sources.push_back({name, options.dataset, split.config, {split.split}});
    if (sources.empty())
      throw Error("{} has no such configuration", options.dataset).at("--config").got(options.config);
  }
  const bool one_folder = std::ranges::all_of(sources, [&](const DatasetSource& source) {
    return source.folder == sources[0].folder && source.config == sources[0].config;
  });
  std::vector<SplitRequest> requests;
  for (const DatasetSource& source : sources) {
    if (named && !options.config.empty() && source.config != options.config) continue;
    fs::path folder =
        options.output.empty() ? fs::path(options.data_dir) / source.folder : fs::path(options.output);
    // Below the given folder the parts of a set have folders of their own.
    if (!one_folder && named && !options.output.empty())
      folder /= fs::path(source.folder).lexically_relative(options.dataset);
    if (!one_folder && !named) folder /= source.config;
    for (const std::string& split : source.splits) {
      if (!options.splits.empty() && std::ranges::find(options.splits, split) == options.splits.end())
        continue;
      SplitRequest request;
      request.repo = source.repo;
      request.config = source.config;
      request.split = split;
      request.folder = folder;
      request.again = options.force;
      requests.push_back(std::move(request));
    }
  }
  if (requests.empty())
    throw Error("nothing of {} is selected by --config and --split", options.dataset)
        .got(fmt::format("{}", fmt::join(options.splits, ", ")));
  return requests;
}

// A configuration that the table leaves open, and splits that the hub does not have.
void fit_to_hub(HubClient& client, std::vector<SplitRequest>& requests) {
  std::map<std::string, std::vector<DatasetSplit>> known;
  std::erase_if(requests, [&](SplitRequest& request) {
    auto& splits = known[request.repo];
    if (splits.empty()) splits = list_splits(client, request.repo);
    if (request.config.empty()) request.config = splits.front().config;
    return std::ranges::none_of(splits, [&](const DatasetSplit& split) {
      return split.config == request.config && split.split == request.split;
    });
  });
  if (requests.empty()) throw Error("the hub has none of the splits that the tasks use");
}

int download_dataset(const Options& options) {
  HubClient client(settings_of(options));
  std::vector<SplitRequest> requests = wanted_splits(client, options);
  fit_to_hub(client, requests);
  Json files = Json::array();
  for (const SplitRequest& request : requests) {
    RowProgress progress(fmt::format("{} {}", request.folder.string(), request.split));
    const SplitResult result = download_split(
        client, request, [&](std::uint64_t done, std::uint64_t total) { progress.show(done, total); });
    files.push_back({{"path", result.path.string()},
                     {"dataset", request.repo},
                     {"config", request.config},
                     {"split", request.split},
                     {"rows", result.rows},
                     {"bytes", result.bytes},
                     {"sha256", result.sha256},
                     {"was_here", result.was_here}});
    if (!options.json)
      fmt::print("{}  {} rows  sha256 {}\n", result.path.string(), result.rows, result.sha256);
  }
  if (options.json) fmt::print("{}\n", json_text({{"files", files}}, 2));
  return 0;
}

}  // namespace

int run_download(const Arguments& arguments) {
  Options options;
  Flags flags(
      "download",
      "Bring a model, or with --dataset a data set, from the Hugging Face hub. Interrupted downloads go on "
      "where they stopped; every file is checked against the hub's checksum.");
  flags.optional_positional("repo", options.repo, "owner/name of a model");
  flags.option("--revision", options.revision, "branch, tag or commit");
  flags.option("--include", options.include, "only files that match one of these wildcards");
  flags.option("--exclude", options.exclude, "no files that match one of these wildcards");
  flags.option("--local-dir", options.local_dir, "put the files into this folder instead of the cache");
  flags.option("--cache-dir", options.cache_dir, "the cache, instead of HF_HUB_CACHE or HF_HOME/hub");
  flags.option("--max-workers", options.connections, "connections at the same time");
  flags.group("Data sets");
  flags.option(
      "--dataset", options.dataset,
      "a task, group or data folder of bise eval (gsm8k, mmlu, openllm_v1), or owner/name on the hub");
  flags.option("--config", options.config, "only this configuration of it");
  flags.option("--split", options.splits, "only these splits");
  flags.option("--data-dir", options.data_dir, "the data folder of bise eval; the set gets a folder there");
  flags.option("-o,--output", options.output, "the set's own folder, instead of one in the data folder");
  flags.flag("--force", options.force, "bring rows again that are here");
  flags.group("Hub");
  flags.option("--token", options.token, "access token, instead of HF_TOKEN or the one of `hf auth login`");
  flags.option("--endpoint", options.endpoint, "address of the hub, instead of HF_ENDPOINT");
  flags.option("--rows-endpoint", options.rows_endpoint, "address of the rows API for data sets");
  flags.flag("--json", options.json, "print one JSON object");
  if (!flags.parse(arguments)) return 0;
  if (options.repo.empty() == options.dataset.empty())
    throw Error("what to download?").expected("owner/name of a model, or --dataset NAME");
  return options.dataset.empty() ? download_model(options) : download_dataset(options);
}

}  // namespace bise
