#include "text/jinja/string_operations.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/jinja/characters.h"

namespace bise::jinja {
namespace {

bool contains_character(std::string_view chars, std::string_view character) {
  return chars.find(character) != std::string_view::npos;
}

std::size_t last_character(std::string_view text, std::size_t end) {
  std::size_t start = end - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
  return start;
}

std::vector<Value> split_by_spaces(Runtime& runtime, const Text& text, std::int64_t max_splits) {
  std::vector<Value> parts;
  const std::string& bytes = text.bytes();
  std::size_t begin = skip_spaces(bytes, 0);
  while (begin < bytes.size()) {
    runtime.spend(128);
    if (max_splits >= 0 && static_cast<std::int64_t>(parts.size()) >= max_splits) {
      parts.push_back(Value::text(text.part(begin, bytes.size())));
      break;
    }
    std::size_t end = begin;
    while (end < bytes.size() && !is_space(character_at(bytes, end))) end += character_length(bytes[end]);
    parts.push_back(Value::text(text.part(begin, end)));
    begin = skip_spaces(bytes, end);
  }
  return parts;
}

std::vector<Value> rsplit_by_spaces(Runtime& runtime, const Text& text, std::int64_t max_splits) {
  std::vector<Value> parts;
  const std::string& bytes = text.bytes();
  const auto end_before = [&](std::size_t at) {
    return end_without_spaces(std::string_view(bytes).substr(0, at));
  };
  std::size_t end = end_before(bytes.size());
  while (end > 0) {
    runtime.spend(128);
    std::size_t begin = end;
    if (max_splits >= 0 && static_cast<std::int64_t>(parts.size()) >= max_splits) {
      begin = 0;
    } else {
      while (begin > 0 && !is_space(character_at(bytes, last_character(bytes, begin)))) {
        begin = last_character(bytes, begin);
      }
    }
    parts.push_back(Value::text(text.part(begin, end)));
    end = end_before(begin);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

// Applies `change` to each character; `position` counts them from 0.
template <class Change>
Text mapped(Runtime& runtime, const Text& text, Change change) {
  runtime.spend(8 * text.size());
  Text result;
  std::string changed;
  for (std::size_t i = 0; i < text.size();) {
    const std::uint32_t c = character_at(text.bytes(), i);
    if (c >= 0x80) runtime.spend(200);
    changed.clear();
    append_character(changed, change(c));
    result.append(changed, text.trusted_at(i));
    i += character_length(text.bytes()[i]);
  }
  return result;
}

bool is_cased(std::uint32_t c) {
  return to_upper(c) != c || to_lower(c) != c;
}

}  // namespace

Text stripped(const Text& text, const Text* chars, bool left, bool right) {
  const std::string_view bytes = text.bytes();
  std::size_t begin = 0;
  std::size_t end = bytes.size();
  const auto strips = [&](std::size_t at) {
    return chars ? contains_character(chars->bytes(), bytes.substr(at, character_length(bytes[at])))
                 : is_space(character_at(bytes, at));
  };
  while (left && begin < end && strips(begin)) begin += character_length(bytes[begin]);
  while (right && end > begin && strips(last_character(bytes, end))) end = last_character(bytes, end);
  return text.part(begin, end);
}

std::vector<Value> split_text(Runtime& runtime, const Text& text, const Text* separator,
                              std::int64_t max_splits, bool from_right) {
  runtime.spend(text.size());
  if (!separator) {
    return from_right ? rsplit_by_spaces(runtime, text, max_splits)
                      : split_by_spaces(runtime, text, max_splits);
  }
  if (separator->empty()) throw Error("empty separator");
  const std::string& bytes = text.bytes();
  const std::string& by = separator->bytes();
  std::vector<Value> parts;
  const auto may_split = [&] {
    return max_splits < 0 || static_cast<std::int64_t>(parts.size()) < max_splits;
  };
  if (from_right) {
    std::size_t end = bytes.size();
    while (may_split() && end >= by.size()) {
      const std::size_t at = bytes.rfind(by, end - by.size());
      if (at == std::string::npos) break;
      runtime.spend(128);
      parts.push_back(Value::text(text.part(at + by.size(), end)));
      end = at;
    }
    parts.push_back(Value::text(text.part(0, end)));
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  std::size_t begin = 0;
  while (may_split()) {
    const std::size_t at = bytes.find(by, begin);
    if (at == std::string::npos) break;
    runtime.spend(128);
    parts.push_back(Value::text(text.part(begin, at)));
    begin = at + by.size();
  }
  parts.push_back(Value::text(text.part(begin, bytes.size())));
  return parts;
}

Text replaced(Runtime& runtime, const Text& text, const Text& from, const Text& to, std::int64_t count) {
  runtime.spend(text.size());
  const std::string& bytes = text.bytes();
  Text result;
  std::size_t begin = 0;
  std::size_t search = 0;
  for (; count != 0 && search <= bytes.size(); count -= count > 0) {
    const std::size_t at = bytes.find(from.bytes(), search);
    if (at == std::string::npos) break;
    result.append_part(text, begin, at);
    result.append(to);
    runtime.spend_text(result.size() > Runtime::kMaxOutput ? result.size() : to.size());
    begin = at + from.size();
    // an empty `from` matches before each character and at the end
    search = !from.empty() ? begin : at < bytes.size() ? at + character_length(bytes[at]) : bytes.size() + 1;
  }
  result.append_part(text, begin, bytes.size());
  runtime.spend_text(result.size());
  return result;
}

LineEnd find_line_end(std::string_view text, std::size_t begin) {
  for (std::size_t i = begin; i < text.size(); i += character_length(text[i])) {
    const std::uint32_t c = character_at(text, i);
    if (c == '\r' && i + 1 < text.size() && text[i + 1] == '\n') return {i, i + 2};
    if ((c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029) {
      return {i, i + character_length(text[i])};
    }
  }
  return {text.size(), text.size()};
}

Text upper(Runtime& runtime, const Text& text) {
  return mapped(runtime, text, to_upper);
}
Text lower(Runtime& runtime, const Text& text) {
  return mapped(runtime, text, to_lower);
}

Text capitalized(Runtime& runtime, const Text& text) {
  bool first = true;
  return mapped(runtime, text,
                [&](std::uint32_t c) { return std::exchange(first, false) ? to_upper(c) : to_lower(c); });
}

Text titled(Runtime& runtime, const Text& text) {
  bool after_letter = false;
  return mapped(runtime, text, [&](std::uint32_t c) {
    const std::uint32_t changed = after_letter ? to_lower(c) : to_upper(c);
    after_letter = is_cased(c);
    return changed;
  });
}

Text swapped_case(Runtime& runtime, const Text& text) {
  return mapped(runtime, text, [](std::uint32_t c) { return to_upper(c) != c ? to_upper(c) : to_lower(c); });
}

Text escaped(Runtime& runtime, const Text& text) {
  runtime.spend(8 * text.size());
  Text result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char& c = text.bytes()[i];
    const std::string_view entity = c == '&'    ? "&amp;"
                                    : c == '<'  ? "&lt;"
                                    : c == '>'  ? "&gt;"
                                    : c == '"'  ? "&#34;"
                                    : c == '\'' ? "&#39;"
                                                : std::string_view(&c, 1);
    result.append(entity, text.trusted_at(i));
  }
  runtime.spend_text(result.size());
  return result;
}

Text as_markup(Runtime& runtime, const Value& value) {
  return value.is_markup() ? value.as_text() : escaped(runtime, to_text(value));
}

Text padded(Runtime& runtime, const Text& text, std::int64_t width, const Text& fill, Alignment alignment) {
  if (count_characters(fill.bytes()) != 1)
    throw Error("the fill character must be exactly one character long");
  const auto length = static_cast<std::int64_t>(count_characters(text.bytes()));
  if (width <= length) return text;
  const std::int64_t missing = width - length;
  runtime.spend_text(text.size() + 4 * static_cast<std::size_t>(missing));
  runtime.spend(8 * static_cast<std::size_t>(missing));
  // an odd space goes to the left when the width is odd, as in CPython's str.center
  const std::int64_t left = alignment == Alignment::kLeft    ? 0
                            : alignment == Alignment::kRight ? missing
                                                             : missing / 2 + (missing & width & 1);
  Text result;
  for (std::int64_t i = 0; i < left; ++i) result.append(fill);
  result.append(text);
  for (std::int64_t i = left; i < missing; ++i) result.append(fill);
  return result;
}

}  // namespace bise::jinja
