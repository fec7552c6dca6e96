#include "cli/serve_arguments.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "tests/test_support.h"

namespace bise {
namespace {

using Strings = std::vector<std::string>;

TEST(ServeArguments, TakeVllmsSpellings) {
  struct Case {
    Strings given, expected, without_effect;
  };
  for (const Case& test : std::vector<Case>{
           {{"m", "--max_model_len", "32k"}, {"m", "--max-model-len", "32k"}, {}},
           {{"m", "--max_model_len=32k"}, {"m", "--max-model-len", "32k"}, {}},
           {{"m", "-tp", "1", "-q=fp8"}, {"m", "--tensor-parallel-size", "1", "--quantization", "fp8"}, {}},
           {{"--port", "1", "--model", "m"}, {"--port", "1", "m"}, {}},
           {{"m", "--max-model-len", "-1"}, {"m", "--max-model-len", "-1"}, {}},
           {{"--served-model-name", "a", "b", "--port", "1"},
            {"--served-model-name", "a", "b", "--port", "1"},
            {}},
           {{"--enforce-eager", "m"}, {"m"}, {"--enforce-eager"}},
           {{"--enforce_eager", "--no-enforce-eager", "--enforce-eager"},
            {},
            {"--enforce-eager", "--no-enforce-eager"}},
           {{"--swap-space", "4", "m", "-O3"}, {"m"}, {"--swap-space", "--optimization-level"}},
           {{"--cudagraph-capture-sizes", "1", "2", "--port", "1"},
            {"--port", "1"},
            {"--cudagraph-capture-sizes"}},
           {{"--compilation-config", "{\"level\": 3}", "m"}, {"m"}, {"--compilation-config"}},
           {{"m", "--speculative-config.method", "ngram", "--speculative-config.num-speculative-tokens", "5"},
            {"m", "--speculative-config", R"({"method":"ngram","num_speculative_tokens":5})"},
            {}},
           {{"-sc.a.b=true", "m", "--speculative_config.a.c", "x"},
            {"m", "--speculative-config", R"({"a":{"b":true,"c":"x"}})"},
            {}},
           {{"--speculative-config", R"({"method":"ngram"})", "--speculative-config.k", "[1]"},
            {"--speculative-config", R"({"method":"ngram","k":[1]})"},
            {}}}) {
    const ServeArguments result = prepare_serve_arguments(test.given);
    EXPECT_EQ(result.arguments, test.expected);
    EXPECT_EQ(result.without_effect, test.without_effect);
  }
}

TEST(ServeArguments, TheCommandLineWinsOverTheFile) {
  const ScratchFolder folder;
  const std::string path = folder.path() / "serve.yaml";
  std::ofstream(path) << "model: from-file\n"
                         "port: 8001\n"
                         "served_model_name: [a, b]\n"
                         "enable-prefix-caching: false\n"
                         "enable-log-requests: true\n"
                         "enforce-eager: true\n"
                         "max-model-len: 32k\n"
                         "uds:\n"
                         "speculative-config: {method: ngram, num_speculative_tokens: 3}\n";
  const ServeArguments file = prepare_serve_arguments({"--config", path});
  EXPECT_EQ(file.arguments,
            (Strings{"from-file", "--port", "8001", "--served-model-name", "a", "b",
                     "--no-enable-prefix-caching", "--enable-log-requests", "--max-model-len", "32k",
                     "--speculative-config", R"({"method":"ngram","num_speculative_tokens":3})"}));
  EXPECT_EQ(file.without_effect, (Strings{"--enforce-eager"}));

  const ServeArguments both = prepare_serve_arguments(
      {"--port=9000", "--config", path, "--enable-prefix-caching", "--served_model_name", "c"});
  EXPECT_EQ(both.arguments,
            (Strings{"from-file", "--enable-log-requests", "--max-model-len", "32k", "--speculative-config",
                     R"({"method":"ngram","num_speculative_tokens":3})", "--port", "9000",
                     "--enable-prefix-caching", "--served-model-name", "c"}));
}

TEST(ServeArguments, ANamedModelWinsOverTheFilesModel) {
  const ScratchFolder folder;
  const std::string path = folder.path() / "serve.yaml";
  std::ofstream(path) << "model: from-file\nport: 1\n";
  EXPECT_EQ(prepare_serve_arguments({"mine", "--config", path}).arguments, (Strings{"--port", "1", "mine"}));
  EXPECT_EQ(prepare_serve_arguments({"--config", path, "mine"}).arguments, (Strings{"--port", "1", "mine"}));
}

TEST(ServeArguments, BadFilesAreErrors) {
  const ScratchFolder folder;
  const std::string path = folder.path() / "serve.yaml";
  for (const char* text : {"[1, 2]", "a: [", "config: other.yaml", "just words"}) {
    std::ofstream(path) << text;
    EXPECT_THROW(prepare_serve_arguments({"m", "--config", path}), Error) << text;
  }
  EXPECT_THROW(prepare_serve_arguments({"m", "--config"}), Error);
  EXPECT_THROW(prepare_serve_arguments({"m", "--config", folder.path() / "absent.yaml"}), Error);
  std::ofstream(path) << "port: 1";
  EXPECT_THROW(prepare_serve_arguments({"m", "--config", path, "--config", path}), Error);
}

}  // namespace
}  // namespace bise
