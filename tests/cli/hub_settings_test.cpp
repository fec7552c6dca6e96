// The environment as huggingface_hub reads it, and MODEL arguments.
#include "cli/hub_settings.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;
using Variables = std::map<std::string, std::string>;

HubSettings settings_of(const Variables& variables) {
  return hub_settings([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(HubSettings, TheCache) {
  const struct {
    Variables variables;
    const char* cache;
  } cases[] = {
      {{{"HOME", "/h"}}, "/h/.cache/huggingface/hub"},
      {{{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}}, "/x/huggingface/hub"},
      {{{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}, {"HF_HOME", "~/hf"}}, "/h/hf/hub"},
      {{{"HF_HOME", "/hf"}, {"HUGGINGFACE_HUB_CACHE", "/old"}}, "/old"},
      {{{"HF_HOME", "/hf"}, {"HUGGINGFACE_HUB_CACHE", "/old"}, {"HF_HUB_CACHE", "/new"}}, "/new"},
      {{{"D", "/data"}, {"HF_HUB_CACHE", "${D}/$D/$E/${E}/$"}}, "/data//data/$E/${E}/$"},
  };
  for (const auto& test : cases) EXPECT_EQ(settings_of(test.variables).cache_dir.string(), test.cache);
}

TEST(HubSettings, TheToken) {
  const ScratchFolder scratch;
  const std::string home = scratch.path();
  write_file(scratch.path() / "token", "hf_home\n");
  write_file(scratch.path() / "other", "  hf_other \r\n");
  const struct {
    Variables variables;
    const char* token;
  } cases[] = {
      {{}, "hf_home"},
      {{{"HF_TOKEN_PATH", home + "/other"}}, "hf_other"},
      {{{"HF_TOKEN_PATH", home + "/absent"}}, ""},
      {{{"HUGGING_FACE_HUB_TOKEN", "hf_old"}}, "hf_old"},
      {{{"HUGGING_FACE_HUB_TOKEN", "hf_old"}, {"HF_TOKEN", "hf_new\n"}}, "hf_new"},
      {{{"HF_TOKEN", "hf_new"}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"}}, ""},
  };
  for (auto test : cases) {
    test.variables["HF_HOME"] = home;
    EXPECT_EQ(settings_of(test.variables).token, test.token);
  }
  EXPECT_THROW(settings_of({{"HF_TOKEN", "a b"}}), Error);
}

TEST(HubSettings, EndpointOfflineProxyTimeout) {
  EXPECT_EQ(settings_of({}).endpoint, "https://huggingface.co");
  EXPECT_EQ(settings_of({}).datasets_endpoint, "https://datasets-server.huggingface.co");
  const HubSettings mirror = settings_of({{"HF_ENDPOINT", "https://mirror.example/"}});
  EXPECT_EQ(mirror.endpoint, "https://mirror.example");
  EXPECT_EQ(mirror.datasets_endpoint, "https://datasets-server.mirror.example");
  EXPECT_THROW(settings_of({{"HF_ENDPOINT", "mirror"}}), Error);
  for (const char* yes : {"1", "on", "YES", "True"}) {
    EXPECT_TRUE(settings_of({{"HF_HUB_OFFLINE", yes}}).offline);
    EXPECT_TRUE(settings_of({{"TRANSFORMERS_OFFLINE", yes}}).offline);
  }
  for (const char* no : {"", "0", "off", "2"}) EXPECT_FALSE(settings_of({{"HF_HUB_OFFLINE", no}}).offline);
  EXPECT_EQ(settings_of({{"HTTPS_PROXY", "http://p:1"}, {"HTTP_PROXY", "http://q:1"}}).http.proxy,
            "http://p:1");
  EXPECT_EQ(settings_of({{"NO_PROXY", "a, .b"}}).http.no_proxy, (std::vector<std::string>{"a", ".b"}));
  EXPECT_EQ(settings_of({{"HF_HUB_DOWNLOAD_TIMEOUT", "7"}}).http.idle_timeout, 7);
  EXPECT_THROW(settings_of({{"HF_HUB_DOWNLOAD_TIMEOUT", "x"}}), Error);
}

TEST(HubSettings, ModelArguments) {
  const ScratchFolder scratch;
  ::setenv("HF_HUB_CACHE", scratch.path().c_str(), 1);
  EXPECT_EQ(model_folder(scratch.path().string()), scratch.path());
  const auto refusal = [](const std::string& model) {
    try {
      model_folder(model);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refusal("a/b").find("bise download a/b"), std::string::npos) << refusal("a/b");
  EXPECT_NE(refusal("a/b@v1").find("--revision v1"), std::string::npos) << refusal("a/b@v1");
  EXPECT_NE(refusal("./a/b").find("no such folder"), std::string::npos) << refusal("./a/b");
  EXPECT_NE(refusal("/a/b/c").find("no such folder"), std::string::npos);
  const std::string commit(40, 'a');
  const fs::path snapshot = scratch.path() / "models--a--b" / "snapshots" / commit;
  fs::create_directories(snapshot);
  fs::create_directories(scratch.path() / "models--a--b" / "refs");
  write_file(scratch.path() / "models--a--b" / "refs" / "main", commit);
  EXPECT_EQ(model_folder("a/b"), snapshot);
  EXPECT_EQ(model_folder("a/b@" + commit), snapshot);
  ::unsetenv("HF_HUB_CACHE");
}

}  // namespace
}  // namespace bise
