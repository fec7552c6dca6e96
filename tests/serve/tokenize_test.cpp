// /tokenize, /detokenize and /v1/models (spec/serving.md sections 1.2 and 1.9).
#include <gtest/gtest.h>

#include "tests/serve/test_service.h"

namespace bise {
namespace {

TEST(TokenizeRoutes, Answer) {
  TestService service;
  struct Case {
    const char* path;
    const char* body;
    int status;
    const char* answer;
  };
  for (
      const Case& test : std::vector<Case>{
          {"/tokenize", R"({"prompt": "abab"})", 200,
           R"({"count":3,"max_model_len":512,"tokens":[1,276,276],"token_strs":null})"},
          {"/tokenize", R"({"model": "alias", "prompt": "abé", "add_special_tokens": false,
                             "return_token_strs": true})",
           200, R"({"count":2,"max_model_len":512,"tokens":[276,279],"token_strs":["ab","é"]})"},
          {"/tokenize", R"({"messages": [{"role": "user", "content": "ab"}], "return_token_strs": true})",
           200,
           R"({"count":4,"max_model_len":512,"tokens":[1,3,276,4],"token_strs":["<s>","[INST]","ab","[/INST]"]})"},
          {"/tokenize", R"({"prompt": ""})", 200,
           R"({"count":1,"max_model_len":512,"tokens":[1],"token_strs":null})"},
          {"/tokenize", R"({})", 400, ""},
          {"/tokenize", R"({"prompt": 5})", 400, ""},
          {"/tokenize", R"({"messages": []})", 400, ""},
          {"/tokenize", R"({"messages": [{"role": "user"}], "add_generation_prompt": "maybe"})", 400, ""},
          {"/tokenize", R"({"prompt": "a", "model": "other"})", 404, ""},
          {"/detokenize", R"({"tokens": [1, 276, 279]})", 200, R"({"prompt":"<s>abé"})"},
          {"/detokenize", R"({"tokens": []})", 200, R"({"prompt":""})"},
          {"/detokenize", R"({"tokens": [280]})", 400, ""},
          {"/detokenize", R"({"tokens": [-1]})", 400, ""},
          {"/detokenize", R"({"tokens": "a"})", 400, ""},
          {"/detokenize", R"({"tokens": ["x"]})", 400, ""},
          {"/detokenize", R"({})", 400, ""}}) {
    const HttpResponse response = service.ask(test.path, test.body);
    EXPECT_EQ(response.status, test.status) << test.body << response.body;
    if (test.status == 200) {
      EXPECT_EQ(response.body, test.answer);
    } else {
      EXPECT_TRUE(Json::parse(response.body).contains("error"));
    }
  }
}

TEST(ModelsRoute, HasACardForEachName) {
  TestService service;
  const Json list = Json::parse(service.ask("/v1/models", "").body);
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2u);
  Json card = list["data"][1];
  EXPECT_TRUE(card["permission"][0]["id"].get<std::string>().starts_with("modelperm-"));
  card["permission"][0].erase("id");
  EXPECT_EQ(card.dump(),
            R"({"id":"alias","object":"model","created":1700000000,"owned_by":"vllm","root":"org/tiny",)"
            R"("parent":null,"max_model_len":512,"permission":[{"object":"model_permission",)"
            R"("created":1700000000,"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,)"
            R"("allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*",)"
            R"("group":null,"is_blocking":false}]})");
}

}  // namespace
}  // namespace bise
