// JSON schemas: which texts each keyword lets through, and what is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/grammar/grammar_support.h"

namespace bise {
namespace {

struct Case {
  const char* schema;
  std::vector<std::string> yes, no;
};

const Case kCases[] = {
    // Any value.
    {"true",
     {"1", "\"a\"", "{\"a\":[1,{}]}", "[]", "null", "[ true , false ]", "{ }"},
     {"", "tru", "[1,]", "{a:1}"}},
    {"{}", {"-1.5e+10", "[[],[[]]]"}, {"01", "1.", "+1", "NaN", " 1", "1 "}},
    {R"({"title": "t", "x-own": 3, "$schema": "s"})", {"null"}, {"nul"}},
    {R"({"type": "boolean"})", {"true", "false"}, {"null", "True"}},
    {R"({"type": ["null", "string"]})", {"null", "\"x\""}, {"1"}},
    {R"({"type": "string", "nullable": true})", {"null", "\"x\""}, {"1"}},

    // Strings.
    {R"({"type": "string"})",
     {"\"\"", "\"a\\n\\u00e9\\\\\\\"\\/\"", "\"\xC3\xA9\xF0\x9F\x98\x80\"", "\"\\ud83d\\uDE00\"", "\"\x7F\""},
     {"\"\n\"", "\"\\x\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\\ud83dx\"", "\"\xC3\"", "\"\xC0\x80\"",
      "\"\xED\xA0\x80\"", "'a'", "\"\t\"", "\"a", "\"\\u12\""}},
    {R"({"type": "string", "minLength": 2, "maxLength": 3})",
     {"\"ab\"", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"", "\"\\n\\n\"", "\"\\ud83d\\ude00a\""},
     {"\"a\"", "\"abcd\"", "\"\\ud83d\\ude00\""}},
    {R"({"type": "string", "minLength": 2})", {"\"ab\"", "\"abcdefghijk\""}, {"\"a\""}},
    {R"({"type": "string", "pattern": "^[a-c]+$"})", {"\"abc\""}, {"\"\"", "\"abd\""}},
    {R"({"type": "string", "pattern": "b"})",
     {"\"b\"", "\"abc\"", "\"\\n\\u0001b\\\"\""},
     {"\"\"", "\"ac\""}},
    {R"({"type": "string", "pattern": "^a|c$"})", {"\"ab\"", "\"bc\"", "\"a\""}, {"\"ba\""}},
    {R"({"type": "string", "pattern": "^(a|\"|\\n)*$"})", {"\"a\\\"\\na\""}, {"\"\\\\\"", "\"b\""}},
    {R"({"type": "string", "pattern": "^a*$", "minLength": 2, "maxLength": 3})",
     {"\"aa\"", "\"aaa\""},
     {"\"a\"", "\"aaaa\""}},
    {R"({"enum": ["a\nb", "\u00e9", 1, null, true, [1, "x"], {"k": 2}]})",
     {"\"a\\nb\"", "\"\xC3\xA9\"", "1", "null", "true", "[1,\"x\"]", "[ 1 , \"x\" ]", "{\"k\": 2}"},
     {"\"a\"", "2", "[1]", "{}"}},
    {R"({"type": "string", "enum": ["a", "bb", 1], "minLength": 2})", {"\"bb\""}, {"\"a\"", "1"}},
    {R"({"type": "integer", "enum": [1, 5, 9], "maximum": 5})", {"1", "5"}, {"9"}},
    {R"({"const": {"a": []}})", {"{\"a\":[]}", "{ \"a\" : [ ] }"}, {"{}"}},

    // Formats.
    {R"({"type": "string", "format": "date"})",
     {"\"2024-02-29\"", "\"2000-02-29\"", "\"2023-12-31\"", "\"1999-04-30\""},
     {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-13-01\"", "\"2023-04-31\"", "\"2023-00-10\"",
      "\"23-01-01\""}},
    {R"({"type": "string", "format": "time"})",
     {"\"23:59:59Z\"", "\"00:00:00.123+02:30\""},
     {"\"24:00:00Z\"", "\"12:00:00\""}},
    {R"({"type": "string", "format": "date-time"})",
     {"\"2024-02-29T12:00:00Z\""},
     {"\"2024-02-29 12:00:00Z\""}},
    {R"({"type": "string", "format": "duration"})",
     {"\"P1Y2M3DT4H5M6S\"", "\"PT5M\"", "\"P2W\""},
     {"\"P\"", "\"PT\"", "\"P1H\""}},
    {R"({"type": "string", "format": "uuid"})",
     {"\"123e4567-e89b-12d3-a456-426614174000\""},
     {"\"123e4567e89b12d3a456426614174000\""}},
    {R"({"type": "string", "format": "email"})",
     {"\"a.b+c@example.org\"", "\"x@localhost\""},
     {"\"a\"", "\"@b\"", "\"a@\"", "\"a..b@c\""}},
    {R"({"type": "string", "format": "hostname"})",
     {"\"a-b.example.org\""},
     {"\"-a\"", "\"a-\"", "\"a..b\""}},
    {R"({"type": "string", "format": "ipv4"})",
     {"\"0.0.0.0\"", "\"255.249.19.1\""},
     {"\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\""}},
    {R"({"type": "string", "format": "ipv6"})",
     {"\"::\"", "\"::1\"", "\"1::\"", "\"2001:db8::8:800:200c:417a\"", "\"1:2:3:4:5:6:7:8\"",
      "\"::ffff:1.2.3.4\"", "\"1:2:3:4:5:6:7::\"", "\"1:2:3:4:5:6:1.2.3.4\""},
     {"\":\"", "\"1:2:3:4:5:6:7\"", "\"1::2::3\"", "\"1:2:3:4:5:6:7:8:9\"", "\"12345::\"",
      "\"1:2:3:4:5:6:7:8::\""}},
    {R"({"type": "string", "format": "uri"})",
     {"\"https://a.b/c?d=e#f\"", "\"urn:x:y\""},
     {"\"a b\"", "\"//x\""}},
    {R"({"type": "string", "format": "own-format"})", {"\"anything\""}, {"1"}},

    // Numbers.
    {R"({"type": "integer"})",
     {"0", "-1", "123456789012345678"},
     {"-0", "01", "1.0", "1e3", "1234567890123456789"}},
    {R"({"type": "number"})",
     {"0", "-0", "-0.5", "1e5", "1.25E-7", "9e279"},
     {".5", "1.", "1e", "9e280", "9e999"}},
    {R"({"type": "integer", "minimum": 5, "maximum": 123})",
     {"5", "9", "10", "99", "100", "123"},
     {"4", "0", "124", "-5", "200", "1000", "05"}},
    {R"({"type": "integer", "minimum": -13, "maximum": 7})",
     {"-13", "-12", "-9", "-1", "0", "7"},
     {"-14", "-20", "-130", "8", "-0", "10"}},
    {R"({"type": "integer", "exclusiveMinimum": 0})", {"1", "10", "999999999999999999"}, {"0", "-1"}},
    {R"({"type": "integer", "minimum": 0.5, "exclusiveMaximum": 3})", {"1", "2"}, {"0", "3"}},
    {R"({"type": "integer", "maximum": -5})", {"-5", "-10", "-99"}, {"-4", "0", "5"}},
    {R"({"type": "integer", "minimum": 5, "exclusiveMinimum": true})", {"6"}, {"5"}},
    {R"({"type": "integer", "minimum": 9007199254740993, "maximum": 9007199254740993})",
     {"9007199254740993"},
     {"9007199254740992"}},
    {R"({"type": "integer", "multipleOf": 7, "minimum": 1})",
     {"7", "14", "49", "700"},
     {"0", "1", "8", "71"}},
    {R"({"type": "number", "minimum": 0, "maximum": 1})",
     {"0", "1", "0.5", "1.0", "0.999", "1.00"},
     {"-0.1", "1.01", "2", "-1"}},
    {R"({"type": "number", "minimum": -1.5, "exclusiveMaximum": 2.25})",
     {"-1.5", "-1.4", "-0.0001", "0", "2", "2.2", "2.24999", "-1.50"},
     {"-1.51", "-2", "2.25", "2.250", "2.3", "3"}},
    {R"({"type": "number", "exclusiveMinimum": 0.05})",
     {"0.051", "0.06", "0.1", "1", "0.0500001"},
     {"0.05", "0.050", "0.04", "0", "0.0"}},
    {R"({"type": "number", "minimum": 1e3, "maximum": 2.5e3})",
     {"1000", "2500", "1999.5"},
     {"999.9", "2500.1"}},
    {R"({"type": "number", "multipleOf": 0.25, "minimum": 0})",
     {"0.25", "0.5", "1", "2.75", "1.50"},
     {"0.3", "0.125", "1.1"}},
    {R"({"type": "number", "multipleOf": 0.01})", {"1.23", "-4.5", "7"}, {"1.234"}},

    // Arrays.
    {R"({"type": "array"})", {"[]", "[1,\"a\",[]]", "[ ]"}, {"[1,]", "[,]", "{}"}},
    {R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3})",
     {"[1]", "[1,2]", "[1, 2,\n 3]"},
     {"[]", "[1,2,3,4]", "[\"a\"]"}},
    {R"({"type": "array", "items": {"type": "integer"}, "minItems": 2})",
     {"[1,2]", "[1,2,3,4,5]"},
     {"[]", "[1]"}},
    {R"({"type": "array", "maxItems": 0})", {"[]"}, {"[1]"}},
    {R"({"type": "array", "items": false})", {"[]"}, {"[1]"}},
    {R"({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]})",
     {"[1,\"a\"]", "[1]", "[]"},
     {"[1,\"a\",2]", "[\"a\"]"}},
    {R"({"prefixItems": [{"type": "integer"}], "items": {"type": "string"}, "minItems": 2})",
     {"[1,\"a\"]", "[1,\"a\",\"b\"]"},
     {"[1]", "[1,2]"}},
    {R"({"items": [{"type": "integer"}], "additionalItems": {"type": "null"}})",
     {"[1]", "[1,null,null]"},
     {"[null]"}},

    // Objects.
    {R"({"type": "object"})", {"{}", "{\"a\":1}", "{\"a\":{},\n\"b\":[ ]}"}, {"{\"a\"}", "{\"a\":1,}"}},
    {R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "null"}}, "required": ["b"]})",
     {"{\"b\":\"\"}", "{\"a\":1,\"b\":\"x\",\"c\":null}", "{\"b\":\"x\",\"c\":null}",
      "{ \"a\" : 1 , \"b\" : \"x\" }"},
     {"{}", "{\"a\":1}", "{\"b\":\"x\",\"a\":1}", "{\"b\":\"x\",\"d\":1}", "{\"b\":1}", "{,\"b\":\"\"}",
      "{\"b\":\"\",}"}},
    {R"({"properties": {"a": {"type": "integer"}}})", {"{}", "{\"a\":1}"}, {"{\"b\":1}", "1"}},
    {R"({"type": "object", "properties": {}})", {"{}"}, {"{\"a\":1}"}},
    {R"({"type": "object", "properties": {"a": true}, "additionalProperties": {"type": "integer"}})",
     {"{}", "{\"a\":\"x\",\"b\":1,\"ab\":2}", "{\"\":1}"},
     {"{\"b\":\"x\"}", "{\"b\":1,\"a\":2}", "{\"\\u0061\":1}"}},
    {R"({"type": "object", "additionalProperties": {"type": "integer"}})",
     {"{}", "{\"x\":1,\"y\":2}"},
     {"{\"x\":\"y\"}"}},
    {R"({"type": "object", "required": ["k"]})", {"{\"k\":1}", "{\"k\":1,\"z\":2}"}, {"{}", "{\"z\":1}"}},
    {R"({"type": "object", "patternProperties": {"^n_": {"type": "integer"}, "^s_": {"type": "string"}}})",
     {"{}", "{\"n_a\":1,\"s_b\":\"x\"}", "{\"s_b\":\"x\",\"n_a\":1}"},
     {"{\"n_a\":\"x\"}", "{\"q\":1}"}},
    {R"({"properties": {"n_x": {"maximum": 5}}, "patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": {"type": "null"}})",
     {"{\"n_x\":5,\"n_y\":9,\"z\":null}"},
     {"{\"n_x\":6}", "{\"n_x\":1.5}", "{\"z\":1}", "{\"n_y\":null}"}},
    {R"({"type": "object", "minProperties": 1, "maxProperties": 2})",
     {"{\"a\":1}", "{\"a\":1,\"b\":2}"},
     {"{}", "{\"a\":1,\"b\":2,\"c\":3}"}},
    {R"({"properties": {"a": true, "b": true, "c": true}, "minProperties": 2})",
     {"{\"a\":1,\"c\":2}", "{\"b\":1,\"c\":2}"},
     {"{}", "{\"b\":1}"}},
    {R"({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}})", {"{}", "{\"abc\":1}"}, {"{\"A\":1}"}},
    {R"({"type": "object", "propertyNames": {"enum": ["x", "y"]}, "additionalProperties": {"type": "integer"}})",
     {"{\"y\":1}"},
     {"{\"z\":1}"}},
    {R"({"properties": {"a\"b": {"type": "integer"}}})", {"{\"a\\\"b\":1}"}, {"{\"ab\":1}"}},
    {R"({"properties": {"never": false, "a": {"type": "null"}}})", {"{}", "{\"a\":null}"}, {"{\"never\":1}"}},

    // Combinations.
    {R"({"anyOf": [{"type": "integer"}, {"type": "string"}]})", {"1", "\"a\""}, {"null", "1.5"}},
    {R"({"oneOf": [{"properties": {"k": {"const": "a"}}, "required": ["k"]}, {"properties": {"k": {"const": "b"}, "v": {"type": "integer"}}, "required": ["k", "v"]}]})",
     {"{\"k\":\"a\"}", "{\"k\":\"b\",\"v\":1}"},
     {"{\"k\":\"b\"}", "{\"k\":\"a\",\"v\":1}"}},
    {R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]})",
     {"{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":1}"},
     {"{}"}},
    {R"({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {"type": "string"}, "a": {"maximum": 3}}}]})",
     {"{\"a\":3}", "{\"a\":1,\"b\":\"x\"}"},
     {"{\"a\":4}", "{}", "{\"b\":\"x\"}"}},
    {R"({"allOf": [{"type": ["integer", "string"]}, {"type": ["number", "null"]}, {"minimum": 2}, {"minimum": 4}]})",
     {"4", "10"},
     {"3", "\"a\"", "4.5", "null"}},
    {R"({"allOf": [{"anyOf": [{"minimum": 5}, {"maximum": 1}]}, {"anyOf": [{"minimum": 9}, {"maximum": 3}]}], "type": "integer"})",
     {"9", "1", "0"},
     {"2", "5", "8"}},
    {R"({"allOf": [{"properties": {"a": {"type": "integer"}}, "additionalProperties": false}, {"properties": {"b": true}}]})",
     {"{}", "{\"a\":1}"},
     {"{\"b\":1}"}},
    {R"({"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}]})", {"2", "3"}, {"1", "4"}},

    // References.
    {R"({"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n", "description": "d"}})",
     {"[1]"},
     {"[\"a\"]"}},
    {R"({"definitions": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/definitions/n", "minimum": 3}}})",
     {"{\"a\":3}"},
     {"{\"a\":2}"}},
    {R"({"$ref": "#/$defs/tree", "$defs": {"tree": {"properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "required": ["v"]}}})",
     {"{\"v\":1}", "{\"v\":1,\"kids\":[{\"v\":2},{\"v\":3,\"kids\":[]}]}"},
     {"{\"kids\":[]}", "{\"v\":1,\"kids\":[{}]}"}},
    {R"({"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]})",
     {"{\"next\":null}", "{\"next\":{\"next\":null}}"},
     {"{\"next\":{}}"}},
};

TEST(JsonSchema, LetsThroughWhatIsValid) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.schema);
    GrammarPtr grammar;
    ASSERT_EQ(error_of([&] { grammar = compile_json_schema(std::string_view(c.schema)); }), "");
    for (const std::string& text : c.yes) EXPECT_TRUE(matches(grammar, text)) << text;
    for (const std::string& text : c.no) EXPECT_FALSE(matches(grammar, text)) << text;
  }
}

TEST(JsonSchema, RefusesWhatItCannotDo) {
  const struct {
    std::string schema;
    const char* says;
  } cases[] = {
      {R"({"not": {"type": "string"}})", "'not'"},
      {R"({"type": "object", "if": {}, "then": {}})", "'if'"},
      {R"({"type": "array", "contains": {"type": "integer"}})", "'contains'"},
      {R"({"type": "array", "uniqueItems": true})", "'uniqueItems'"},
      {R"({"type": "object", "dependentRequired": {"a": ["b"]}})", "'dependentRequired'"},
      {R"({"properties": {"a": {"items": {"not": {}}}}})", "#/properties/a/items"},
      {R"({"type": "strnig"})", "unknown type"},
      {R"({"type": 3})", "type is wrong"},
      {R"({"$ref": "#/$defs/x"})", "reference to nothing"},
      {R"({"$ref": "other.json"})", "another document"},
      {R"({"$ref": "#"})", "matches no text"},
      {R"({"allOf": [{"$ref": "#"}]})", "nested deeper"},
      {R"({"properties": {"a": {"$ref": "#"}}, "required": ["a"]})", "matches no text"},
      {R"({"type": "string", "minLength": -1})", "minLength"},
      {R"({"type": "string", "minLength": 3, "maxLength": 2})", "matches no text"},
      {R"x({"type": "string", "pattern": "(?=a)"})x", "look-around"},
      {R"({"type": "string", "format": "iri"})", "format 'iri'"},
      {R"({"type": "integer", "minimum": 3, "maximum": 2})", "matches no text"},
      {R"({"type": "integer", "minimum": 0.1, "maximum": 0.9})", "matches no text"},
      {R"({"type": "integer", "minimum": "3"})", "not a finite number"},
      {R"({"type": "integer", "multipleOf": 0})", "multipleOf"},
      {R"({"type": "integer", "multipleOf": 1234567})", "multipleOf"},
      {R"({"properties": 3})", "properties is not an object"},
      {R"({"required": "a"})", "required is not a list"},
      {R"({"properties": {"a": 3}})", "a schema is wrong"},
      {R"({"properties": {}, "additionalProperties": false, "required": ["a"]})", "'a' is not allowed"},
      {R"({"enum": []})", "matches no text"},
      {R"({"enum": 3})", "enum is not a list"},
      {R"({"anyOf": []})", "anyOf is not a list"},
      {"false", "matches no text"},
      {"[]", "a schema is wrong"},
      {"{\"type\"", "JSON"},
      {R"({"type": "string", "nullable": 3})", "invalid"},
  };
  for (const auto& c : cases) {
    const std::string message = error_of([&] { compile_json_schema(std::string_view(c.schema)); });
    EXPECT_NE(message.find(c.says), std::string::npos) << c.schema << ": " << message;
  }
  std::string deep = "{}";
  for (int i = 0; i < 70; ++i) deep = "{\"items\":" + deep + "}";
  EXPECT_NE(error_of([&] { compile_json_schema(std::string_view(deep)); }).find("nested deeper"),
            std::string::npos);
  std::string doubling = R"({"$defs": {"d0": {"type": "object"})";
  for (int i = 1; i < 60; ++i)
    doubling += fmt::format(
        R"(, "d{0}": {{"allOf": [{{"$ref": "#/$defs/d{1}"}}, {{"$ref": "#/$defs/d{1}"}}]}})", i, i - 1);
  doubling += R"(}, "$ref": "#/$defs/d59"})";
  EXPECT_NE(error_of([&] { compile_json_schema(std::string_view(doubling)); }), "");
}

TEST(JsonSchema, NotStrictAllowsOtherProperties) {
  const GrammarPtr grammar = compile_json_schema(
      std::string_view(R"({"properties": {"a": {"type": "integer"}}})"), {.strict = false});
  EXPECT_TRUE(matches(grammar, "{\"a\":1,\"b\":\"x\"}"));
  EXPECT_FALSE(matches(grammar, "{\"a\":\"x\"}"));
  EXPECT_FALSE(matches(grammar, "{\"b\":1,\"a\":\"x\"}"));
}

TEST(JsonSchema, WithoutWhitespaceSeparatorsAreFixed) {
  const GrammarPtr grammar = compile_json_schema(
      std::string_view(R"({"properties": {"a": {"type": "array", "items": {"type": "integer"}}, "b": {}}})"),
      {.any_whitespace = false});
  EXPECT_TRUE(matches(grammar, "{\"a\": [1, 2], \"b\": {\"x\": []}}"));
  for (const char* text : {"{\"a\":[1]}", "{ \"a\": []}", "{\"a\": [1,2]}", "{\"a\": [ ]}"})
    EXPECT_FALSE(matches(grammar, text)) << text;
}

TEST(JsonSchema, WhitespaceHasAnEnd) {
  const GrammarPtr grammar = compile_json_object();
  EXPECT_TRUE(matches(grammar, "{" + std::string(kMaxJsonWhitespace, ' ') + "}"));
  EXPECT_FALSE(matches(grammar, "{" + std::string(kMaxJsonWhitespace + 1, ' ') + "}"));
}

TEST(JsonSchema, LongStringsAreCountedExactly) {
  for (const auto& [min, max] :
       {std::pair(0, 1000), std::pair(256, 512), std::pair(700, 701), std::pair(513, 100'000)}) {
    const GrammarPtr grammar = compile_json_schema(
        std::string_view(fmt::format(R"({{"type": "string", "minLength": {}, "maxLength": {}}})", min, max)));
    const auto length_matches = [&](int length) {
      return length < 0 || matches(grammar, "\"" + std::string(static_cast<std::size_t>(length), 'x') + "\"");
    };
    for (const int length : {min, min + 1, (min + max) / 2, max - 1, max})
      EXPECT_TRUE(length_matches(length)) << min << " " << max << " " << length;
    EXPECT_FALSE(length_matches(max + 1));
    EXPECT_EQ(length_matches(min - 1), min == 0);
  }
}

TEST(JsonSchema, LongListsAndManyPropertiesCompile) {
  Json schema = {{"properties", {{"pick", {{"type", "string"}, {"enum", Json::array()}}}}},
                 {"required", {"pick"}}};
  for (int i = 0; i < 20'000; ++i)
    schema["properties"]["pick"]["enum"].push_back(fmt::format("number {} of many", i * 7919));
  for (int i = 0; i < 500; ++i) schema["properties"][fmt::format("option_{}", i)] = {{"type", "integer"}};
  const GrammarPtr grammar = compile_json_schema(schema);
  const std::string pick = R"({"pick": "number 7919 of many")";
  for (const char* rest :
       {"}", ", \"option_0\": 1}", ", \"option_31\": 1, \"option_32\": 2, \"option_499\": 3}"})
    EXPECT_TRUE(matches(grammar, pick + rest)) << rest;
  for (const char* rest : {",}", ", \"option_500\": 1}", ", \"option_32\": 1, \"option_31\": 2}"})
    EXPECT_FALSE(matches(grammar, pick + rest)) << rest;
  EXPECT_FALSE(matches(grammar, R"({"pick": "number 7918 of many"})"));
  EXPECT_FALSE(matches(grammar, R"({"option_0": 1})"));
}

TEST(JsonObject, IsAnyObject) {
  const GrammarPtr grammar = compile_json_object();
  for (const char* text : {"{}", "{\"a\":[1,2,{\"b\":null}]}", "{\n  \"x\": 1\n}"})
    EXPECT_TRUE(matches(grammar, text));
  for (const char* text : {"[]", "1", "", "{\"a\":}", "{\"a\":1"}) EXPECT_FALSE(matches(grammar, text));
}

}  // namespace
}  // namespace bise
