// Downloads from a hub on this machine: the layout, and what servers do wrong.
#include "hub/snapshot.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "hub/cache.h"
#include "hub/digest.h"
#include "hub/partial_file.h"
#include "tests/hub/fake_hub.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;
using Trick = FakeHub::Trick;

constexpr std::uint64_t kPiece = 64 << 10;

// A hub with a small file, two large ones with another content each, and one in a folder.
class Snapshots : public ::testing::Test {
 protected:
  Snapshots() {
    hub_.add("config.json", "{\"a\": 1}");
    hub_.add("model.safetensors", weights_, true);
    hub_.add("tokenizer.json", noise(3000, 3), true);
    hub_.add("nested/deep/readme.md", "# hello");
    request_.repo = FakeHub::kRepo;
    request_.fetch = {.connections = 4, .piece_bytes = kPiece};
  }

  fs::path cache() const { return scratch_.path() / "hub"; }
  fs::path repo() const { return cache() / "models--owner--tiny-model"; }
  Snapshot download() {
    HubSettings settings = hub_.settings(cache());
    settings.token = token_;
    settings.offline = offline_;
    HubClient client(settings);
    return download_snapshot(client, request_, [this](std::uint64_t done, std::uint64_t total) {
      EXPECT_LE(done, total);
      last_total_ = total;
    });
  }
  // The message of the error that a download ends with.
  std::string refusal() {
    try {
      download();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  void expect_whole(const Snapshot& snapshot) {
    EXPECT_EQ(read_file(snapshot.folder / "model.safetensors"), weights_);
    EXPECT_EQ(read_file(snapshot.folder / "tokenizer.json"), noise(3000, 3));
    EXPECT_EQ(read_file(snapshot.folder / "config.json"), "{\"a\": 1}");
    EXPECT_EQ(read_file(snapshot.folder / "nested/deep/readme.md"), "# hello");
    EXPECT_EQ(leftovers(), 0);
  }
  int leftovers() const {
    int count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(scratch_.path())) {
      const std::string name = entry.path().filename();
      count += name.find("incomplete") != name.npos || name.ends_with(".tmp") || name.ends_with(".partial");
    }
    return count;
  }

  const std::string weights_ = noise(10 * kPiece + 123, 1);
  FakeHub hub_;
  ScratchFolder scratch_;
  SnapshotRequest request_;
  std::string token_;
  bool offline_ = false;
  std::atomic<std::uint64_t> last_total_ = 0;
};

TEST_F(Snapshots, TheLayoutIsHuggingfaceHubs) {
  const Snapshot snapshot = download();
  expect_whole(snapshot);
  EXPECT_EQ(snapshot.folder, repo() / "snapshots" / FakeHub::kCommit);
  EXPECT_EQ(snapshot.files, 4u);
  EXPECT_EQ(snapshot.bytes, last_total_);
  EXPECT_EQ(read_file(repo() / "refs" / "main"), FakeHub::kCommit);
  EXPECT_EQ(fs::read_symlink(snapshot.folder / "model.safetensors"), "../../blobs/" + sha256_hex(weights_));
  // The name that git gives this content: printf '# hello' | git hash-object --stdin
  EXPECT_EQ(fs::read_symlink(snapshot.folder / "nested/deep/readme.md"),
            "../../../../blobs/3b439713f220fdfebf388cd628a89c397c604423");
  EXPECT_TRUE(fs::exists(repo() / "trees" / (std::string(FakeHub::kCommit) + ".json")));
  EXPECT_TRUE(fs::exists(cache() / "CACHEDIR.TAG"));
  EXPECT_EQ(hub_.count("GET /store/" + sha256_hex(weights_)), 11u) << "a request a piece";
}

TEST_F(Snapshots, WhatIsHereIsNotAskedForAgain) {
  download();
  const std::size_t before = hub_.seen().size();
  expect_whole(download());
  EXPECT_EQ(hub_.seen().size(), before + 1) << "the revision alone";
  request_.revision = FakeHub::kCommit;
  expect_whole(download());
  EXPECT_EQ(hub_.seen().size(), before + 1) << "a commit never changes";
  hub_.add("new.txt", "new");
  fs::remove_all(repo() / "trees");
  download();
  EXPECT_EQ(hub_.count("/store/"), 12u) << "only the new file is brought";
}

TEST_F(Snapshots, TheListComesInPagesFromOurEndpointOnly) {
  hub_.files_per_page = 2;
  hub_.token = token_ = "hf_secret";
  expect_whole(download());
  EXPECT_EQ(hub_.count("GET /api/models/owner/tiny-model/tree/"), 3u);
}

TEST_F(Snapshots, TheTokenStaysAtTheHub) {
  hub_.token = token_ = "hf_secret";
  expect_whole(download());
  for (const std::string& line : hub_.seen())
    EXPECT_EQ(line.find("token=Bearer hf_secret") == std::string::npos, line.ends_with(" store")) << line;
}

TEST_F(Snapshots, TransientFailuresAreTriedAgain) {
  const std::string store = "/store/" + sha256_hex(weights_);
  const struct {
    const char* name;
    std::string part;
    Trick trick;
    int times;
  } cases[] = {
      {"busy list", "/tree/", {.status = 503}, 2},
      {"too many requests", "/revision/", {.status = 429, .headers = {{"Retry-After", "0"}}}, 2},
      {"limit of the draft", "/tree/", {.status = 429, .headers = {{"RateLimit", "\"api\";r=0;t=0"}}}, 1},
      {"bad gateway of a file", "/resolve/", {.status = 502}, 3},
      {"bad gateway of a piece", store, {.status = 500}, 3},
      {"request timeout", store, {.status = 408}, 1},
      {"cut before a byte", store, {.cut_after = 0}, 3},
      {"cut within each piece", store, {.cut_after = 1000}, 50},
      {"cut small file", "config.json", {.cut_after = 3}, 3},
      {"signed address expired", store, {.status = 403}, 1},
  };
  for (const auto& test : cases) {
    fs::remove_all(cache());
    hub_.trick(test.part, test.trick, test.times);
    const std::size_t before = hub_.seen().size();
    expect_whole(download());
    EXPECT_GT(hub_.seen().size(), before + static_cast<std::size_t>(test.times)) << test.name;
  }
}

TEST_F(Snapshots, RetryAfterIsObeyed) {
  hub_.trick("/revision/", {.status = 429, .headers = {{"Retry-After", "1"}}});
  const auto began = std::chrono::steady_clock::now();
  download();
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::seconds(1));
  hub_.trick("/revision/", {.status = 429, .headers = {{"Retry-After", "3600"}}});
  EXPECT_NE(refusal().find("too many requests"), std::string::npos) << "an hour is not waited for";
}

TEST_F(Snapshots, ServersThatIgnoreRangesAreReadInOneGo) {
  const std::string store = "/store/" + sha256_hex(weights_);
  hub_.trick(store, {.ignore_range = true}, 1000);
  expect_whole(download());
  EXPECT_EQ(hub_.count(store), 1u);
  // Cut in the middle: the next answer is read from its beginning, and what is here already is skipped.
  fs::remove_all(cache());
  FakeHub other;
  hub_.trick(store, {.ignore_range = true}, 1000);
  expect_whole(download());
}

TEST_F(Snapshots, AServerThatStopsKnowingRangesIsSurvived) {
  const std::string store = "/store/" + sha256_hex(weights_);
  hub_.trick(store, {}, 3);  // three good ranges
  hub_.trick(store, {.ignore_range = true}, 1000);
  expect_whole(download());
}

TEST_F(Snapshots, ItGoesOnWhereItStopped) {
  const std::string store = "GET /store/" + sha256_hex(weights_);
  request_.fetch.connections = 1;
  hub_.trick(store, {}, 3);                    // three pieces come,
  hub_.trick(store, {.cut_after = 20000}, 1);  // a part of the fourth,
  hub_.trick(store, {.status = 404}, 1);       // then the store has gone
  EXPECT_NE(refusal().find("model.safetensors"), std::string::npos);
  EXPECT_FALSE(fs::exists(repo() / "snapshots" / FakeHub::kCommit)) << "nothing looks complete";
  EXPECT_FALSE(fs::exists(repo() / "refs" / "main"));
  EXPECT_EQ(leftovers(), 2) << "the bytes and the notes on them";
  const std::size_t before = hub_.seen().size();
  expect_whole(download());
  std::vector<std::string> ranges;
  for (std::size_t i = before; i < hub_.seen().size(); ++i)
    if (const std::string line = hub_.seen()[i]; line.starts_with(store)) ranges.push_back(line);
  ASSERT_EQ(ranges.size(), 8u);
  EXPECT_NE(ranges[0].find(fmt::format("range=bytes={}-{}", 3 * kPiece + 20000, 4 * kPiece - 1)),
            std::string::npos)
      << ranges[0];
  EXPECT_LT(last_total_, weights_.size() - 3 * kPiece + 4000) << "the progress is that of what is missing";
}

TEST_F(Snapshots, ABeginningLeftByHuggingfaceHubIsUsed) {
  fs::create_directories(repo() / "blobs");
  const std::string etag = sha256_hex(weights_);
  write_file(repo() / "blobs" / (etag + ".incomplete"), weights_.substr(0, 5 * kPiece + 77));
  expect_whole(download());
  EXPECT_EQ(hub_.count("GET /store/" + etag), 6u);
}

TEST_F(Snapshots, DamagedLeftoversAreFetchedAnew) {
  fs::create_directories(repo() / "blobs");
  const std::string etag = sha256_hex(weights_);
  std::string bad = weights_.substr(0, 5 * kPiece);
  bad[100] ^= 1;
  write_file(repo() / "blobs" / (etag + ".incomplete"), bad);
  expect_whole(download());
  // Notes that lie, or are cut.
  for (const std::string& notes : {std::string("bisepart"), std::string(200, '\xff'), std::string()}) {
    fs::remove_all(cache());
    fs::create_directories(repo() / "blobs");
    write_file(repo() / "blobs" / (etag + ".bise.incomplete"), std::string(weights_.size(), 'x'));
    write_file(repo() / "blobs" / (etag + ".bise.incomplete.pieces"), notes);
    expect_whole(download());
  }
}

TEST_F(Snapshots, AWrongChecksumIsTriedOnceMoreAndThenAnError) {
  std::string bad = weights_;
  bad[kPiece * 4] ^= 1;
  const std::string etag = sha256_hex(weights_), store = "/store/" + etag;
  hub_.trick(store, {.content = bad}, 11);
  expect_whole(download());
  fs::remove_all(cache());
  hub_.trick(store, {.content = bad}, 1000);
  const std::string message = refusal();
  for (const std::string& part : {std::string("checksum"), std::string("model.safetensors"), etag,
                                  sha256_hex(bad), std::string("expected"), std::string("got")})
    EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(repo() / "blobs" / etag));
  EXPECT_FALSE(fs::exists(repo() / "snapshots" / FakeHub::kCommit));
  fs::remove_all(cache());
  hub_.trick("config.json", {.content = "{\"a\": 2}"}, 1000);
  request_.include = {"config.json"};
  EXPECT_NE(refusal().find("checksum"), std::string::npos) << "git's checksum of small files too";
}

TEST_F(Snapshots, AWrongLengthIsAnError) {
  const std::string store = "/store/" + sha256_hex(weights_);
  const struct {
    const char* name;
    std::string part, include;
    Trick trick;
  } cases[] = {
      {"small and short", "config.json", "config.json", {.content = "{}"}},
      {"small and long", "config.json", "config.json", {.content = "{\"a\": 1} and more"}},
      {"small, long, without a length",
       "config.json",
       "config.json",
       {.cut_after = 1000, .content = "{\"a\": 1} and more"}},
      {"another size in the range", store, "model*", {.content = weights_ + "x"}},
      {"everything at once, and short",
       store,
       "model*",
       {.ignore_range = true, .content = weights_.substr(0, 5000)}},
  };
  for (const auto& test : cases) {
    fs::remove_all(cache());
    request_.include = {test.include};
    hub_.trick(test.part, test.trick, 2);
    const std::string message = refusal();
    EXPECT_NE(message.find("bytes"), std::string::npos) << test.name << ": " << message;
    EXPECT_NE(message.find("expected"), std::string::npos) << test.name << ": " << message;
    hub_.trick(test.part, {}, 0);
  }
}

TEST_F(Snapshots, OtherContentThanAsked) {
  const std::string store = "/store/" + sha256_hex(weights_);
  request_.include = {"model*"};
  hub_.trick(store, {.status = 206, .headers = {{"Content-Range", "bytes 5-9/655483"}}, .body = "12345"});
  EXPECT_NE(refusal().find("another range"), std::string::npos);
  hub_.trick(store, {.status = 200, .headers = {{"Content-Encoding", "gzip"}}, .body = "12345"});
  EXPECT_NE(refusal().find("encoded"), std::string::npos);
  hub_.trick("HEAD /", {.status = 200, .headers = {{"X-Linked-Etag", "\"" + std::string(64, 'a') + "\""}}});
  EXPECT_NE(refusal().find("disagree"), std::string::npos);
}

TEST_F(Snapshots, RefusalsAreInWords) {
  const struct {
    std::string part;
    Trick trick;
    std::vector<std::string> words;
  } cases[] = {
      {"/tree/",
       {.status = 403, .headers = {{"X-Error-Code", "GatedRepo"}}},
       {"gated", "conditions", "HF_TOKEN"}},
      {"/revision/",
       {.status = 401, .headers = {{"X-Error-Code", "RepoNotFound"}}},
       {"no such repository", "private", "HF_TOKEN", "401"}},
      {"/revision/",
       {.status = 403, .body = "{\"error\":\"no rights\\u0007\"}"},
       {"refused", "no rights", "403"}},
      {"/revision/",
       {.status = 404, .headers = {{"X-Error-Code", "RevisionNotFound"}}},
       {"no such revision", "main", "owner/tiny-model"}},
      {"config.json",
       {.status = 404, .headers = {{"X-Error-Code", "EntryNotFound"}}},
       {"config.json", "no such file"}},
      {"/revision/", {.status = 200, .body = "<html>"}, {"/revision/main"}},
      {"/revision/", {.status = 200, .body = "{\"sha\":\"../../x\"}"}, {"not a commit", "expected"}},
      {"/revision/", {.status = 307, .headers = {{"Location", "file:///etc/passwd"}}}, {"address"}},
  };
  for (const auto& test : cases) {
    fs::remove_all(cache());
    hub_.trick(test.part, test.trick);
    const std::string message = refusal();
    for (const std::string& word : test.words)
      EXPECT_NE(message.find(word), std::string::npos) << word << " in: " << message;
    EXPECT_EQ(message.find('\a'), std::string::npos);
  }
  request_.revision = "v9";
  EXPECT_NE(refusal().find("no such revision"), std::string::npos);
  request_.revision = "../../etc";
  EXPECT_NE(refusal().find("revision"), std::string::npos);
  for (const char* repo : {"", "a/b/c", "../x", "a//b", "/etc", "a--b/c", "-a/b", "a/b.git", "a b/c"}) {
    request_.repo = repo;
    EXPECT_NE(refusal().find("not the name of a repository"), std::string::npos) << repo;
  }
}

TEST_F(Snapshots, NobodyListens) {
  HubSettings settings = hub_.settings(cache());
  settings.endpoint = "http://127.0.0.1:1";
  settings.max_attempts = 2;
  HubClient client(settings);
  try {
    download_snapshot(client, request_, [](std::uint64_t, std::uint64_t) {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("127.0.0.1:1"), std::string::npos) << error.what();
  }
}

TEST_F(Snapshots, HostileNamesAreRefusedBeforeAnythingIsWritten) {
  const char* names[] = {"../x",
                         "a/../../x",
                         "/etc/passwd",
                         "a//b",
                         "a/./b",
                         "..",
                         "a\\u0000b",
                         "a\\u001bb",
                         "C:/x",
                         "a\\\\..\\\\b",
                         ".git/hooks/x",
                         "x/.git/y",
                         "",
                         "a/",
                         ".cache/huggingface/download/x.metadata"};
  for (const char* name : names) {
    FakeHub hub;
    hub.add_raw(fmt::format(R"({{"type":"file","oid":"{}","size":1,"path":"{}"}})", FakeHub::kCommit, name));
    HubClient client(hub.settings(cache()));
    try {
      download_snapshot(client, request_, [](std::uint64_t, std::uint64_t) {});
      ADD_FAILURE() << name << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("refused the name"), std::string::npos) << error.what();
    }
    EXPECT_FALSE(fs::exists(cache())) << name;
    EXPECT_EQ(hub.count("/resolve/"), 0u);
  }
}

TEST_F(Snapshots, MalformedListsAreErrors) {
  const std::string oid = FakeHub::kCommit;
  const std::vector<std::string> entries = {
      "1",
      "{}",
      R"({"type":"file","path":"a"})",
      R"({"type":"file","path":"a","size":-1,"oid":")" + oid + "\"}",
      R"({"type":"file","path":"a","size":9e18,"oid":")" + oid + "\"}",
      R"({"type":"file","path":"a","size":1,"oid":"../x"})",
      R"({"type":"file","path":"a","size":1,"oid":")" + oid + R"(","lfs":{"oid":"x","size":1}})",
      R"({"type":"file","path":"config.json","size":1,"oid":")" + oid + "\"}"};
  for (const std::string& entry : entries) {
    FakeHub hub;
    hub.add("config.json", "{}");
    hub.add_raw(entry);
    HubClient client(hub.settings(cache()));
    EXPECT_THROW(download_snapshot(client, request_, [](std::uint64_t, std::uint64_t) {}), Error) << entry;
  }
}

TEST_F(Snapshots, IncludeAndExclude) {
  request_.include = {"*.json", "nested/"};
  request_.exclude = {"tok*"};
  const Snapshot snapshot = download();
  EXPECT_EQ(snapshot.files, 2u);
  EXPECT_TRUE(fs::exists(snapshot.folder / "config.json"));
  EXPECT_TRUE(fs::exists(snapshot.folder / "nested/deep/readme.md"));
  EXPECT_FALSE(fs::exists(snapshot.folder / "tokenizer.json"));
  request_.include = {"*.gguf"};
  EXPECT_NE(refusal().find("none of the 4 files"), std::string::npos);
}

TEST_F(Snapshots, AFolderOfItsOwn) {
  request_.local_dir = scratch_.path() / "model";
  const Snapshot snapshot = download();
  expect_whole(snapshot);
  EXPECT_FALSE(fs::is_symlink(request_.local_dir / "model.safetensors"));
  EXPECT_FALSE(fs::exists(repo())) << "the cache is not used";
  const fs::path notes = request_.local_dir / ".cache/huggingface/download/model.safetensors.metadata";
  EXPECT_TRUE(
      read_file(notes).starts_with(std::string(FakeHub::kCommit) + "\n" + sha256_hex(weights_) + "\n"));
  const std::size_t before = hub_.count("/store/");
  expect_whole(download());
  EXPECT_EQ(hub_.count("/store/"), before);
  // A file that was changed since is brought again; one with the right content but no notes is kept.
  std::ofstream(request_.local_dir / "tokenizer.json", std::ios::app) << "x";
  fs::remove(notes);
  expect_whole(download());
  EXPECT_EQ(hub_.count("/store/"), before + 1);
}

TEST_F(Snapshots, AFolderNeverLooksComplete) {
  request_.local_dir = scratch_.path() / "model";
  hub_.trick("GET /store/" + sha256_hex(weights_), {.status = 404}, 1000);
  EXPECT_NE(refusal().find("model.safetensors"), std::string::npos);
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"})
    EXPECT_FALSE(fs::exists(request_.local_dir / name)) << name;
}

TEST_F(Snapshots, AFolderTakesFromTheCache) {
  download();
  const std::size_t before = hub_.count("/resolve/");
  request_.local_dir = scratch_.path() / "model";
  expect_whole(download());
  EXPECT_EQ(hub_.count("/resolve/"), before);
}

TEST_F(Snapshots, TwoAtOnceBringEverythingOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back([&] { download(); });
  for (std::thread& thread : threads) thread.join();
  expect_whole(download());
  EXPECT_EQ(hub_.count("GET /store/" + sha256_hex(weights_)), 11u);
}

TEST_F(Snapshots, NoRoomOnTheDiskIsSaidBeforeAnythingIsAskedFor) {
  hub_.add_raw(fmt::format(R"({{"type":"file","oid":"{}","size":{},"path":"big"}})", FakeHub::kCommit,
                           std::uint64_t{1} << 39));
  const std::uintmax_t room = fs::space(scratch_.path()).available;
  if (room > std::uint64_t{1} << 39) GTEST_SKIP() << "this disk has room for it";
  const std::string message = refusal();
  EXPECT_NE(message.find("not enough room"), std::string::npos) << message;
  EXPECT_EQ(hub_.count("/resolve/"), 0u);
}

TEST_F(Snapshots, ADiskThatIsFullMeanwhileIsAnError) {
  // A limit on the size of files fails the same write; its signal would end the program.
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit limit{3 * kPiece, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &limit);
  const std::string message = refusal();
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, before);
  EXPECT_NE(message.find("cannot write"), std::string::npos) << message;
  EXPECT_NE(message.find("blobs"), std::string::npos) << message;
  expect_whole(download());
}

TEST_F(Snapshots, Offline) {
  offline_ = true;
  EXPECT_NE(refusal().find("HF_HUB_OFFLINE"), std::string::npos);
  offline_ = false;
  download();
  offline_ = true;
  const std::size_t before = hub_.seen().size();
  expect_whole(download());
  EXPECT_EQ(hub_.seen().size(), before);
  fs::remove(repo() / "snapshots" / FakeHub::kCommit / "config.json");
  EXPECT_NE(refusal().find("not complete"), std::string::npos);
}

TEST_F(Snapshots, AModelIsFoundByItsName) {
  const HubCache found(cache());
  const auto missing = [&](const std::string& revision) {
    try {
      found.find_model(FakeHub::kRepo, revision);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("found");
  };
  EXPECT_NE(missing("main").find("bise download owner/tiny-model"), std::string::npos) << missing("main");
  const Snapshot snapshot = download();
  EXPECT_EQ(found.find_model(FakeHub::kRepo, "main"), snapshot.folder);
  EXPECT_EQ(found.find_model(FakeHub::kRepo, FakeHub::kCommit), snapshot.folder);
  EXPECT_NE(missing("v2").find("--revision v2"), std::string::npos);
  request_.revision = "refs/pr/1";
  download();
  EXPECT_EQ(read_file(repo() / "refs/refs/pr/1"), FakeHub::kCommit);
  write_file(repo() / "refs" / "main", "../../../etc");
  EXPECT_NE(missing("main").find("damaged"), std::string::npos);
}

}  // namespace
}  // namespace bise
