// Stop strings while text streams: what may begin one is held back, and the answer ends before it.
#include <gtest/gtest.h>

#include "cli/text_request.h"
#include "tests/test_support.h"

namespace bise {
namespace {

struct Case {
  const char* text;
  std::vector<std::string> stop;
  const char* expected;
  bool stopped;
};

TEST(AnswerText, EndsBeforeTheFirstStopString) {
  BISE_SKIP_IF_ABSENT(smollm2_path(), "build/models/smollm2");
  const auto tokenizer = Tokenizer::load(smollm2_path());
  const std::vector<Case> cases = {
      {"one two three", {}, "one two three", false}, {"one two three", {"two"}, "one ", true},
      {"one two three", {"tw", "e t"}, "on", true},  {"one two three", {"three!"}, "one two three", false},
      {"one\n\ntwo", {"\n\n"}, "one", true},         {"aab aab aac", {"aac"}, "aab aab ", true}};
  for (const Case& test : cases) {
    AnswerText answer(*tokenizer, test.stop);
    std::string streamed;
    for (const std::int32_t id : tokenizer->encode(test.text)) {
      streamed += answer.push(id);
      if (answer.stopped()) break;
    }
    streamed += answer.finish();
    EXPECT_EQ(streamed, test.expected) << test.text;
    EXPECT_EQ(answer.text(), test.expected);
    EXPECT_EQ(answer.stopped(), test.stopped) << test.text;
  }
}

}  // namespace
}  // namespace bise
