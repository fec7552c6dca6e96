// Parsers of hub/ on mutated input: success or Error, nothing else.
#include <gtest/gtest.h>

#include <functional>

#include "base/clock.h"
#include "base/error.h"
#include "hub/dataset_rows.h"
#include "hub/file_pattern.h"
#include "hub/hub_client.h"
#include "hub/partial_file.h"
#include "hub/repository.h"
#include "tests/formats/mutate.h"

namespace bise {
namespace {

// Runs `use` on mutations of the seeds; it says whether it accepted them, which it must do with the seeds.
void fuzz(const std::vector<std::string>& seeds, const std::function<bool(const std::string&)>& use) {
  std::mt19937 random(20261121);
  const auto accepts = [&](const std::string& text) {
    try {
      return use(text);
    } catch (const Error&) {
      return false;
    }
  };
  for (const std::string& seed : seeds) EXPECT_TRUE(accepts(seed)) << seed;
  int refused = 0, accepted = 0;
  const Stopwatch watch;
  for (int i = 0; i < 40000 && watch.seconds() < 1; ++i)
    ++(accepts(mutated(seeds[random() % seeds.size()], random)) ? accepted : refused);
  EXPECT_GT(refused, 20);
  EXPECT_GT(accepted, 0);
}

const std::string kOid(40, 'a'), kSha(64, 'b');

TEST(HubFuzz, TreePage) {
  fuzz({R"([{"type":"directory","path":"d"},{"type":"file","path":"d/x.json","size":12,"oid":")" + kOid +
        R"("},{"type":"file","path":"w","size":134,"oid":")" + kOid + R"(","xetHash":")" + kSha +
        R"(","lfs":{"oid":")" + kSha + R"(","size":123456,"pointerSize":134}}])"},
       [](const std::string& text) {
         for (const HubFile& file : parse_tree_page(text, "fuzz")) {
           EXPECT_FALSE(file.path.starts_with('/'));
           EXPECT_EQ(("/" + file.path + "/").find("/../"), std::string::npos) << file.path;
           EXPECT_EQ(file.path.find('\0'), std::string::npos);
           EXPECT_EQ(file.etag().find_first_not_of("0123456789abcdef"), std::string::npos);
         }
         return true;
       });
}

TEST(HubFuzz, CommitAndTreeCache) {
  fuzz({R"({"id":"a/b","sha":")" + kOid + R"(","siblings":[{"rfilename":"x"}]})"},
       [](const std::string& text) {
         EXPECT_TRUE(is_commit_hash(parse_commit(text, "fuzz")));
         return true;
       });
  const HubFile file{"d/w", 7, kOid, kSha, kSha};
  fuzz({tree_cache_text({file})}, [](const std::string& text) { return !parse_tree_cache(text).empty(); });
}

TEST(HubFuzz, Rows) {
  fuzz({R"({"features":[{"name":"q"}],"rows":[{"row_idx":200,"row":{"q":"é","n":[1,2.5,null]},)"
        R"("truncated_cells":[]},{"row_idx":201,"row":{"q":"","n":[]}}],"num_rows_total":1319,)"
        R"("num_rows_per_page":100,"partial":false})"},
       [](const std::string& text) {
         for (const std::string& row : parse_rows_page(text, 200, "fuzz").rows)
           EXPECT_EQ(row.find('\n'), std::string::npos);
         return true;
       });
  fuzz({R"({"splits":[{"dataset":"a/b","config":"main","split":"train"}],"pending":[],"failed":[]})"},
       [](const std::string& text) {
         for (const DatasetSplit& split : parse_splits(text, "fuzz"))
           EXPECT_EQ(split.split.find('\0'), std::string::npos);
         return true;
       });
}

TEST(HubFuzz, NotesOnPieces) {
  std::string notes = "bisepart";
  for (const std::uint64_t word :
       {std::uint64_t{25}, std::uint64_t{10}, std::uint64_t{10}, std::uint64_t{3}, std::uint64_t{0}})
    notes.append(reinterpret_cast<const char*>(&word), 8);
  fuzz({notes}, [](const std::string& bytes) {
    const auto done = parse_piece_journal(bytes, 25, 10);
    if (!done) return false;
    EXPECT_EQ(done->size(), 3u);
    EXPECT_LE((*done)[2], 5u);
    return true;
  });
}

TEST(HubFuzz, FieldsAndPatterns) {
  fuzz({"<https://huggingface.co/api/models/a/b/tree/main?cursor=abc>; rel=\"next\""},
       [](const std::string& text) { return !next_link(text).empty(); });
  fuzz({"Wed, 21 Oct 2026 07:28:00 GMT", "120"}, [](const std::string& text) {
    return asked_wait(HttpHeaders{{"retry-after", text}}, 0) > 0;
  });
  fuzz({"mod[a-z]l*.safe?ensors"},
       [](const std::string& pattern) { return matches_pattern("model-1.safetensors", pattern); });
}

}  // namespace
}  // namespace bise
