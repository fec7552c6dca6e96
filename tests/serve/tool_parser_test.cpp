// Tool calls and reasoning in text that comes in pieces of any size.
#include "serve/tool_parser.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "serve/reasoning_parser.h"

namespace bise {
namespace {

using Form = ToolParser::Form;

struct Call {
  std::string name, arguments;
  bool operator==(const Call&) const = default;
};
void PrintTo(const Call& call, std::ostream* out) {
  *out << call.name << "(" << call.arguments << ")";
}

struct Case {
  Form form;
  std::string text, content;
  std::vector<Call> calls;
};

const std::vector<Case> kCases = {
    {Form::kMarked, "just text", "just text", {}},
    {Form::kMarked, "", "", {}},
    {Form::kMarked, "[TOOL_CAL", "[TOOL_CAL", {}},
    // Before v11.
    {Form::kMarked,
     R"([TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": [2, "}]"]}}])",
     "",
     {{"add", R"({"a": 1, "b": [2, "}]"]})"}}},
    {Form::kMarked,
     R"(Let me see. [TOOL_CALLS][{"name":"f","arguments":{}},{"name":"g","arguments":{"x":"\"]"}}] bye)",
     "Let me see. ",
     {{"f", "{}"}, {"g", R"({"x":"\"]"})"}}},
    {Form::kMarked,
     R"([TOOL_CALLS] [{"arguments": {"x": 1}, "name": "late", "id": "q"}])",
     "",
     {{"late", R"({"x": 1})"}}},
    {Form::kMarked, R"([TOOL_CALLS] [{"name": "s", "arguments": "{\"x\": 1}"}])", "", {{"s", R"({"x": 1})"}}},
    {Form::kMarked,
     R"([TOOL_CALLS]{"name": "one", "arguments": {"x": null}})",
     "",
     {{"one", R"({"x": null})"}}},
    {Form::kMarked,
     R"([TOOL_CALLS] [{"name": "na\u0041me", "arguments": {"x": -1.5e3}, "more": [1, {"y": 2}]}])",
     "",
     {{"naAme", R"({"x": -1.5e3})"}}},
    // v11 and later.
    {Form::kMarked, R"([TOOL_CALLS]add[ARGS]{"a": 1})", "", {{"add", R"({"a": 1})"}}},
    {Form::kMarked, R"([TOOL_CALLS]add{"a": {"b": "{"}})", "", {{"add", R"({"a": {"b": "{"}})"}}},
    {Form::kMarked,
     R"(Hm.[TOOL_CALLS]a[CALL_ID]abcdefghi[ARGS]{"x": 1}ignored[TOOL_CALLS]b[ARGS]{} )",
     "Hm.",
     {{"a", R"({"x": 1})"}, {"b", "{}"}}},
    // A mark and no call.
    {Form::kMarked, "x[TOOL_CALLS]nothing follows", "x[TOOL_CALLS]nothing follows", {}},
    // Cut off inside.
    {Form::kMarked, R"([TOOL_CALLS]add[ARGS]{"a": [1, )", "", {{"add", R"({"a": [1, )"}}},
    {Form::kArray,
     R"([{"name": "f", "parameters": {"x": 1}}, {"name": "g", "parameters": {}}])",
     "",
     {{"f", R"({"x": 1})"}, {"g", "{}"}}},
    {Form::kArray, R"([TOOL_CALLS] [{"name": "f", "arguments": {}}])", "", {{"f", "{}"}}},
    {Form::kArray, "", "", {}},
    {Form::kArguments, R"( {"x": {"y": [1]}} )", "", {{"named", R"({"x": {"y": [1]}})"}}},
};

TEST(ToolParser, FindsCallsWhateverThePieces) {
  for (const Case& test : kCases) {
    for (std::size_t size = 1; size <= test.text.size() + 1; ++size) {
      ToolParser parser(test.form, "named");
      std::string content;
      std::vector<Call> calls;
      std::vector<std::string> ids;
      const auto take = [&](std::vector<ToolCallPiece>& pieces) {
        for (ToolCallPiece& piece : pieces) {
          if (piece.index == calls.size()) {
            calls.push_back({piece.name, ""});
            ids.push_back(piece.id);
          } else {
            EXPECT_EQ(piece.index + 1, calls.size());
            EXPECT_TRUE(piece.id.empty() && piece.name.empty()) << "the first piece alone names the call";
          }
          calls[piece.index].arguments += piece.arguments;
        }
        pieces.clear();
      };
      std::vector<ToolCallPiece> pieces;
      for (std::size_t at = 0; at < test.text.size(); at += size) {
        parser.push(std::string_view(test.text).substr(at, size), content, pieces);
        take(pieces);
      }
      parser.finish(content, pieces);
      take(pieces);
      EXPECT_EQ(content, test.content) << test.text << " by " << size;
      EXPECT_EQ(calls, test.calls) << test.text << " by " << size;
      EXPECT_EQ(parser.calls(), test.calls.size());
      for (const std::string& id : ids) {
        EXPECT_EQ(id.size(), 9u);
        EXPECT_TRUE(std::all_of(id.begin(), id.end(), [](char c) { return std::isalnum(c) != 0; }));
      }
    }
  }
}

TEST(ToolParser, StreamsArgumentsAsTheyCome) {
  ToolParser parser(Form::kMarked);
  std::string content;
  std::vector<ToolCallPiece> pieces;
  parser.push(R"([TOOL_CALLS] [{"name": "f", "arguments": {"a": )", content, pieces);
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].name, "f");
  EXPECT_EQ(pieces[0].arguments, R"({"a": )");
  pieces.clear();
  parser.push("12", content, pieces);
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].arguments, "12");
  EXPECT_EQ(pieces[0].id, "");
}

TEST(ToolParser, KeepsTheIdThatTheModelGives) {
  ToolParser parser(Form::kMarked);
  std::string content;
  std::vector<ToolCallPiece> pieces;
  parser.push("[TOOL_CALLS]f[CALL_ID]abcDEF123[ARGS]{}", content, pieces);
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].id, "abcDEF123");
}

struct Found {
  std::string content;
  std::vector<Call> calls;
  bool operator==(const Found&) const = default;
};

Found parse(Form form, const std::string& text, const std::function<std::size_t()>& next_size) {
  ToolParser parser(form, "named");
  Found found;
  std::vector<ToolCallPiece> pieces;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = next_size();
    parser.push(std::string_view(text).substr(at, size), found.content, pieces);
    at += size;
  }
  parser.finish(found.content, pieces);
  for (const ToolCallPiece& piece : pieces) {
    if (piece.index == found.calls.size()) found.calls.push_back({piece.name, ""});
    found.calls.at(piece.index).arguments += piece.arguments;
  }
  return found;
}

TEST(ToolParser, AnyTextIsReadTheSameWhateverThePieces) {
  const std::vector<std::string> fragments = {"[TOOL_CALLS]",
                                              "[ARGS]",
                                              "[CALL_ID]",
                                              "[",
                                              "]",
                                              "{",
                                              "}",
                                              "\"name\"",
                                              "\"arguments\"",
                                              ":",
                                              ",",
                                              "\"f\"",
                                              " ",
                                              "\"",
                                              "\\",
                                              "1",
                                              "null",
                                              "x",
                                              "[TOOL",
                                              "{\"name\": \"g\", \"arguments\": {\"a\": [1]}}"};
  std::mt19937 random(3);
  for (int i = 0; i < 20000; ++i) {
    std::string text = i % 2 == 0 ? "[TOOL_CALLS]" : "";
    for (std::size_t count = random() % 12; count > 0; --count)
      text += fragments[random() % fragments.size()];
    const Form form = i % 5 == 0 ? Form::kArray : i % 7 == 0 ? Form::kArguments : Form::kMarked;
    const Found whole = parse(form, text, [&] { return text.size(); });
    EXPECT_EQ(parse(form, text, [] { return 1; }), whole) << text;
    EXPECT_EQ(parse(form, text, [&] { return 1 + random() % 5; }), whole) << text;
  }
}

struct Thought {
  bool open;
  std::string text, reasoning, content;
};

TEST(ReasoningParser, SplitsThoughtsOffWhateverThePieces) {
  for (const Thought& test :
       std::vector<Thought>{{false, "no thought", "", "no thought"},
                            {false, "[THINK]hm, 2 < 3[/THINK]Yes.", "hm, 2 < 3", "Yes."},
                            {false, "<think>\nhm\n</think>\n\nYes.", "\nhm\n", "\n\nYes."},
                            {false, " \n[THINK]a[/THINK]b", "a", "b"},
                            {false, "first [THINK]a[/THINK]b", "", "first [THINK]a[/THINK]b"},
                            {false, "[THINK]never closed", "never closed", ""},
                            {false, "[THINK]a[/THI", "a[/THI", ""},
                            {false, "[THI", "", "[THI"},
                            {false, "  ", "", "  "},
                            {true, "already open</think>done", "already open", "done"},
                            {false, "[THINK]a[/THINK][THINK]b", "a", "[THINK]b"}}) {
    for (std::size_t size = 1; size <= test.text.size() + 1; ++size) {
      ReasoningParser parser(test.open);
      std::string reasoning, content;
      for (std::size_t at = 0; at < test.text.size(); at += size)
        parser.push(std::string_view(test.text).substr(at, size), reasoning, content);
      parser.finish(reasoning, content);
      EXPECT_EQ(reasoning, test.reasoning) << test.text << " by " << size;
      EXPECT_EQ(content, test.content) << test.text << " by " << size;
    }
  }
}

}  // namespace
}  // namespace bise
