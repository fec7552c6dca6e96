// Structured output through the service: each kind of constraint holds, and begins where it should.
#include <gtest/gtest.h>

#include <thread>

#include "serve/grammar_constraint.h"
#include "tests/serve/test_service.h"

namespace bise {
namespace {

// The scripts want something that the constraint does not let through, or go on behind its end.
TEST(StructuredOutput, EveryKindHolds) {
  struct Case {
    const char* fields;
    const char* script;
    const char* text;
  };
  for (const Case& test : std::vector<Case>{
           {R"("structured_outputs": {"choice": ["yes", "no"]})", "no, never", "no"},
           {R"("structured_outputs": {"regex": "[0-9]{2}-x"})", "42-y7", "42-x"},
           {R"("structured_outputs": {"grammar": "root ::= \"a\" \"b\"+ \"c\""})", "abbcc", "abbc"},
           {R"("structured_outputs": {"json": {"type": "object", "properties": {"n": {"type": "integer"}},
               "required": ["n"]}})",
            R"({"n":5}x)", R"({"n":5})"},
           {R"("structured_outputs": {"json": "{\"type\": \"boolean\"}"})", "true!", "true"},
           {R"("structured_outputs": {"json_object": true})", R"({"a":[1]}]])", R"({"a":[1]})"},
           {R"("response_format": {"type": "json_object"})", R"({"a":1}})", R"({"a":1})"},
           {R"("response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": true,
               "schema": {"enum": ["red", "green"]}}})",
            R"("red" )", R"("red")"}}) {
    TestService service({.script = test.script});
    const std::string fields = std::string(test.fields) + R"(, "temperature": 0, "max_tokens": 50)";
    const Json completion =
        Json::parse(service.ask("/v1/completions", R"({"prompt": "x", )" + fields + "}").body);
    EXPECT_EQ(completion["choices"][0]["text"], test.text) << completion.dump();
    EXPECT_EQ(completion["choices"][0]["finish_reason"], "stop");
    const Json chat =
        Json::parse(service
                        .ask("/v1/chat/completions",
                             R"({"messages": [{"role": "user", "content": "x"}], )" + fields + "}")
                        .body);
    EXPECT_EQ(chat["choices"][0]["message"]["content"], test.text) << chat.dump();
  }
}

TEST(StructuredOutput, BeginsAfterTheThought) {
  const auto reason = [](ServedModel& model) { model.chat_output.reasoning_parser = "mistral"; };
  const std::string body = R"({"messages": [{"role": "user", "content": "x"}], "temperature": 0,
    "structured_outputs": {"choice": ["yes", "no"]}})";
  const auto message = [&](const std::string& script) {
    TestService service({.version = 13, .script = script, .change = reason});
    return Json::parse(service.ask("/v1/chat/completions", body).body)["choices"][0]["message"];
  };
  const Json thoughtful = message("[THINK]maybe, maybe[/THINK]no way");
  EXPECT_EQ(thoughtful["reasoning"], "maybe, maybe");
  EXPECT_EQ(thoughtful["content"], "no");
  EXPECT_EQ(message("yes")["content"], "yes");
}

TEST(StructuredOutput, OneGrammarServesManyChoices) {
  TestService service({.script = "no"});
  const Json answer = Json::parse(
      service
          .ask(
              "/v1/completions",
              R"({"prompt": ["x", "y"], "n": 3, "temperature": 1, "structured_outputs": {"regex": "a{3}|no"}})")
          .body);
  ASSERT_EQ(answer["choices"].size(), 6u) << answer.dump();
  for (const Json& choice : answer["choices"]) EXPECT_EQ(choice["text"], "no");
}

// The engine takes guesses back: the constraint must then say what it said before.
TEST(GrammarConstraint, RollsBackThroughEveryPhase) {
  const TestService service({.version = 13});
  const Tokenizer& tokenizer = service.tokenizer();
  const auto trie = TokenTrie::build(tokenizer, tokenizer.vocab_size());
  ConstraintStart start = thinking_start(false, tokenizer);
  start.prefix = {*tokenizer.id_of("[TOOL_CALLS]")};
  const std::vector<std::string> choices = {"yes", "no"};
  GrammarConstraint constraint(Matcher(compile_choice(choices), trie, {2}), trie, start);
  const auto path = tokenizer.encode("[THINK]a b[/THINK][TOOL_CALLS]no</s>", {.add_special_tokens = false});
  std::vector<std::vector<std::uint32_t>> masks;
  const auto mask = [&](TokenConstraint& of) {
    std::vector<std::uint32_t> bits(trie->mask_words());
    of.fill_mask(bits);
    return bits;
  };
  for (const std::int32_t token : path) {
    masks.push_back(mask(constraint));
    EXPECT_TRUE(masks.back()[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1) << token;
    ASSERT_TRUE(constraint.accept(token));
  }
  for (std::size_t back = 1; back <= path.size(); ++back) {
    const auto copy = constraint.clone();
    copy->rollback(static_cast<std::int64_t>(back));
    const std::size_t at = path.size() - back;
    EXPECT_EQ(mask(*copy), masks[at]) << back;
    for (std::size_t i = at; i < path.size(); ++i) ASSERT_TRUE(copy->accept(path[i])) << back << " " << i;
  }
  // Nothing but a thought or the mark at the start.
  const auto fresh =
      std::make_unique<GrammarConstraint>(Matcher(compile_choice(choices), trie, {2}), trie, start);
  EXPECT_FALSE(fresh->accept(117));
}

}  // namespace
}  // namespace bise
