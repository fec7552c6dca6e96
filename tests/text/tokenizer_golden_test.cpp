// Every id and every decoded text of the Python peers: mistral-common over the tokenizer files that its
// wheel carries, transformers over SmolLM2.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "tests/test_support.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace bise {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;

// The wheel mistral_common-1.13.1, unpacked under build/models/mistral_common of the source tree.
fs::path wheel_path(const std::string& file) {
  const fs::path path = source_root() / "build" / "models" / "mistral_common" / file;
  return fs::exists(path) ? path : fs::path();
}

// Whole decoding, and the stream's text after every token: never half a character, and nothing that is
// taken back later.
void expect_decodes(const Tokenizer& tokenizer, const Ids& ids, const std::string& expected,
                    bool skip_special) {
  EXPECT_EQ(tokenizer.decode(ids, skip_special), expected);
  StreamDetokenizer stream(tokenizer, skip_special);
  std::string text;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::string fresh = stream.push(ids[i]);
    EXPECT_EQ(json_text(Json(fresh)), Json(fresh).dump()) << "half a character at token " << i;
    text += fresh;
    EXPECT_TRUE(expected.starts_with(text)) << "taken back after token " << i;
    if (i % 7 == 0) {
      const std::span<const std::int32_t> head(ids.data(), i + 1);
      EXPECT_TRUE(tokenizer.decode(head, skip_special).starts_with(text)) << "at token " << i;
    }
  }
  text += stream.flush();
  EXPECT_EQ(text, expected);
  EXPECT_EQ(stream.flush(), "");
}

struct MistralCase {
  const char* golden;
  const char* config_version;  // replaces the file's own, when not null
};

class MistralTokenizerTest : public testing::TestWithParam<MistralCase> {};

TEST_P(MistralTokenizerTest, AgreesWithMistralCommonOnEveryString) {
  const fs::path golden_path = shared_path(std::string("golden/tokenizers/") + GetParam().golden + ".json");
  BISE_SKIP_IF_ABSENT(golden_path, "golden/tokenizers");
  const Json golden = read_json_file(golden_path);
  const Json strings = read_json_file(shared_path("golden/tokenizers/strings.json"));
  const std::string source = golden["info"]["wheel_path"].get<std::string>();  // "PATH" or "PATH with ..."
  fs::path file = wheel_path(source.substr(0, source.find(' ')));
  BISE_SKIP_IF_ABSENT(file, "the unpacked wheel mistral_common-1.13.1");
  const ScratchFolder scratch;
  if (GetParam().config_version) {
    std::string content = read_file(file);
    const std::string own = "\"version\": \"v3\"";
    ASSERT_NE(content.find(own), std::string::npos);
    content.replace(content.find(own), own.size(),
                    std::string("\"version\": \"") + GetParam().config_version + "\"");
    file = scratch.path() / "tekken.json";
    write_file(file, content);
  }
  const auto tokenizer = Tokenizer::load_file(file);
  ASSERT_EQ(strings.size(), golden["ids"].size());
  EXPECT_EQ(tokenizer->vocab_size(), golden["info"]["n_words"].get<int>());
  EXPECT_EQ(tokenizer->bos_token_id(), golden["info"]["bos"].get<int>());
  EXPECT_EQ(tokenizer->eos_token_id(), golden["info"]["eos"].get<int>());
  for (std::size_t i = 0; i < strings.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "string " << i);
    const std::string text = strings[i].get<std::string>();
    const Ids expected = golden["ids"][i].get<Ids>();
    EXPECT_EQ(tokenizer->encode(text, {.add_special_tokens = false, .parse_special = false}), expected);
    const Json& differs = golden["decoded_differs"];
    const auto decoded = differs.find(std::to_string(i));
    expect_decodes(*tokenizer, expected, decoded == differs.end() ? text : decoded->get<std::string>(), true);
    // As untrusted parts of a chat, cut anywhere: the same ids.
    std::size_t cut = text.size() / 2;
    while (cut < text.size() && (text[cut] & 0xC0) == 0x80) ++cut;
    const TextSegment halves[] = {{text.substr(0, cut), false}, {text.substr(cut), false}};
    EXPECT_EQ(tokenizer->encode_segments(halves), expected);
  }
  Ids with_bos = tokenizer->encode(strings[0].get<std::string>());
  with_bos.push_back(*tokenizer->eos_token_id());
  EXPECT_EQ(with_bos, golden["bos_eos_ids_of_string_0"].get<Ids>());
}

INSTANTIATE_TEST_SUITE_P(Files, MistralTokenizerTest,
                         testing::Values(MistralCase{"spm_v1", nullptr}, MistralCase{"spm_v2", nullptr},
                                         MistralCase{"spm_v3", nullptr}, MistralCase{"spm_v7", nullptr},
                                         MistralCase{"tekken_v3", nullptr}, MistralCase{"tekken_v7", "v7"}),
                         [](const auto& info) { return std::string(info.param.golden); });

TEST(Smollm2TokenizerTest, AgreesWithTransformersOnEveryString) {
  const fs::path golden_path = shared_path("golden/smollm2/tokenize.json");
  BISE_SKIP_IF_ABSENT(golden_path, "golden/smollm2");
  const fs::path model = smollm2_path();
  BISE_SKIP_IF_ABSENT(model, "the SmolLM2 checkpoint");
  const auto tokenizer = Tokenizer::load(model);
  EXPECT_EQ(tokenizer->vocab_size(), 49152);
  EXPECT_EQ(tokenizer->eos_token_id(), 2);
  const Json golden = read_json_file(golden_path);
  EXPECT_EQ(golden["strings"].size(), 212u);
  for (const Json& entry : golden["strings"]) {
    const std::string text = entry["text"].get<std::string>();
    SCOPED_TRACE(text);
    const Ids expected = entry["ids"].get<Ids>();
    EXPECT_EQ(tokenizer->encode(text, {.add_special_tokens = false}), expected);
    EXPECT_EQ(tokenizer->encode(text), expected) << "this tokenizer adds neither BOS nor EOS";
    expect_decodes(*tokenizer, expected, entry["decoded"].get<std::string>(), false);
    const Ids plain = entry.value("ids_no_special", expected);
    EXPECT_EQ(tokenizer->encode(text, {.parse_special = false}), plain);
    for (const std::int32_t id : plain) EXPECT_FALSE(tokenizer->is_special(id));
  }
}

}  // namespace
}  // namespace bise
