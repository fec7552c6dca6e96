// Answers of /v1/chat/completions, whole and streamed (spec/serving.md sections 1.5, 1.6 and 1.8).
#include <gtest/gtest.h>

#include <regex>

#include "tests/serve/test_service.h"

namespace bise {
namespace {

constexpr const char* kPath = "/v1/chat/completions";
const std::string kMessages = R"("messages": [{"role": "user", "content": "hi"}], "request_id": "r")";
const std::string kTools = R"("tools": [
  {"type": "function", "function": {"name": "add", "parameters": {"type": "object",
    "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}}},
  {"type": "function", "function": {"name": "now"}}])";

std::string ask(TestService& service, const std::string& fields) {
  const HttpResponse response =
      service.ask(kPath, "{" + kMessages + (fields.empty() ? "" : ", " + fields) + "}");
  EXPECT_EQ(response.status, 200) << response.body;
  return without_time(response.body);
}

// Ids of tool calls are random.
std::string without_ids(const std::string& text) {
  return std::regex_replace(text, std::regex(R"re("id":"[A-Za-z0-9]{9}")re"), "\"id\":\"#########\"");
}

TEST(Chat, WholeAnswerHasEveryField) {
  TestService service({.script = "Hello"});
  EXPECT_EQ(
      ask(service, ""),
      R"({"id":"chatcmpl-r","object":"chat.completion","created":0,"model":"tiny",)"
      R"("choices":[{"index":0,"message":{"role":"assistant","content":"Hello","refusal":null,)"
      R"("annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,)"
      R"("finish_reason":"stop","stop_reason":null,"token_ids":null}],)"
      R"("service_tier":null,"system_fingerprint":null,)"
      R"("usage":{"prompt_tokens":5,"total_tokens":11,"completion_tokens":6,"prompt_tokens_details":null},)"
      R"("prompt_logprobs":null,"prompt_token_ids":null,"kv_transfer_params":null})");
}

TEST(Chat, Logprobs) {
  TestService service({.script = "\xC3\xA9"});
  const Json plain = Json::parse(ask(service, R"("logprobs": true, "max_tokens": 1)"));
  EXPECT_EQ(plain["choices"][0]["logprobs"].dump(),
            R"({"content":[{"token":"é","logprob":0,"bytes":[195,169],"top_logprobs":[]}]})");
  // Exactly as many as asked for, the sampled one first.
  const Json top = Json::parse(ask(service, R"("logprobs": true, "top_logprobs": 2, "max_tokens": 1)"));
  EXPECT_EQ(top["choices"][0]["logprobs"]["content"][0]["top_logprobs"].dump(),
            R"([{"token":"é","logprob":0,"bytes":[195,169]},)"
            R"({"token":"<unk>","logprob":-1000,"bytes":[60,117,110,107,62]}])");
  const Json one = Json::parse(
      ask(service, R"("logprobs": true, "top_logprobs": 1, "max_tokens": 1, "allowed_token_ids": [117])"));
  EXPECT_EQ(one["choices"][0]["logprobs"]["content"][0]["top_logprobs"].dump(),
            R"([{"token":"a","logprob":-1000,"bytes":[97]}])");
}

TEST(Chat, StreamHasItsOrder) {
  TestService service({.script = "Hi", .lockstep = true});
  const HttpResponse response =
      service.ask(kPath, "{" + kMessages + R"(, "stream": true, "stream_options": {"include_usage": true}})");
  EXPECT_EQ(response.headers.find("content-type"), "text/event-stream; charset=utf-8");
  const std::string head =
      R"(data: {"id":"chatcmpl-r","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[)";
  EXPECT_EQ(
      without_time(response.body),
      head +
          R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})" +
          "\n\n" + head + R"({"index":0,"delta":{"content":"H"},"logprobs":null,"finish_reason":null}]})" +
          "\n\n" + head + R"({"index":0,"delta":{"content":"i"},"logprobs":null,"finish_reason":null}]})" +
          "\n\n" + head +
          R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null}]})" + "\n\n" +
          head +
          R"(],"usage":{"prompt_tokens":5,"total_tokens":8,"completion_tokens":3,)"
          R"("prompt_tokens_details":null}})" +
          "\n\ndata: [DONE]\n\n");
}

// A message put together from the deltas of a stream.
std::vector<Json> joined(const std::vector<Json>& frames, std::size_t choices) {
  std::vector<Json> messages(choices, Json{{"content", ""},
                                           {"reasoning", ""},
                                           {"tool_calls", Json::array()},
                                           {"logprobs", nullptr},
                                           {"token_ids", Json::array()}});
  for (const Json& frame : frames) {
    const Json& choice = frame["choices"][0];
    Json& into = messages.at(choice["index"].get<std::size_t>());
    const Json& delta = choice["delta"];
    for (const char* key : {"content", "reasoning"})
      if (delta.contains(key)) into[key] = into[key].get<std::string>() + delta[key].get<std::string>();
    if (delta.contains("role")) into["role"] = delta["role"];
    for (const Json& piece : delta.value("tool_calls", Json::array())) {
      const auto index = piece["index"].get<std::size_t>();
      if (index == into["tool_calls"].size()) {
        EXPECT_EQ(piece["type"], "function");
        into["tool_calls"].push_back(
            {{"id", piece["id"]},
             {"type", "function"},
             {"function", {{"name", piece["function"]["name"]}, {"arguments", ""}}}});
      } else {
        EXPECT_FALSE(piece.contains("id") || piece["function"].contains("name"));
      }
      Json& arguments = into["tool_calls"][index]["function"]["arguments"];
      arguments = arguments.get<std::string>() + piece["function"]["arguments"].get<std::string>();
    }
    if (choice["logprobs"].is_object())
      for (const Json& entry : choice["logprobs"]["content"]) into["logprobs"]["content"].push_back(entry);
    for (const Json& id : choice.value("token_ids", Json::array())) into["token_ids"].push_back(id);
    into["finish_reason"] = choice["finish_reason"];
    into["stop_reason"] = choice.value("stop_reason", Json());
  }
  return messages;
}

struct Stream {
  int version;
  std::string script, fields;
};

TEST(Chat, StreamsJoinToTheWholeAnswer) {
  const auto reason = [](ServedModel& model) { model.chat_output.reasoning_parser = "mistral"; };
  for (
      const Stream& test : std::vector<Stream>{
          {3, "one two three", ""},
          {3, "one two three", R"("stop": "two")"},
          {3, "one \xF0\x9F\x98\x80", R"("logprobs": true, "top_logprobs": 2)"},
          {3, "one two", R"("n": 3, "temperature": 1, "return_token_ids": true)"},
          {3, "one two", R"("max_tokens": 4, "stream_interval": 3)"},
          {3,
           R"(See: [TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}, {"name": "now", "arguments": {}}])",
           kTools},
          {13,
           R"([THINK]so [TOOL_CALLS] is a mark[/THINK]Well[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]now[ARGS]{})",
           kTools},
          {13, "[THINK]hm[/THINK]Yes", R"("logprobs": true)"},
          {13, "[THINK]hm[/THINK]Yes",
           R"("include_reasoning": false, "logprobs": true, "return_token_ids": true)"},
          {13, "[THINK]hm, cut off", ""},
          {13, "", ""}}) {
    TestService service({.version = test.version, .script = test.script, .change = reason});
    const std::string fields = test.fields.empty() ? "\"user\": \"x\"" : test.fields;
    const Json whole = Json::parse(ask(service, fields));
    const auto frames = frames_of(ask(service, fields + R"(, "stream": true)"));
    const auto messages = joined(frames, whole["choices"].size());
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const Json& expected = whole["choices"][i];
      const Json& message = expected["message"];
      EXPECT_EQ(messages[i]["content"], message["content"].is_null() ? Json("") : message["content"])
          << test.script << fields;
      EXPECT_EQ(messages[i]["reasoning"], message["reasoning"].is_null() ? Json("") : message["reasoning"]);
      EXPECT_EQ(without_ids(messages[i]["tool_calls"].dump()),
                without_ids(message.value("tool_calls", Json::array()).dump()));
      EXPECT_EQ(messages[i]["role"], "assistant");
      for (const char* key : {"finish_reason", "stop_reason", "logprobs"})
        EXPECT_EQ(messages[i][key], expected[key]) << test.script << " " << key;
      if (expected["token_ids"].is_array()) {
        EXPECT_EQ(messages[i]["token_ids"], expected["token_ids"]);
      }
    }
    // The last chunk of each choice has the reason and nothing else.
    EXPECT_EQ(frames.back()["choices"][0]["delta"].dump(), "{}");
  }
}

TEST(Chat, ToolCallsOfEveryTokenizerVersion) {
  struct Case {
    int version;
    std::string script, content, calls, finish;
  };
  for (const Case& test : std::vector<Case>{
           {3, R"([TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}])", "null",
            R"([{"id":"#########","type":"function","function":{"name":"add","arguments":"{\"a\": 1}"}}])",
            "tool_calls"},
           {13, R"(Sure.[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]now[ARGS]{})", R"("Sure.")",
            R"([{"id":"#########","type":"function","function":{"name":"add","arguments":"{\"a\": 1}"}},)"
            R"({"id":"#########","type":"function","function":{"name":"now","arguments":"{}"}}])",
            "tool_calls"},
           {13, "No tools needed.", R"("No tools needed.")", "", "stop"}}) {
    TestService service({.version = test.version, .script = test.script});
    const Json choice = Json::parse(without_ids(ask(service, kTools)))["choices"][0];
    EXPECT_EQ(choice["message"]["content"].dump(), test.content);
    EXPECT_EQ(choice["message"].contains("tool_calls") ? choice["message"]["tool_calls"].dump() : "",
              test.calls);
    EXPECT_EQ(choice["finish_reason"], test.finish);
  }
  // One call only, on request.
  TestService two({.version = 13, .script = R"([TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]now[ARGS]{})"});
  for (const char* stream : {"", R"(, "stream": true)"}) {
    const std::string answer = ask(two, kTools + R"(, "parallel_tool_calls": false)" + stream);
    EXPECT_NE(answer.find(R"("add")"), std::string::npos);
    EXPECT_EQ(answer.find(R"("now")"), std::string::npos) << answer;
  }
  // Without tools the mark is a control token like others, and with tool_choice none as well.
  TestService service({.script = "x[TOOL_CALLS]y"});
  EXPECT_EQ(Json::parse(ask(service, ""))["choices"][0]["message"]["content"], "xy");
  EXPECT_EQ(
      Json::parse(ask(service, kTools + R"(, "tool_choice": "none")"))["choices"][0]["message"]["content"],
      "xy");
}

TEST(Chat, FirstToolDeltaNamesTheCall) {
  TestService service({.version = 13, .script = R"([TOOL_CALLS]add[ARGS]{"a": 1})", .lockstep = true});
  const auto frames = frames_of(ask(service, kTools + R"(, "stream": true)"));
  ASSERT_GT(frames.size(), 4u);
  EXPECT_EQ(without_ids(frames[1]["choices"][0]["delta"].dump()),
            R"({"tool_calls":[{"index":0,"id":"#########","type":"function",)"
            R"("function":{"name":"add","arguments":""}}]})");
  EXPECT_EQ(frames[2]["choices"][0]["delta"].dump(),
            R"({"tool_calls":[{"index":0,"function":{"arguments":"{"}}]})");
}

TEST(Chat, AutoNeedsItsFlags) {
  TestService service(
      {.change = [](ServedModel& model) { model.chat_output.enable_auto_tool_choice = false; }});
  const HttpResponse response = service.ask(kPath, "{" + kMessages + ", " + kTools + "}");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(Json::parse(response.body)["error"]["message"],
            "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set");
}

// Each script begins with an X where the grammar wants something else, or asks for a tool that there is not.
TEST(Chat, RequiredAndNamedChoicesAreEnforced) {
  const auto parser = [](const char* name) {
    return [name](ServedModel& model) { model.chat_output.tool_call_parser = name; };
  };
  struct Case {
    int version;
    const char* parser;
    const char* choice;
    const char* script;
    const char* call;
    const char* finish;
  };
  const char* named = R"({"type": "function", "function": {"name": "add"}})";
  for (const Case& test : std::vector<Case>{
           {3, "mistral", R"("required")", R"(X[{"name": "now", "arguments": {}}])", "now({})", "tool_calls"},
           {3, "mistral", named, R"(X[{"name": "now", "arguments": {"a":7}}])", R"(add({"a":7}))", "stop"},
           {13, "mistral", R"("required")", R"(Xadd[ARGS]{"a":7})", R"(add({"a":7}))", "tool_calls"},
           {13, "mistral", named, R"(Xnow[ARGS]{"a":7})", R"(add({"a":7}))", "stop"},
           {3, "", R"("required")", R"([{"name": "add", "parameters": {"a":7}}])", R"(add({"a":7}))",
            "tool_calls"},
           {3, "", named, R"({"a":7}trailing)", R"(add({"a":7}))", "stop"}}) {
    TestService service({.version = test.version, .script = test.script, .change = parser(test.parser)});
    const Json answer = Json::parse(
        ask(service, kTools + R"(, "temperature": 0, "max_tokens": 100, "tool_choice": )" + test.choice));
    const Json& choice = answer["choices"][0];
    SCOPED_TRACE(std::string(test.script) + answer.dump());
    ASSERT_TRUE(choice["message"].contains("tool_calls"));
    const Json& function = choice["message"]["tool_calls"][0]["function"];
    EXPECT_EQ(function["name"].get<std::string>() + "(" + function["arguments"].get<std::string>() + ")",
              test.call);
    EXPECT_EQ(choice["message"]["content"].dump(), "null");
    EXPECT_EQ(choice["finish_reason"], test.finish);
  }
}

// With tools that are marked strict the model may speak or call, but only call right.
TEST(Chat, StrictToolsAreEnforcedWhenTheModelChooses) {
  const std::string strict = R"("tools": [{"type": "function", "function": {"name": "add", "strict": true,
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
                   "additionalProperties": false}}}], "temperature": 0, "max_tokens": 60)";
  TestService silent({.version = 13, .script = "No need."});
  EXPECT_EQ(Json::parse(ask(silent, strict))["choices"][0]["message"]["content"], "No need.");
  // The wrong member's name is not let through; nor is what follows the object.
  TestService calls({.version = 13, .script = R"(Ok[TOOL_CALLS]add[ARGS]{"b":12})"});
  const Json message = Json::parse(ask(calls, strict))["choices"][0]["message"];
  EXPECT_EQ(message["content"], "Ok") << message.dump();
  ASSERT_TRUE(message.contains("tool_calls")) << message.dump();
  EXPECT_EQ(message["tool_calls"][0]["function"]["arguments"], R"({"a":12})") << message.dump();
}

TEST(Chat, ReasoningIsSplitOff) {
  const auto reason = [](ServedModel& model) { model.chat_output.reasoning_parser = "mistral"; };
  const auto both = [](ServedModel& model) {
    model.chat_output.reasoning_parser = "mistral";
    model.chat_output.emit_reasoning_content = true;
  };
  const std::string script = "[THINK]let me think[/THINK]Four.";
  TestService service({.version = 13, .script = script, .change = reason});
  const Json message = Json::parse(ask(service, ""))["choices"][0]["message"];
  EXPECT_EQ(message["reasoning"], "let me think");
  EXPECT_EQ(message["content"], "Four.");
  EXPECT_FALSE(message.contains("reasoning_content"));
  const Json hidden = Json::parse(ask(service, R"("include_reasoning": false)"))["choices"][0]["message"];
  EXPECT_EQ(hidden["reasoning"], nullptr);
  EXPECT_EQ(hidden["content"], "Four.");
  TestService older({.version = 13, .script = script, .change = both});
  EXPECT_EQ(Json::parse(ask(older, ""))["choices"][0]["message"]["reasoning_content"], "let me think");
  TestService off({.version = 13, .script = script});
  EXPECT_EQ(Json::parse(ask(off, ""))["choices"][0]["message"]["content"], "let me thinkFour.");
}

TEST(Chat, EchoContinuesTheLastMessage) {
  TestService service({.script = " there"});
  const std::string body = R"({"messages": [{"role": "user", "content": "hi"},
    {"role": "assistant", "content": "Hello"}], "continue_final_message": true, "echo": true, "request_id": "r")";
  const Json whole = Json::parse(service.ask(kPath, body + "}").body);
  EXPECT_EQ(whole["choices"][0]["message"]["content"], "Hello there") << whole.dump();
  const auto frames = frames_of(service.ask(kPath, body + R"(, "stream": true})").body);
  EXPECT_EQ(frames[1]["choices"][0]["delta"].dump(), R"({"content":"Hello"})");
}

TEST(Chat, RequestIdsComeFromTheHeader) {
  TestService service;
  const HttpResponse response = service.ask(
      kPath, "{" + kMessages + "}", {{"content-type", "application/json"}, {"X-Request-Id", "from-header"}});
  EXPECT_EQ(Json::parse(response.body)["id"], "chatcmpl-from-header");
}

TEST(Chat, PromptIdsAndTextStandInTheFirstChunk) {
  TestService service({.script = "x"});
  const auto frames =
      frames_of(ask(service, R"("stream": true, "return_token_ids": true, "return_prompt_text": true)"));
  EXPECT_EQ(frames[0]["prompt_token_ids"].dump(), "[1,3,124,125,4]");
  EXPECT_EQ(frames[0]["prompt_text"], "<s>[INST]hi[/INST]");
  EXPECT_FALSE(frames[1].contains("prompt_token_ids"));
  const Json whole = Json::parse(ask(service, R"("return_token_ids": true)"));
  EXPECT_EQ(whole["prompt_token_ids"].dump(), "[1,3,124,125,4]");
  EXPECT_EQ(whole["choices"][0]["token_ids"].dump(), "[140,2]");
}

}  // namespace
}  // namespace bise
