#include "base/json.h"

#include <gtest/gtest.h>

#include <functional>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"

namespace bise {
namespace {

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Json, InvalidTextIsAnErrorThatNamesThePlace) {
  const std::vector<std::string> texts = {"",    "{",        "{\"a\":}", "[1,]",
                                          "nul", "\"\xff\"", "1 2",      std::string(1000, '[')};
  for (const std::string& text : texts) {
    const std::string message = error_of([&] { parse_json(text, "file.json"); });
    EXPECT_TRUE(message.starts_with("file.json: ")) << text.substr(0, 20) << " -> " << message;
  }
}

TEST(Json, KeepsTheOrderOfKeys) {
  const std::string text = R"({"z":1,"a":{"y":2,"b":[1.5,true,null]}})";
  EXPECT_EQ(json_text(parse_json(text, "x")), text);
}

TEST(Json, TypedMembers) {
  const Json object =
      parse_json(R"({"int": 3, "whole": 4.0, "number": 2.5, "text": "t", "yes": true, "none": null})", "x");
  EXPECT_EQ(require_int(object, "int", "x"), 3);
  EXPECT_EQ(require_int(object, "whole", "x"), 4);
  EXPECT_EQ(require_number(object, "int", "x"), 3);
  EXPECT_EQ(require_string(object, "text", "x"), "t");
  EXPECT_TRUE(find_bool(object, "yes", false, "x"));
  EXPECT_EQ(find_int(object, "none", 7, "x"), 7);
  EXPECT_EQ(find_number(object, "absent", 0.5, "x"), 0.5);
  EXPECT_EQ(find_string(object, "absent", "d", "x"), "d");
}

TEST(Json, AWrongMemberIsAnErrorThatNamesTheKey) {
  const Json object =
      parse_json(R"({"number": 2.5, "text": "t", "huge": 1e30, "big": 18446744073709551615})", "x");
  EXPECT_EQ(error_of([&] { require_int(object, "number", "f"); }),
            "f: key \"number\": wrong type; expected an integer, got 2.5");
  EXPECT_NE(error_of([&] { require_int(object, "huge", "f"); }).find("huge"), std::string::npos);
  EXPECT_NE(error_of([&] { require_int(object, "big", "f"); }).find("too large"), std::string::npos);
  EXPECT_NE(error_of([&] { require_string(object, "number", "f"); }).find("a string"), std::string::npos);
  EXPECT_NE(error_of([&] { find_bool(object, "text", false, "f"); }).find("true or false"),
            std::string::npos);
  EXPECT_EQ(error_of([&] { require(object, "absent", "f"); }), "f: key \"absent\" is missing");
  EXPECT_NE(error_of([&] { require(Json::array(), "a", "f"); }).find("not an object"), std::string::npos);
}

}  // namespace
}  // namespace bise
