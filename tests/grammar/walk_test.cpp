// Random texts written under the masks of real vocabularies: whatever a model prefers, the text parses and is
// valid. Validity is checked by a small validator of its own, which shares nothing with the compiler.
#include <gtest/gtest.h>

#include <bit>
#include <nlohmann/json.hpp>
#include <random>
#include <regex>

#include "tests/grammar/grammar_support.h"
#include "tests/test_support.h"
#include "text/tokenizer.h"

namespace bise {
namespace {

bool valid(const Json& value, const Json& schema, const Json& root);

bool has_type(const Json& value, const std::string& type) {
  if (type == "integer")
    return value.is_number_integer() ||
           (value.is_number() && std::floor(value.get<double>()) == value.get<double>());
  if (type == "number") return value.is_number();
  return type == value.type_name();
}

bool valid_object(const Json& value, const Json& schema, const Json& root) {
  for (const Json& name : schema.value("required", Json::array()))
    if (!value.contains(name.get<std::string>())) return false;
  const Json properties = schema.value("properties", Json::object());
  const Json additional = schema.value("additionalProperties", Json(!schema.contains("properties")));
  for (const auto& [name, member] : value.items())
    if (!valid(member, properties.contains(name) ? properties[name] : additional, root)) return false;
  return true;
}

bool valid_array(const Json& value, const Json& schema, const Json& root) {
  if (value.size() < schema.value("minItems", std::size_t{0}) ||
      value.size() > schema.value("maxItems", std::size_t{9999}))
    return false;
  for (const Json& item : value)
    if (!valid(item, schema.value("items", Json(true)), root)) return false;
  return true;
}

std::size_t characters(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

bool valid(const Json& value, const Json& schema, const Json& root) {
  if (schema.is_boolean()) return schema.get<bool>();
  if (schema.contains("$ref"))
    return valid(value, root.at(Json::json_pointer(schema["$ref"].get<std::string>().substr(1))), root);
  if (schema.contains("anyOf") && std::none_of(schema["anyOf"].begin(), schema["anyOf"].end(),
                                               [&](const Json& s) { return valid(value, s, root); }))
    return false;
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end())
    return false;
  if (schema.contains("type") && !has_type(value, schema["type"])) return false;
  if (value.is_number() && (value.get<double>() < schema.value("minimum", -1e300) ||
                            value.get<double>() > schema.value("maximum", 1e300)))
    return false;
  if (value.is_string()) {
    const std::string text = value.get<std::string>();
    if (characters(text) < schema.value("minLength", std::size_t{0}) ||
        characters(text) > schema.value("maxLength", std::size_t{1} << 40))
      return false;
    if (schema.contains("pattern") &&
        !std::regex_search(text, std::regex(schema["pattern"].get<std::string>())))
      return false;
  }
  if (value.is_object()) return valid_object(value, schema, root);
  if (value.is_array()) return valid_array(value, schema, root);
  return true;
}

constexpr const char* kSchemas[] = {
    R"({"type": "object"})",
    R"({"type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 30}, "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "score": {"type": "number", "minimum": -2.5, "maximum": 1}, "mood": {"enum": ["good", "b\u00e4d", null, 3]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3}, "zip": {"type": "string", "pattern": "^[0-9]{5}(-[A-Z\u00dc]+)?$"}},
        "required": ["name", "tags", "zip"]})",
    R"({"$defs": {"node": {"type": "object", "properties": {"v": {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "required": ["v"], "additionalProperties": {"type": "boolean"}}}, "type": "array", "items": {"$ref": "#/$defs/node"}, "minItems": 1})",
};

// What a text in need of an end would rather have next: lower is better.
int eagerness(std::string_view bytes) {
  constexpr std::string_view kClosing = "}]\",:";
  if (bytes.empty()) return 0;
  const std::size_t place = kClosing.find(bytes[0]);
  return place == std::string_view::npos ? 20 : static_cast<int>(place) + static_cast<int>(bytes.size());
}

void walk(const std::string& name, const Tokenizer& tokenizer) {
  SCOPED_TRACE(name);
  const auto trie = TokenTrie::build(tokenizer, tokenizer.vocab_size() + 77);
  const std::int32_t stop = tokenizer.eos_token_id().value_or(2);
  std::mt19937 random(1);
  std::vector<std::uint32_t> bits(trie->mask_words());
  for (const char* text : kSchemas) {
    SCOPED_TRACE(text);
    const Json schema = parse_json(text, "test");
    const GrammarPtr grammar = compile_json_schema(schema);
    for (int round = 0; round < 8; ++round) {
      Matcher matcher(grammar, trie, {stop});
      std::vector<std::int32_t> ids;
      std::string bytes;
      for (int step = 0; step < 3000 && !matcher.finished(); ++step) {
        matcher.fill_mask(bits);
        std::vector<std::int32_t> allowed;
        for (std::size_t word = 0; word < bits.size(); ++word)
          for (std::uint32_t rest = bits[word]; rest != 0; rest &= rest - 1)
            allowed.push_back(static_cast<std::int32_t>(32 * word) + std::countr_zero(rest));
        ASSERT_FALSE(allowed.empty());
        std::int32_t token = allowed[random() % allowed.size()];
        if (step > 60 || random() % 2) {  // otherwise most texts are one endless string
          const int tries = step > 60 ? 5000 : 50;
          for (int i = 0; i < tries; ++i) {
            const std::int32_t other = allowed[random() % allowed.size()];
            if (eagerness(trie->bytes(other)) < eagerness(trie->bytes(token))) token = other;
          }
          if (step > 60 && matcher.accepts()) token = stop;
        }
        ASSERT_LT(token, tokenizer.vocab_size());
        ASSERT_TRUE(matcher.accept(token));
        if (token == stop) break;
        ids.push_back(token);
        bytes += tokenizer.token_bytes(token);
      }
      ASSERT_TRUE(matcher.finished()) << bytes;
      Json value;
      ASSERT_EQ(error_of([&] { value = parse_json(bytes, "generated"); }), "") << bytes;
      EXPECT_TRUE(valid(value, schema, schema)) << bytes;
      EXPECT_NE(tokenizer.decode(ids).find(bytes.substr(bytes.find_first_of("{["))), std::string::npos);
    }
  }
}

TEST(Walk, SmolLm2) {
  BISE_SKIP_IF_ABSENT(smollm2_path(), "the SmolLM2 checkpoint");
  walk("SmolLM2", *Tokenizer::load(smollm2_path()));
}

TEST(Walk, Mistral) {
  const std::filesystem::path folder = source_root() / "build/models/mistral_common/mistral_common/data";
  if (!std::filesystem::exists(folder))
    GTEST_SKIP() << "the Mistral tokenizers are not on this machine; see CONTRIBUTING.md";
  for (const char* file : {"mistral_instruct_tokenizer_240323.model.v3", "tekken_240911.json"})
    walk(file, *Tokenizer::load_file(folder / file));
}

}  // namespace
}  // namespace bise
