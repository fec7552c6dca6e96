#include "base/yaml.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bise {
namespace {

TEST(Yaml, ScalarsHaveTheTypesThatPythonGivesThem) {
  struct Case {
    std::string text;
    Json expected;
  };
  for (const Case& test : std::vector<Case>{{"12", 12},
                                            {"-3", -3},
                                            {"1_000", 1000},
                                            {"0x1F", 31},
                                            {"0b101", 5},
                                            {"010", 8},
                                            {"0.92", 0.92},
                                            {"1.5e3", 1500.0},
                                            {"true", true},
                                            {"Yes", true},
                                            {"off", false},
                                            {"tRue", "tRue"},
                                            {"~", nullptr},
                                            {"", nullptr},
                                            {"32k", "32k"},
                                            {"'12'", "12"},
                                            {"\"true\"", "true"},
                                            {"!!str 12", "12"},
                                            {"99999999999999999999", 1e20},
                                            {"-", Json::array({nullptr})},
                                            {"127.0.0.1", "127.0.0.1"}}) {
    EXPECT_EQ(parse_yaml(test.text, "test"), test.expected) << test.text;
  }
}

TEST(Yaml, KeepsTheOrderOfKeysAndNests) {
  const Json value = parse_yaml("z: 1\na: {b: [1, two]}\nc:\n  - x\n  - y: null\n", "test");
  EXPECT_EQ(json_text(value), R"({"z":1,"a":{"b":[1,"two"]},"c":["x",{"y":null}]})");
}

TEST(Yaml, BadDocumentsAreErrorsWithTheirPlace) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) bomb += before + (j < 9 ? ", " : "]\n");
  }
  struct Case {
    std::string text, message;
  };
  for (const Case& test : std::vector<Case>{{"a: [1", "invalid YAML"},
                                            {"a: 1\na: 2", "line 2: key \"a\" stands twice"},
                                            {"? [1]\n: 2", "neither a word nor a number"},
                                            {"a: *b", "invalid YAML"},
                                            {std::string(200, '[') + std::string(200, ']'), "deeper"},
                                            {std::string(100'000, '['), "YAML"},
                                            {bomb, "more than 100000 values"}}) {
    try {
      parse_yaml(test.text, "config.yaml");
      ADD_FAILURE() << "accepted; expected " << test.message;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(test.message), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("config.yaml"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace bise
