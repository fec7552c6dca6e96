// Names, wildcards and the small formats of the hub, as tables.
#include "hub/names.h"

#include <gtest/gtest.h>

#include <ctime>

#include "base/error.h"
#include "base/files.h"
#include "hub/digest.h"
#include "hub/file_pattern.h"
#include "hub/hub_client.h"
#include "hub/partial_file.h"
#include "hub/repository.h"
#include "tests/test_support.h"

namespace bise {
namespace {

TEST(HubNames, RepositoryIds) {
  for (const char* good : {"gpt2", "mistralai/Ministral-8B-Instruct-2410", "a/b", "A_1/b.c-d", "_a/b_"})
    EXPECT_TRUE(is_repo_id(good)) << good;
  const std::string long_name(97, 'a');
  for (const std::string& bad :
       {std::string(), std::string("a/b/c"), std::string("a/"), std::string("/a"), std::string(".a/b"),
        std::string("a/b-"), std::string("a..b"), std::string("a--b"), std::string("a/b.git"),
        std::string("a b"), std::string("a/b@c"), std::string("é/b"), long_name})
    EXPECT_FALSE(is_repo_id(bad)) << bad;
  EXPECT_EQ(repo_folder_name(RepoType::kModel, "a/b"), "models--a--b");
  EXPECT_EQ(repo_folder_name(RepoType::kDataset, "gsm8k"), "datasets--gsm8k");
}

TEST(HubNames, WildcardsArePythons) {
  // Python 3.11: fnmatch.fnmatchcase(name, pattern)
  const struct {
    const char *name, *pattern;
    bool matches;
  } cases[] = {
      {"a.json", "*.json", true},
      {"dir/a.json", "*.json", true},
      {"dir/a.json", "dir/*", true},
      {"dir/a.json", "dir/", false},
      {"a.JSON", "*.json", false},
      {"a.json", "?.json", true},
      {"ab.json", "?.json", false},
      {"é.json", "?.json", true},
      {"a1", "a[0-9]", true},
      {"ax", "a[!0-9]", true},
      {"a]", "a[]]", true},
      {"a-", "a[a-]", true},
      {"a[", "a[", true},
      {"a[b", "a[b", true},
      {"abc", "a*c", true},
      {"abcbd", "a*b*d", true},
      {"aaaa", "*a*a*a*b", false},
      {"", "*", true},
      {"", "?", false},
      {"x\ny", "x*y", true},
      {"a.b", "a.b", true},
      {"axb", "a.b", false},
      {"b", "[c-a]", false},
      {"b", "[!c-a]", true},
      {"é", "[à-ï]", true},
      {"a!", "a[!]", false},
      {"a^", "a[^b]", true},
      {"ac", "a[^b]", false},
  };
  for (const auto& test : cases)
    EXPECT_EQ(matches_pattern(test.name, test.pattern), test.matches) << test.name << " " << test.pattern;
  EXPECT_FALSE(matches_pattern(std::string(5000, 'a'), "*a*a*a*a*a*a*b")) << "and in time";
  EXPECT_TRUE(is_selected("dir/x", {"dir/"}, {}));
  EXPECT_TRUE(is_selected("dir/x", {"dir\\*"}, {}));
  EXPECT_FALSE(is_selected("dir/x", {}, {"dir/"}));
  EXPECT_FALSE(is_selected("x", {"y"}, {}));
}

TEST(HubNames, Checksums) {
  // echo -n abc | sha256sum; echo -n abc | git hash-object --stdin
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const ScratchFolder scratch;
  write_file(scratch.path() / "f", "abc");
  EXPECT_EQ(content_etag(scratch.path() / "f", std::string(40, '0')),
            "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f");
  EXPECT_EQ(sha256_file(scratch.path() / "f"), sha256_hex("abc"));
  EXPECT_THROW(sha256_file(scratch.path() / "absent"), Error);
}

TEST(HubNames, WaitsThatServersAskFor) {
  std::tm parts{};
  parts.tm_year = 126, parts.tm_mon = 9, parts.tm_mday = 21, parts.tm_hour = 7, parts.tm_min = 28;
  const std::int64_t then = ::timegm(&parts);
  const struct {
    const char *name, *value;
    double seconds;
  } cases[] = {
      {"Retry-After", "120", 120},
      {"Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT", 60},
      {"Retry-After", "Wed, 21 Oct 2020 07:28:00 GMT", 0},
      {"Retry-After", "soon", 0},
      {"Retry-After", "-5", 0},
      {"Retry-After", "99999999999999999999", 0},
      {"RateLimit", "\"api\";r=0;t=55", 55},
      {"RateLimit", "\"api\" ; r=0; t=55", 55},
      {"RateLimit", "\"api\";r=3;t=55", 0},
      {"RateLimit", "x", 0},
  };
  for (const auto& test : cases)
    EXPECT_EQ(asked_wait(HttpHeaders{{test.name, test.value}}, then - 60), test.seconds) << test.value;
}

TEST(HubNames, LinksToTheNextPage) {
  EXPECT_EQ(next_link("<https://h/a?cursor=b>; rel=\"next\""), "https://h/a?cursor=b");
  EXPECT_EQ(next_link("<https://h/first>; rel=\"first\", <https://h/n>; rel=\"next\""), "https://h/n");
  for (const char* none : {"", "<", "<a", "a>; rel=\"next\"", "<https://h/x>; rel=\"last\""})
    EXPECT_EQ(next_link(none), "") << none;
}

TEST(HubNames, TheListOfFilesIsKeptAsHuggingfaceHubKeepsIt) {
  const HubFile small{"config.json", 5, std::string(40, 'a'), "", ""};
  const HubFile large{"model.safetensors", 7, std::string(40, 'b'), std::string(64, 'c'),
                      std::string(64, 'd')};
  const auto again = parse_tree_cache(tree_cache_text({small, large}));
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[1].etag(), large.lfs_sha256);
  EXPECT_EQ(again[1].xet_hash, large.xet_hash);
  EXPECT_EQ(again[0].etag(), small.blob_id);
  EXPECT_TRUE(parse_tree_cache("{\"format_version\": 2, \"files\": {}}").empty());
  EXPECT_TRUE(parse_tree_cache("x").empty());
}

TEST(HubNames, PiecesOfAFile) {
  const ScratchFolder scratch;
  const auto path = scratch.path() / "f";
  {
    PartialFile file(path, 25, 10);
    ASSERT_EQ(file.pieces(), 3u);
    EXPECT_EQ(file.end(2), 25u);
    file.write(10, "0123456789ab");  // a whole piece and the beginning of the next
    file.write(0, "xyz");
    EXPECT_EQ(file.next(0), 3u);
    EXPECT_EQ(file.next(1), 20u);
    EXPECT_EQ(file.next(2), 22u);
    EXPECT_FALSE(file.complete());
  }
  EXPECT_EQ(PartialFile::bytes_present(path, 25, 10), 15u);
  EXPECT_EQ(PartialFile::bytes_present(path, 25, 11), 0u) << "other pieces";
  PartialFile file(path, 25, 10);
  file.write(3, "0123456");
  file.write(22, "cde");
  EXPECT_TRUE(file.complete());
  file.close();
  EXPECT_EQ(read_file(path), "xyz01234560123456789abcde");
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".pieces"));
  EXPECT_THROW(PartialFile(scratch.path() / "absent" / "f", 1, 1), Error);
  EXPECT_THROW(PartialFile(path, std::uint64_t{1} << 62, 1), Error);
}

}  // namespace
}  // namespace bise
