// Answers of /v1/completions, whole and streamed (spec/serving.md sections 1.5 and 1.6).
#include <gtest/gtest.h>

#include "tests/serve/test_service.h"

namespace bise {
namespace {

constexpr const char* kPath = "/v1/completions";

std::string ask(TestService& service, const std::string& body) {
  const HttpResponse response = service.ask(kPath, body);
  EXPECT_EQ(response.status, 200) << response.body;
  return without_time(response.body);
}

TEST(Completions, WholeAnswerHasEveryField) {
  TestService service({.script = "dcba"});
  const HttpResponse response = service.ask(kPath, R"({"prompt": "x", "request_id": "r1"})");
  EXPECT_EQ(response.headers.find("content-type"), "application/json");
  EXPECT_EQ(
      without_time(response.body),
      R"({"id":"cmpl-r1","object":"text_completion","created":0,"model":"tiny",)"
      R"("choices":[{"index":0,"text":"dcba","logprobs":null,"finish_reason":"stop","stop_reason":null,)"
      R"("token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null}],)"
      R"("service_tier":null,"system_fingerprint":null,)"
      R"("usage":{"prompt_tokens":2,"total_tokens":7,"completion_tokens":5,"prompt_tokens_details":null},)"
      R"("kv_transfer_params":null})");
}

TEST(Completions, WithLogprobsAndIds) {
  TestService service({.script = "d\xC3\xA9"});
  // 20 control tokens, then bytes: "x" is 140, "d" 120, "é" 279. All others have -1000; of equals the
  // smaller id comes first.
  EXPECT_EQ(
      ask(service, R"({"prompt": "x", "request_id": "r", "logprobs": 1, "return_token_ids": true,
                            "max_tokens": 2, "prompt_logprobs": 0})"),
      R"({"id":"cmpl-r","object":"text_completion","created":0,"model":"tiny",)"
      R"("choices":[{"index":0,"text":"dé","logprobs":{"text_offset":[0,1],"token_logprobs":[0,0],)"
      R"("tokens":["d","é"],"top_logprobs":[{"d":0},{"é":0}]},"finish_reason":"length",)"
      R"("stop_reason":null,"token_ids":[120,279],)"
      R"("prompt_logprobs":[null,{"140":{"logprob":0,"rank":1,"decoded_token":"x"}}],)"
      R"("prompt_token_ids":[1,140]}],"service_tier":null,"system_fingerprint":null,)"
      R"("usage":{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2,"prompt_tokens_details":null},)"
      R"("kv_transfer_params":null})");
}

TEST(Completions, TopMapsHaveTheSampledTokenFirst) {
  TestService service({.script = "ba"});
  // allowed ids force another token than the likeliest: 117 is "a", and "b" leads by far.
  const Json answer = Json::parse(ask(service, R"({"prompt": "x", "logprobs": 2, "max_tokens": 1,
                                                  "allowed_token_ids": [117]})"));
  EXPECT_EQ(answer["choices"][0]["logprobs"].dump(),
            R"({"text_offset":[0],"token_logprobs":[-1000],"tokens":["a"],)"
            R"("top_logprobs":[{"a":-1000,"b":0,"<unk>":-1000}]})");
  const Json as_ids = Json::parse(ask(service, R"({"prompt": "x", "logprobs": 0, "max_tokens": 1,
                                                  "return_tokens_as_token_ids": true})"));
  EXPECT_EQ(as_ids["choices"][0]["logprobs"]["tokens"].dump(), R"(["token_id:118"])");
  EXPECT_EQ(as_ids["choices"][0]["logprobs"]["top_logprobs"].dump(), R"([{"token_id:118":0}])");
}

TEST(Completions, EchoScoresThePrompt) {
  TestService service({.script = "cd"});
  // lm-eval: ids in, one token out, the scores of the prompt are what counts.
  const Json answer = Json::parse(ask(service, R"({"prompt": [[117, 276, 118], [119]], "echo": true,
                                                  "logprobs": 1, "max_tokens": 1, "temperature": 0})"));
  const Json& first = answer["choices"][0];
  EXPECT_EQ(first["text"], "aabbc");
  EXPECT_EQ(first["logprobs"].dump(),
            R"({"text_offset":[0,1,3,4],"token_logprobs":[null,0,0,0],"tokens":["a","ab","b","c"],)"
            R"("top_logprobs":[null,{"ab":0},{"b":0},{"c":0}]})");
  EXPECT_EQ(answer["choices"][1]["text"], "cc");
  EXPECT_EQ(answer["choices"][1]["index"], 1);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 4);

  const Json prompt_only = Json::parse(ask(service, R"({"prompt": [117, 276], "echo": true, "logprobs": 0,
                                                        "max_tokens": 0})"));
  EXPECT_EQ(prompt_only["choices"][0]["text"], "aab");
  EXPECT_EQ(prompt_only["choices"][0]["logprobs"]["tokens"].dump(), R"(["a","ab"])");
  EXPECT_EQ(prompt_only["choices"][0]["finish_reason"], "length");

  // A text prompt comes back as it was given.
  const Json text = Json::parse(ask(service, R"({"prompt": "say: ", "echo": true, "max_tokens": 2})"));
  EXPECT_EQ(text["choices"][0]["text"], "say: cd");
}

TEST(Completions, ChoicesAreNumberedByPromptAndN) {
  TestService service({.script_ids = [](std::span<const std::int32_t> prompt) {
    return std::vector<std::int32_t>{prompt.back(), prompt.back()};
  }});
  const Json answer =
      Json::parse(ask(service, R"({"prompt": ["a", "b"], "n": 2, "temperature": 1, "seed": 5})"));
  ASSERT_EQ(answer["choices"].size(), 4u);
  const char* texts[] = {"aa", "aa", "bb", "bb"};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["text"], texts[i]);
  }
  // Prompts count once, outputs all: 2 x 2 and 4 x 3.
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 4);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 12);
}

TEST(Completions, StreamsTextUsageAndEnd) {
  TestService service({.script = "dcb", .lockstep = true});
  const HttpResponse response = service.ask(
      kPath,
      R"({"prompt": "x", "request_id": "r", "stream": true, "stream_options": {"include_usage": true}})");
  EXPECT_EQ(response.headers.find("content-type"), "text/event-stream; charset=utf-8");
  const std::string head =
      R"(data: {"id":"cmpl-r","object":"text_completion","created":0,"model":"tiny","choices":[)";
  const std::string piece = R"(","logprobs":null,"finish_reason":null,"stop_reason":null}]})";
  EXPECT_EQ(without_time(response.body),
            head + R"({"index":0,"text":"d)" + piece + "\n\n" + head + R"({"index":0,"text":"c)" + piece +
                "\n\n" + head + R"({"index":0,"text":"b)" + piece + "\n\n" + head +
                R"({"index":0,"text":"","logprobs":null,"finish_reason":"stop","stop_reason":null}]})" +
                "\n\n" + head +
                R"(],"usage":{"prompt_tokens":2,"total_tokens":6,"completion_tokens":4,)"
                R"("prompt_tokens_details":null}})" +
                "\n\ndata: [DONE]\n\n");
}

// Whatever the options, a stream's pieces joined are the whole answer.
TEST(Completions, StreamsJoinToTheWholeAnswer) {
  TestService service({.script = "one two three, \xF0\x9F\x98\x80 done"});
  for (const char* options :
       {R"("max_tokens": 20)", R"("max_tokens": 100)", R"("stop": "three", "max_tokens": 100)",
        R"("stop": ["two t", "thr"], "include_stop_str_in_output": true, "max_tokens": 100)",
        R"("logprobs": 2, "max_tokens": 30)", R"("echo": true, "logprobs": 1, "max_tokens": 30)",
        R"("echo": true, "max_tokens": 0)", R"("stream_interval": 4, "max_tokens": 100)",
        R"("n": 3, "temperature": 1, "max_tokens": 25)", R"("return_token_ids": true, "max_tokens": 25)",
        R"("stop_token_ids": [64], "max_tokens": 30)", R"("min_tokens": 8, "stop": "t", "max_tokens": 30)"}) {
    const std::string fields = std::string(R"("prompt": "say ", "temperature": 0, )") + options;
    const std::string body = "{" + fields + "}";
    const Json whole = Json::parse(ask(service, body));
    const auto frames = frames_of(ask(service, "{" + fields + R"(, "stream": true})"));
    std::vector<Json> joined(whole["choices"].size());
    for (const Json& frame : frames) {
      const Json& choice = frame["choices"][0];
      Json& into = joined.at(choice["index"].get<std::size_t>());
      if (into.is_null()) into = {{"text", ""}, {"logprobs", nullptr}, {"token_ids", Json::array()}};
      into["text"] = into["text"].get<std::string>() + choice["text"].get<std::string>();
      if (choice["logprobs"].is_object()) {
        for (const auto& [key, values] : choice["logprobs"].items())
          for (const Json& value : values) into["logprobs"][key].push_back(value);
      }
      for (const Json& id : choice.value("token_ids", Json::array())) into["token_ids"].push_back(id);
      EXPECT_TRUE(choice.contains("finish_reason"));
      into["finish_reason"] = choice["finish_reason"];
      into["stop_reason"] = choice["stop_reason"];
    }
    for (std::size_t i = 0; i < joined.size(); ++i) {
      const Json& expected = whole["choices"][i];
      for (const char* key : {"text", "finish_reason", "stop_reason", "logprobs"})
        EXPECT_EQ(joined[i][key], expected[key]) << options << " " << key;
      if (expected["token_ids"].is_array()) {
        EXPECT_EQ(joined[i]["token_ids"], expected["token_ids"]);
      }
    }
  }
}

TEST(Completions, StopRules) {
  TestService service({.script = "one two three"});
  struct Case {
    const char* fields;
    const char* text;
    const char* finish;
    const char* stop_reason;
    int tokens;
  };
  for (
      const Case& test : std::vector<Case>{
          {R"("max_tokens": 100)", "one two three", "stop", "null", 14},
          {R"("max_tokens": 5)", "one t", "length", "null", 5},
          {R"("stop": "two", "max_tokens": 100)", "one ", "stop", "\"two\"", 7},
          {R"("stop": ["three", "wo"], "max_tokens": 100)", "one t", "stop", "\"wo\"", 7},
          {R"("stop": "two", "include_stop_str_in_output": true, "max_tokens": 100)", "one two", "stop",
           "\"two\"", 7},
          {R"("stop": "o", "min_tokens": 4, "max_tokens": 100)", "one tw", "stop", "\"o\"", 7},
          // 52 is the space.
          {R"("stop_token_ids": [52], "max_tokens": 100)", "one", "stop", "52", 4},
          {R"("stop_token_ids": [52], "include_stop_str_in_output": true, "max_tokens": 100)", "one ", "stop",
           "52", 4},
          {R"("ignore_eos": true, "max_tokens": 16)", "one two three", "length", "null", 16},
          {R"("ignore_eos": true, "max_tokens": 16, "skip_special_tokens": false)",
           "one two three</s></s></s>", "length", "null", 16},
          {R"("ignore_eos": true, "max_tokens": 30, "repetition_detection": {"max_pattern_size": 2, "min_count": 4})",
           "one two three", "repetition", "null", 17},
          {R"("ignore_eos": true, "stop_token_ids": [2], "max_tokens": 16)", "one two three", "stop", "2",
           14},
      }) {
    const Json answer = Json::parse(ask(service, std::string(R"({"prompt": "x", )") + test.fields + "}"));
    const Json& choice = answer["choices"][0];
    EXPECT_EQ(choice["text"], test.text) << test.fields;
    EXPECT_EQ(choice["finish_reason"], test.finish) << test.fields;
    EXPECT_EQ(choice["stop_reason"].dump(), test.stop_reason) << test.fields;
    EXPECT_EQ(answer["usage"]["completion_tokens"], test.tokens) << test.fields;
  }
}

TEST(Completions, CharactersAreNeverCut) {
  // Bytes are tokens: four of them make the smiley.
  TestService service({.script = "a\xF0\x9F\x98\x80z", .lockstep = true});
  const auto frames = frames_of(ask(service, R"({"prompt": "x", "stream": true})"));
  std::vector<std::string> texts;
  for (const Json& frame : frames) texts.push_back(frame["choices"][0]["text"]);
  EXPECT_EQ(texts, (std::vector<std::string>{"a", "\xF0\x9F\x98\x80", "z", ""}));
  // Cut off inside: what is there becomes U+FFFD.
  const Json cut = Json::parse(ask(service, R"({"prompt": "x", "max_tokens": 3})"));
  EXPECT_EQ(cut["choices"][0]["text"], "a\xEF\xBF\xBD");
}

TEST(Completions, ContinuousUsageAndForcedUsage) {
  TestService service({.script = "ab c", .lockstep = true, .change = [](ServedModel& model) {
                         model.enable_force_include_usage = true;
                         model.enable_prompt_tokens_details = true;
                         model.system_fingerprint = "bise-test";
                       }});
  const auto frames = frames_of(ask(service, R"({"prompt": "x", "stream": true, "max_tokens": 2})"));
  ASSERT_EQ(frames.size(), 3u);
  EXPECT_EQ(frames[0]["usage"].dump(), R"({"prompt_tokens":2,"total_tokens":3,"completion_tokens":1})");
  EXPECT_EQ(frames[1]["usage"]["completion_tokens"], 2);
  EXPECT_FALSE(frames[1].contains("system_fingerprint"));
  EXPECT_TRUE(frames[2]["choices"].empty());
  EXPECT_EQ(frames[2]["usage"]["prompt_tokens_details"].dump(), R"({"cached_tokens":0})");
  EXPECT_EQ(frames[2]["system_fingerprint"], "bise-test");
}

}  // namespace
}  // namespace bise
