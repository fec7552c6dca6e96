// Bodies that are damaged versions of valid ones: each is answered, with 200 or an error in JSON.
#include <gtest/gtest.h>

#include <random>

#include "tests/serve/test_service.h"

namespace bise {
namespace {

const std::vector<std::string> kCompletions = {
    R"({"model":"tiny","prompt":"abc","max_tokens":4,"temperature":0.5,"top_p":0.9,"top_k":3,"n":2,"stream":true,
        "stream_options":{"include_usage":true},"stop":["x","yz"],"seed":7,"logit_bias":{"30":5,"31":-5}})",
    R"({"prompt":[[20,21,22],[30]],"echo":true,"logprobs":3,"max_tokens":1,"bad_words":["no"],
        "stop_token_ids":[40,41],"allowed_token_ids":[117,118],"min_tokens":1,"truncate_prompt_tokens":-1})",
    R"({"prompt":["a","b"],"structured_outputs":{"regex":"[a-z]+"},"max_tokens":3,"cache_salt":"s",
        "prompt_logprobs":2,"return_token_ids":true,"repetition_penalty":1.2,"presence_penalty":-1})",
};
const std::vector<std::string> kChats = {
    R"({"messages":[{"role":"system","content":"be kind"},{"role":"user","content":[{"type":"text","text":"hi"}]}],
        "max_completion_tokens":4,"logprobs":true,"top_logprobs":2,"tools":[{"type":"function","function":
        {"name":"f","parameters":{"type":"object","properties":{"a":{"type":"integer"}}}}}],"tool_choice":"auto"})",
    R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"","tool_calls":[{"id":"abcdefghi",
        "type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"abcdefghi",
        "content":"1"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}},
        "max_tokens":3,"chat_template_kwargs":{"a":[1,{"b":null}]},"stream":true})",
};
const std::vector<std::string> kOthers = {
    R"({"prompt":"a b c","add_special_tokens":false,"return_token_strs":true})",
    R"({"messages":[{"role":"user","content":"x"}],"add_generation_prompt":true})",
    R"({"tokens":[1,20,30,279]})",
};

std::string damaged(std::string text, const std::string& other, std::mt19937& random) {
  const auto below = [&](std::size_t n) { return random() % std::max<std::size_t>(n, 1); };
  static const std::vector<std::string> kTokens = {"null", "-1",          "1e999", "9223372036854775808",
                                                   "[]",   "{}",          "\"\"",  "[[",
                                                   "true", "\"\\ud800\"", "\xff",  "0.0001",
                                                   ",",    "\"x",         "[1,",   "{\"a\":",
                                                   ":",    "\"tiny\""};
  for (std::size_t edits = 1 + below(3); edits > 0 && !text.empty(); --edits) {
    const std::size_t at = below(text.size());
    switch (below(6)) {
      case 0: text[at] = static_cast<char>(text[at] ^ (1 << below(8))); break;
      case 1: text.resize(at); break;
      case 2: text.erase(at, 1 + below(8)); break;
      case 3: text.insert(at, other, below(other.size()), below(30)); break;
      default: {  // another value in place of one
        const std::size_t colon = text.find(':', at);
        if (colon == std::string::npos) break;
        const std::size_t end = text.find_first_of(",}]", colon);
        text.replace(colon + 1, end == std::string::npos ? end : end - colon - 1,
                     kTokens[below(kTokens.size())]);
      }
    }
  }
  return text;
}

TEST(RequestFuzz, EveryBodyIsAnswered) {
  TestService service({.script = "ab[TOOL_CALLS] [{\"name\": \"f\"", .workers = 2});
  std::mt19937 random(7);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(3);
  int ok = 0, refused = 0;
  for (int i = 0; i < 6000 && std::chrono::steady_clock::now() < until; ++i) {
    const std::vector<std::string>& seeds = i % 5 < 2 ? kCompletions : i % 5 < 4 ? kChats : kOthers;
    const char* path = i % 5 < 2 ? "/v1/completions" : i % 5 < 4 ? "/v1/chat/completions" : "/tokenize";
    const std::string& seed = seeds[random() % seeds.size()];
    if (&seed == &kOthers[2]) path = "/detokenize";
    const std::string body = i < 5 ? seed : damaged(seed, seeds[random() % seeds.size()], random);
    const auto exchange = service.begin(path, body);
    ASSERT_TRUE(exchange->wait()) << path << "\n" << body;
    EXPECT_EQ(exchange->answers(), 1);
    const HttpResponse response = exchange->response();
    if (response.status == 200) {
      ++ok;
      if (response.body.starts_with("data: ")) {
        EXPECT_NO_THROW(frames_of(response.body)) << body;
      } else {
        EXPECT_TRUE(Json::accept(response.body)) << body;
      }
      continue;
    }
    ++refused;
    ASSERT_TRUE(response.status == 400 || response.status == 404) << response.status << response.body << body;
    Json error;
    ASSERT_NO_THROW(error = Json::parse(response.body)) << body << response.body;
    EXPECT_TRUE(error["error"]["message"].is_string());
  }
  EXPECT_GT(ok, 50);
  EXPECT_GT(refused, 200);
}

}  // namespace
}  // namespace bise
