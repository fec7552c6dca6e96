// What each request field takes and how a wrong one is answered (spec/serving.md sections 1.3 and 1.4).
#include <gtest/gtest.h>

#include "tests/serve/test_service.h"

namespace bise {
namespace {

struct Case {
  std::string fields;   // beside the prompt or the messages
  int status;           // of both routes
  std::string param;    // "" = null
  std::string message;  // stands in the answer's
  std::string type = "BadRequestError";
};

const std::vector<Case> kShared = {
    {R"("temperature": 0)", 200, "", ""},
    {R"("temperature": "0.5")", 200, "", ""},
    {R"("temperature": -1)", 400, "temperature",
     "temperature must be non-negative, got -1. (parameter=temperature, value=-1)"},
    {R"("temperature": 2.5)", 400, "temperature", "temperature must be in [0, 2], got 2.5."},
    {R"("temperature": "hot")", 400, "body.temperature",
     "1 validation error:\n  body.temperature: Input should be a valid number (got \"hot\")", "Bad Request"},
    {R"("temperature": [], "n": {}, "stop": [1])", 400, "body.temperature", "3 validation errors:\n",
     "Bad Request"},
    {R"("top_p": 0)", 400, "top_p", "top_p must be in (0, 1], got 0."},
    {R"("top_p": 1.01)", 400, "top_p", "top_p must be in (0, 1]"},
    {R"("top_k": -1)", 200, "", ""},
    {R"("top_k": 100000)", 200, "", ""},
    {R"("top_k": -2)", 400, "top_k", "top_k must be 0 (disable), or at least 1, got -2."},
    {R"("min_p": 1.5)", 400, "min_p", "min_p must be in [0, 1], got 1.5."},
    {R"("repetition_penalty": 0)", 400, "repetition_penalty", "must be greater than zero, got 0."},
    {R"("presence_penalty": 2.1)", 400, "presence_penalty", "presence_penalty must be in [-2, 2], got 2.1."},
    {R"("frequency_penalty": -3)", 400, "frequency_penalty", "frequency_penalty must be in [-2, 2], got -3."},
    {R"("logit_bias": {"30": 200, "31": -5})", 200, "", ""},
    {R"("logit_bias": {"x": 1})", 400, "logit_bias", "cannot be converted to integer token IDs: ['x']"},
    {R"("logit_bias": {"280": 1})", 400, "logit_bias",
     "token_id(s) [280] in logit_bias contain out-of-vocab token ids. Vocabulary size: 280"},
    {R"("logit_bias": {"30": "x"})", 400, "body.logit_bias.30", "valid number", "Bad Request"},
    {R"("seed": -1)", 200, "", ""},
    {R"("seed": 9223372036854775807)", 200, "", ""},
    {R"("seed": 9223372036854775808)", 400, "body.seed", "valid integer", "Bad Request"},
    {R"("seed": 1.5)", 400, "body.seed", "valid integer (got 1.5)", "Bad Request"},
    {R"("n": 0)", 400, "n", "n must be at least 1, got 0."},
    {R"("n": 16385)", 400, "n", "n must be at most 16384, got 16385."},
    {R"("n": 2, "temperature": 0)", 400, "n", "n must be 1 when using greedy sampling, got 2."},
    {R"("stop": "x")", 200, "", ""},
    {R"("stop": ["a", "b", "c", "d"])", 200, "", ""},
    {R"("stop": ["a", "b", "c", "d", "e"])", 400, "stop", "at most 4"},
    {R"("stop": ["a", ""])", 400, "stop", "stop cannot contain an empty string."},
    {R"("stop_token_ids": [5, 6])", 200, "", ""},
    {R"("stop_token_ids": [-1])", 400, "stop_token_ids", "out-of-vocab"},
    {R"("stop_token_ids": ["x"])", 400, "body.stop_token_ids.0", "valid integer", "Bad Request"},
    {R"("allowed_token_ids": [30])", 200, "", ""},
    {R"("allowed_token_ids": [])", 400, "allowed_token_ids", "allowed_token_ids is not None and empty!"},
    {R"("allowed_token_ids": [1000])", 400, "allowed_token_ids", "out-of-vocab"},
    {R"("bad_words": ["no", "never"])", 200, "", ""},
    {R"("bad_words": [""])", 400, "bad_words", "cannot contain an empty string"},
    {R"("min_tokens": 3)", 200, "", ""},
    {R"("repetition_detection": {})", 200, "", ""},
    {R"("repetition_detection": {"max_pattern_size": 3, "min_count": 2})", 200, "", ""},
    {R"("repetition_detection": {"max_pattern_size": 3})", 400, "min_count", "must be at least 2"},
    {R"("repetition_detection": {"max_pattern_size": -1})", 400, "max_pattern_size",
     "must be at least 0, got -1."},
    {R"("repetition_detection": {"max_pattern_size": 2, "min_pattern_size": 3, "min_count": 2})", 400,
     "min_pattern_size", "at most max_pattern_size, got 3."},
    {R"("repetition_detection": {"max_pattern_size": "x"})", 400,
     "body.repetition_detection.max_pattern_size", "valid integer", "Bad Request"},
    {R"("min_tokens": -1)", 400, "min_tokens", "greater than or equal to 0"},
    {R"("min_tokens": 9, "max_tokens": 8)", 400, "min_tokens", "less than or equal to max_tokens=8, got 9."},
    {R"("max_tokens": 0)", 400, "max_tokens", "max_tokens must be at least 1, got 0."},
    {R"("max_tokens": 513)", 400, "max_tokens",
     "max_tokens=513 cannot be greater than max_model_len=512. Please request fewer output tokens."},
    {R"("max_tokens": 512)", 200, "", ""},
    {R"("prompt_logprobs": 0)", 200, "", ""},
    {R"("prompt_logprobs": 21)", 400, "prompt_logprobs",
     "Requested prompt logprobs of 21, which is greater than max allowed: 20"},
    {R"("prompt_logprobs": -2)", 400, "prompt_logprobs", "must be a positive value or -1"},
    {R"("prompt_logprobs": 1, "stream": true)", 400, "prompt_logprobs", "not available when `stream=True`"},
    {R"("logprob_token_ids": [30])", 400, "logprob_token_ids", "`logprobs` must be set"},
    {R"("stream_options": {"include_usage": true})", 400, "stream_options",
     "Stream options can only be defined when `stream=True`."},
    {R"("stream_options": [])", 400, "body.stream_options", "Input should be an object", "Bad Request"},
    {R"("stream_interval": 0)", 400, "stream_interval", "at least 1"},
    {R"("truncate_prompt_tokens": 2)", 200, "", ""},
    {R"("truncate_prompt_tokens": -2)", 400, "truncate_prompt_tokens", "greater than or equal to -1"},
    {R"("truncation_side": "middle")", 400, "body.truncation_side", "'left' or 'right'", "Bad Request"},
    {R"("use_beam_search": true)", 400, "use_beam_search", "not supported"},
    {R"("length_penalty": 1.0)", 200, "", ""},
    {R"("length_penalty": 2)", 400, "length_penalty", "not supported"},
    {R"("priority": 1)", 400, "priority", "Priority scheduling is not enabled"},
    {R"("cache_salt": "abc")", 200, "", ""},
    {R"("cache_salt": "")", 400, "cache_salt", "non-empty"},
    {R"("cache_salt": "a/b")", 400, "cache_salt", "cache_salt"},
    {R"("model": "tiny")", 200, "", ""},
    {R"("model": "alias")", 200, "", ""},
    {R"("model": "")", 200, "", ""},
    {R"("model": "gpt-4")", 404, "model", "The model `gpt-4` does not exist.", "NotFoundError"},
    {R"("user": "me", "metadata": {"a": 1}, "store": true, "best_of": 3, "guided_json": {}, "what": [[]])",
     200, "", ""},
    {R"("temperature": null, "top_p": null, "n": null, "stop": null, "seed": null, "logit_bias": null)", 200,
     "", ""},
    {R"("response_format": {"type": "text"})", 200, "", ""},
    {R"("response_format": {"type": "xml"})", 400, "body.response_format.type", "'json_object'",
     "Bad Request"},
    {R"("response_format": {"type": "json_schema"})", 400, "response_format", "must be provided"},
    {R"("response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "what"}}})",
     400, "response_format", "Invalid structured output constraint"},
    {R"("structured_outputs": {})", 400, "structured_outputs", "none are specified"},
    {R"("structured_outputs": {"regex": "a", "choice": ["b"]})", 400, "structured_outputs", "multiple"},
    {R"("structured_outputs": {"regex": "("})", 400, "structured_outputs", "Invalid structured output"},
    {R"("structured_outputs": {"regex": "a+"}, "response_format": {"type": "json_object"})", 400,
     "structured_outputs", "multiple"},
};

const std::vector<Case> kCompletions = {
    {R"("logprobs": 5)", 200, "", ""},
    {R"("logprobs": 21)", 400, "logprobs",
     "Requested sample logprobs of 21, which is greater than max allowed: 20 (parameter=logprobs, value=21)"},
    {R"("logprobs": -1)", 400, "logprobs", "Requested sample logprobs of 280"},
    {R"("logprobs": -2)", 400, "logprobs", "must be a positive value or -1"},
    {R"("suffix": "x")", 400, "suffix", "suffix is not supported"},
    {R"("suffix": "")", 200, "", ""},
    {R"("max_tokens": 0, "echo": true)", 200, "", ""},
    {R"("max_tokens": null)", 200, "", ""},
};

const std::vector<Case> kChat = {
    {R"("logprobs": true, "top_logprobs": 5)", 200, "", ""},
    {R"("top_logprobs": 5)", 400, "top_logprobs", "`logprobs` must be set to true"},
    {R"("logprobs": true, "top_logprobs": 21)", 400, "top_logprobs", "greater than max allowed: 20"},
    {R"("max_completion_tokens": 3, "max_tokens": 9999)", 200, "", ""},
    {R"("max_completion_tokens": 0)", 400, "max_completion_tokens", "at least 1"},
    {R"("add_generation_prompt": true, "continue_final_message": true)", 400, "continue_final_message",
     "Cannot set both"},
    {R"("chat_template": "{{ messages }}")", 400, "chat_template", "--trust-request-chat-template"},
    {R"("chat_template_kwargs": {"messages": []})", 400, "messages", "'messages' is reserved"},
    {R"("chat_template_kwargs": {"enable_thinking": false})", 200, "", ""},
    {R"("reasoning_effort": "high")", 200, "", ""},
    {R"("documents": [{"title": "t", "text": "x"}])", 200, "", ""},
    {R"("tools": [])", 400, "tools", "`tools` must not be an empty array."},
    {R"("tools": [{"type": "function"}])", 400, "body.tools.0.function", "Input should be an object",
     "Bad Request"},
    {R"("tool_choice": "auto")", 400, "tool_choice", "When using `tool_choice`, `tools` must be set."},
    {R"("tool_choice": "none")", 200, "", ""},
    {R"("tools": [{"type": "function", "function": {"name": "f"}}])", 200, "", ""},
    {R"("tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none")", 200, "", ""},
    {R"("tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "maybe")", 400,
     "tool_choice", "Invalid value for `tool_choice`"},
    {R"("tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "g"}})",
     400, "tool_choice", "does not match any of the specified `tools`"},
    {R"("tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "function"})",
     400, "tool_choice.function.name", "Expected field `name`"},
};

void check(TestService& service, const std::string& path, const std::string& base, const Case& test) {
  const HttpResponse response = service.ask(path, "{" + base + ", " + test.fields + "}");
  EXPECT_EQ(response.status, test.status) << path << " " << test.fields << "\n" << response.body;
  if (test.status == 200 || response.status == 200) return;
  const Json error = Json::parse(response.body).at("error");
  EXPECT_EQ(error["type"], test.type) << test.fields;
  EXPECT_EQ(error["code"], test.status);
  EXPECT_EQ(error["param"], test.param) << test.fields << "\n" << response.body;
  EXPECT_NE(error["message"].get<std::string>().find(test.message), std::string::npos) << test.fields << "\n"
                                                                                       << error["message"];
}

TEST(RequestFields, AreTakenOrRefusedByTheirRule) {
  TestService service;
  const std::string prompt = R"("prompt": "abc")";
  const std::string messages = R"("messages": [{"role": "user", "content": "abc"}])";
  for (const Case& test : kShared) {
    check(service, "/v1/completions", prompt, test);
    check(service, "/v1/chat/completions", messages, test);
  }
  for (const Case& test : kCompletions) check(service, "/v1/completions", prompt, test);
  for (const Case& test : kChat) check(service, "/v1/chat/completions", messages, test);
}

TEST(RequestFields, PromptsHaveFourForms) {
  TestService service;
  const std::vector<std::tuple<std::string, int, std::string>> cases = {
      {R"("abc")", 200, ""},
      {R"(["abc", "b"])", 200, ""},
      {"[20, 21]", 200, ""},
      {"[[20, 21], [22]]", 200, ""},
      {R"("")", 400, "prompt"},
      {"[]", 400, "prompt"},
      {"null", 400, "prompt"},
      {"[[]]", 400, "prompt"},
      {"[280]", 400, "prompt"},
      {"[-1]", 400, "prompt"},
      {"[99999999999999999999]", 400, "body.prompt"},
      {"5", 400, "body.prompt"},
      {"{}", 400, "body.prompt"},
      {R"(["a", 5])", 400, "body.prompt.1"},
      {R"([["a"]])", 400, "body.prompt.0"},
      {"[20, 21.5]", 400, "body.prompt"},
  };
  for (const auto& [prompt, status, param] : cases) {
    const HttpResponse response = service.ask("/v1/completions", "{\"prompt\": " + prompt + "}");
    EXPECT_EQ(response.status, status) << prompt << "\n" << response.body;
    if (status == 400 && response.status == 400) {
      EXPECT_EQ(Json::parse(response.body)["error"]["param"], param) << prompt << response.body;
    }
  }
  std::string many = "[";
  for (int i = 0; i < 1025; ++i) many += i > 0 ? ",\"a\"" : "\"a\"";
  EXPECT_EQ(service.ask("/v1/completions", "{\"prompt\": " + many + "]}").status, 400);
}

TEST(RequestFields, MessagesAreChecked) {
  TestService service;
  const std::vector<std::tuple<std::string, int, std::string>> cases = {
      {R"([{"role": "user", "content": "hi"}])", 200, ""},
      {R"([{"role": "developer", "content": "be short"}, {"role": "user", "content": "hi"}])", 200, ""},
      {R"([{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}])", 200, ""},
      {R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])", 400,
       "messages"},
      {R"([{"role": "wizard", "content": "hi"}])", 400, "body.messages.0.role"},
      {R"([{"content": "hi"}])", 400, "body.messages.0.role"},
      {R"([5])", 400, "body.messages.0"},
      {R"([])", 400, "messages"},
      {R"("hi")", 400, "body.messages"},
      {R"(null)", 400, "body.messages"},
      {R"([{"role": "user", "content": 5}])", 400, "messages"},
      {R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])", 400, "messages"},
  };
  for (const auto& [messages, status, param] : cases) {
    const HttpResponse response = service.ask("/v1/chat/completions", "{\"messages\": " + messages + "}");
    EXPECT_EQ(response.status, status) << messages << "\n" << response.body;
    if (status == 400 && response.status == 400) {
      EXPECT_EQ(Json::parse(response.body)["error"]["param"], param) << messages << response.body;
    }
  }
  TestService none({.change = [](ServedModel& model) { model.chat_template = nullptr; }});
  EXPECT_EQ(none.ask("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "x"}]})").status,
            400);
}

TEST(RequestFields, BodiesThatAreNoJsonAreAnswered) {
  TestService service;
  struct Body {
    std::string text, type, param, message;
  };
  const std::string valid = R"({"prompt": "a"})";
  std::string nested = R"({"prompt": "a", "x": )" + std::string(100, '[') + std::string(100, ']') + "}";
  std::string deep(10'000'000, '[');
  std::string allowed = R"({"prompt": "a", "x": )" + std::string(63, '[') + std::string(63, ']') + "}";
  std::string members = "{\"prompt\": \"a\"";
  for (int i = 0; i < 50'000; ++i) members += fmt::format(",\"k{}\":1", i);
  members += "}";
  for (const Body& test : std::vector<Body>{
           {valid, "application/json", "", ""},
           {valid, "application/json; charset=utf-8", "", ""},
           {valid, "application/vnd.api+json", "", ""},
           {allowed, "application/json", "", ""},
           {valid, "text/plain", "header.content-type", "Unsupported Media Type"},
           {valid, "application/x-www-form-urlencoded", "header.content-type", "Unsupported Media Type"},
           {"", "application/json", "body", "JSON decode error"},
           {"{", "application/json", "body", "JSON decode error"},
           {"{\"prompt\": \"\xff\"}", "application/json", "body", "JSON decode error"},
           {"[1]", "application/json", "body", "Input should be an object"},
           {"\"text\"", "application/json", "body", "Input should be an object"},
           {"NaN", "application/json", "body", "JSON decode error"},
           {nested, "application/json", "body", "nested deeper than 64"},
           {deep, "application/json", "body", "nested deeper than 64"},
           {members, "application/json", "body", "too many members"}}) {
    HttpHeaders headers{{"content-type", test.type}};
    const HttpResponse response = service.ask("/v1/completions", test.text, headers);
    if (test.param.empty()) {
      EXPECT_EQ(response.status, 200) << response.body;
      continue;
    }
    EXPECT_EQ(response.status, 400) << test.text.substr(0, 50);
    const Json error = Json::parse(response.body).at("error");
    EXPECT_EQ(error["type"], "Bad Request");
    EXPECT_EQ(error["param"], test.param);
    EXPECT_NE(error["message"].get<std::string>().find(test.message), std::string::npos) << error["message"];
  }
}

TEST(RequestFields, OneAnswerShowsTenProblemsAndCutsInput) {
  TestService service;
  std::string stop = "[";
  for (int i = 0; i < 15; ++i) stop += std::string(i > 0 ? "," : "") + "1";
  const HttpResponse many =
      service.ask("/v1/completions", R"({"prompt": "a", "stop": )" + stop + R"(], "temperature": ")" +
                                         std::string(500, 'x') + "\"}");
  const std::string message = Json::parse(many.body)["error"]["message"];
  EXPECT_TRUE(message.starts_with("16 validation errors:\n")) << message;
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 10);
  EXPECT_NE(message.find(std::string(199, 'x') + "..."), std::string::npos);
  EXPECT_EQ(message.find(std::string(200, 'x')), std::string::npos);
}

TEST(RequestFields, LongPromptsAreRefusedWithTheTextThatClientsKnow) {
  TestService service;
  const auto message = [](const HttpResponse& response) {
    return Json::parse(response.body)["error"]["message"].get<std::string>();
  };
  const auto prompt = [](int tokens) {
    std::string ids = "[20";
    for (int i = 1; i < tokens; ++i) ids += ",20";
    return "{\"prompt\": " + ids + "]";
  };
  // BOS is not added to ids; equal to the context counts as too long.
  EXPECT_EQ(service.ask("/v1/completions", prompt(511) + "}").status, 200);
  const HttpResponse full = service.ask("/v1/completions", prompt(512) + "}");
  EXPECT_EQ(full.status, 400);
  EXPECT_TRUE(message(full).starts_with("This model's maximum context length is 512 tokens."))
      << message(full);
  EXPECT_EQ(Json::parse(full.body)["error"]["param"], "input_tokens");
  EXPECT_NE(message(full).find("(parameter=input_tokens, value=512)"), std::string::npos);
  // The rest of the context is what is generated at most.
  const Json clamped = Json::parse(
      service.ask("/v1/completions", prompt(510) + R"(, "max_tokens": 100, "ignore_eos": true})").body);
  EXPECT_EQ(clamped["usage"]["completion_tokens"], 2);
  EXPECT_EQ(clamped["choices"][0]["finish_reason"], "length");
  // Refused before it is tokenized: 512 tokens of at most 20 bytes.
  const HttpResponse huge =
      service.ask("/v1/completions", "{\"prompt\": \"" + std::string(100'000, 'a') + "\"}");
  EXPECT_EQ(huge.status, 400);
  EXPECT_TRUE(message(huge).starts_with("This model's maximum context length is 512 tokens."))
      << message(huge);
  EXPECT_EQ(Json::parse(huge.body)["error"]["param"], "input_text");
  EXPECT_EQ(service.ask("/v1/completions", prompt(600) + R"(, "truncate_prompt_tokens": 100})").status, 200);
  EXPECT_EQ(service.ask("/v1/completions", prompt(600) + R"(, "truncate_prompt_tokens": -1})").status, 200);
}

TEST(RequestFields, ServerDefaultsFillIn) {
  TestService service({.script = "abcdefghijklmnopqrstuvwxyz", .change = [](ServedModel& model) {
                         model.defaults.max_new_tokens = 5;
                         model.defaults.temperature = 0;
                       }});
  const HttpResponse many = service.ask("/v1/completions", R"({"prompt": "a", "max_tokens": 100})");
  EXPECT_EQ(Json::parse(many.body)["usage"]["completion_tokens"], 5) << many.body;
  // Greedy by the server's default.
  EXPECT_EQ(service.ask("/v1/completions", R"({"prompt": "a", "n": 2})").status, 400);
  EXPECT_EQ(service.ask("/v1/completions", R"({"prompt": "a", "n": 2, "temperature": 1})").status, 200);
}

}  // namespace
}  // namespace bise
