// str(), repr() and json.dumps() of values.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/value.h"

namespace bise::jinja {
namespace {

// Python escapes what has no visible form: control characters, format characters, unusual spaces.
bool is_printable(std::uint32_t c) {
  if (c < 0x7f) return c >= 0x20;
  if (c < 0xa1 || c == 0xad) return false;
  const bool format = (c >= 0x600 && c <= 0x605) || c == 0x61c || c == 0x6dd || c == 0x70f || c == 0x180e ||
                      (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
                      (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
                      (c >= 0xe0001 && c <= 0xe007f);
  const bool private_use = (c >= 0xe000 && c <= 0xf8ff) || c >= 0xf0000;
  return !format && !private_use && !is_space(c) && (c & 0xfffe) != 0xfffe;
}

std::string repr_string(const std::string& text) {
  const bool double_quoted = text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = double_quoted ? '"' : '\'';
  std::string result(1, quote);
  for (std::size_t i = 0; i < text.size(); i += character_length(text[i])) {
    const std::uint32_t c = character_at(text, i);
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      result += '\\';
      result += static_cast<char>(c);
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\r') {
      result += "\\r";
    } else if (c == '\t') {
      result += "\\t";
    } else if (is_printable(c)) {
      result.append(text, i, character_length(text[i]));
    } else if (c < 0x100) {
      result += fmt::format("\\x{:02x}", c);
    } else {
      result += c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
    }
  }
  return result + quote;
}

void json_string(std::string& out, const std::string& text, bool ensure_ascii) {
  out += '"';
  for (std::size_t i = 0; i < text.size(); i += character_length(text[i])) {
    const std::uint32_t c = character_at(text, i);
    switch (c) {
      case '"': out += "\\\""; continue;
      case '\\': out += "\\\\"; continue;
      case '\n': out += "\\n"; continue;
      case '\r': out += "\\r"; continue;
      case '\t': out += "\\t"; continue;
      case '\b': out += "\\b"; continue;
      case '\f': out += "\\f"; continue;
      default: break;
    }
    if (c < 0x20 || (ensure_ascii && c > 0x7e && c < 0x10000)) {
      out += fmt::format("\\u{:04x}", c);
    } else if (ensure_ascii && c >= 0x10000) {
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
    } else {
      out.append(text, i, character_length(text[i]));
    }
  }
  out += '"';
}

std::string json_number(const Value& value) {
  if (value.kind() == Value::Kind::kBool) return value.truth() ? "true" : "false";
  if (value.is_integral()) return std::to_string(value.as_integer());
  const double number = value.as_double();
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
  return repr(number);
}

std::string json_key(const Value& key) {
  if (key.is_text()) return key.as_text().bytes();
  if (key.is_none()) return "null";
  if (key.is_number()) return json_number(key);
  throw Error("keys must be str, int, float, bool or None, not {}", key.type_name());
}

void json_value(std::string& out, const Value& value, const JsonStyle& style, int level) {
  const auto line_break = [&](int at) {
    if (!style.indented) return;
    out += '\n';
    for (int i = 0; i < at; ++i) out += style.indent;
  };
  if (value.is_text()) {
    json_string(out, value.as_text().bytes(), style.ensure_ascii);
  } else if (value.is_none()) {
    out += "null";
  } else if (value.is_number()) {
    out += json_number(value);
  } else if (value.is_list()) {
    const auto& items = value.as_list().items;
    out += '[';
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += style.item_separator;
      line_break(level + 1);
      json_value(out, items[i], style, level + 1);
    }
    if (!items.empty()) line_break(level);
    out += ']';
  } else if (value.is_dict()) {
    auto entries = value.as_dict().entries();
    if (style.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return less(a.first, b.first); });
    }
    out += '{';
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out += style.item_separator;
      line_break(level + 1);
      json_string(out, json_key(entries[i].first), style.ensure_ascii);
      out += style.key_separator;
      json_value(out, entries[i].second, style, level + 1);
    }
    if (!entries.empty()) line_break(level);
    out += '}';
  } else {
    throw Error("Object of type {} is not JSON serializable", value.type_name());
  }
}

std::string repr_items(const List& list) {
  std::string text;
  for (const Value& item : list.items) text += (text.empty() ? "" : ", ") + repr(item);
  if (list.is_tuple) return "(" + text + (list.items.size() == 1 ? ",)" : ")");
  return "[" + text + "]";
}

std::string repr_entries(const Dict& dict) {
  std::string text;
  for (const auto& [key, item] : dict.entries()) {
    text += (text.empty() ? "" : ", ") + repr(key) + ": " + repr(item);
  }
  return "{" + text + "}";
}

}  // namespace

std::string repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char digits[64];
  const double magnitude = std::abs(value);
  const bool scientific = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  const auto end = std::to_chars(digits, digits + sizeof digits, value,
                                 scientific ? std::chars_format::scientific : std::chars_format::fixed);
  std::string text(digits, end.ptr);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string repr(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined: return "Undefined";
    case Value::Kind::kNone: return "None";
    case Value::Kind::kBool: return value.truth() ? "True" : "False";
    case Value::Kind::kInt: return std::to_string(value.as_integer());
    case Value::Kind::kFloat: return repr(value.as_double());
    case Value::Kind::kText: {
      const std::string quoted = repr_string(value.as_text().bytes());
      return value.is_markup() ? fmt::format("Markup({})", quoted) : quoted;
    }
    case Value::Kind::kList: return repr_items(value.as_list());
    case Value::Kind::kDict: return repr_entries(value.as_dict());
    case Value::Kind::kNamespace: return "<Namespace>";
    case Value::Kind::kCallable: return "<function " + value.as_callable().name + ">";
    case Value::Kind::kLoop:
      return fmt::format("<LoopContext {}/{}>", value.as_loop().index + 1,
                         value.as_loop().items->items.size());
  }
  return {};
}

Text to_text(const Value& value) {
  if (value.is_text()) return value.as_text();
  if (value.is_undefined()) return {};
  return Text(repr(value), value.is_number() && value.trusted());
}

std::string to_json(const Value& value, const JsonStyle& style) {
  std::string out;
  json_value(out, value, style, 0);
  return out;
}

}  // namespace bise::jinja
