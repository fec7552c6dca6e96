// Methods of strings. Each builds its result from parts of the texts it is given, so that every byte keeps
// its origin.
#include "text/jinja/string_operations.h"

#include <unordered_map>

#include "base/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/operations.h"

namespace bise::jinja {
namespace {

using Method = Value (*)(Runtime&, const Value& self, Arguments&);

template <bool left, bool right>
Value strip(Runtime&, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("strip", {"chars"});
  return Value::text(
      stripped(self.as_text(), given.has(0) && !given[0].is_none() ? &given.text(0) : nullptr, left, right));
}

Value split(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("split", {"sep", "maxsplit"});
  const Text* separator = given.has(0) && !given[0].is_none() ? &given.text(0) : nullptr;
  return Value::list(split_text(runtime, self.as_text(), separator, given.integer(1, -1), false));
}

Value rsplit(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("rsplit", {"sep", "maxsplit"});
  const Text* separator = given.has(0) && !given[0].is_none() ? &given.text(0) : nullptr;
  return Value::list(split_text(runtime, self.as_text(), separator, given.integer(1, -1), true));
}

Value splitlines(Runtime& runtime, const Value& self, Arguments& arguments) {
  const bool keep = arguments.bind("splitlines", {"keepends"}).flag(0, false);
  const Text& text = self.as_text();
  std::vector<Value> lines;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const LineEnd end = find_line_end(text.bytes(), begin);
    runtime.spend(128);
    lines.push_back(Value::text(text.part(begin, keep ? end.next : end.end)));
    begin = end.next;
  }
  return Value::list(std::move(lines));
}

template <bool from_right>
Value partition(Runtime&, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("partition", {"sep"}, 1);
  const Text& text = self.as_text();
  const Text& separator = given.text(0);
  if (separator.empty()) throw Error("empty separator");
  const std::size_t at =
      from_right ? text.bytes().rfind(separator.bytes()) : text.bytes().find(separator.bytes());
  const Value empty = Value::text(Text());
  if (at == std::string::npos) {
    return from_right ? Value::tuple({empty, empty, self}) : Value::tuple({self, empty, empty});
  }
  const std::size_t after = at + separator.size();
  return Value::tuple({Value::text(text.part(0, at)), Value::text(text.part(at, after)),
                       Value::text(text.part(after, text.size()))});
}

// self.startswith(prefix or tuple of them); no start and end positions.
template <bool at_end>
Value starts_or_ends(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind(at_end ? "endswith" : "startswith", {"affix"}, 1);
  const std::string_view text = self.as_text().bytes();
  const auto matches = [&](const Text& affix) {
    return at_end ? text.ends_with(affix.bytes()) : text.starts_with(affix.bytes());
  };
  if (!given[0].is_list()) return Value::boolean(matches(given.text(0)));
  const auto affixes = items_of(runtime, given[0]);
  for (const Value& affix : affixes->items) {
    if (!affix.is_text())
      throw Error("startswith and endswith need str or a tuple of str, not {}", affix.type_name());
    if (matches(affix.as_text())) return Value::boolean(true);
  }
  return Value::boolean(false);
}

template <bool at_end>
Value remove_affix(Runtime&, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind(at_end ? "removesuffix" : "removeprefix", {"affix"}, 1);
  const Text& text = self.as_text();
  const Text& affix = given.text(0);
  const std::string_view bytes = text.bytes();
  if (at_end)
    return bytes.ends_with(affix.bytes()) ? Value::text(text.part(0, text.size() - affix.size())) : self;
  return bytes.starts_with(affix.bytes()) ? Value::text(text.part(affix.size(), text.size())) : self;
}

Value replace(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("replace", {"old", "new", "count"}, 2);
  return Value::text(replaced(runtime, self.as_text(), given.text(0), given.text(1), given.integer(2, -1)));
}

Value join(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("join", {"iterable"}, 1);
  Text result;
  bool first = true;
  const auto items = items_of(runtime, given[0]);
  for (const Value& item : items->items) {
    if (!item.is_text()) throw Error("sequence item: expected str instance, {} found", item.type_name());
    if (!first) result.append(self.as_text());
    result.append(item.as_text());
    runtime.spend_text(result.size() < Runtime::kMaxOutput ? item.as_text().size() + self.as_text().size()
                                                           : result.size());
    first = false;
  }
  return Value::text(std::move(result));
}

// find, rfind, index, rindex: positions count characters.
template <bool from_right, bool must_be_there>
Value find(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("find", {"sub", "start"}, 1);
  const std::string& text = self.as_text().bytes();
  runtime.spend(text.size());
  std::int64_t start = given.integer(1, 0);
  if (start < 0) start = std::max<std::int64_t>(0, start + length_of(self));
  const std::size_t from = byte_offset(text, static_cast<std::size_t>(start));
  const std::string& wanted = given.text(0).bytes();
  std::size_t at = from_right ? text.rfind(wanted) : text.find(wanted, from);
  if (start > length_of(self) || (at != std::string::npos && at < from)) at = std::string::npos;
  if (at != std::string::npos) {
    return Value::integer(static_cast<std::int64_t>(count_characters(std::string_view(text).substr(0, at))));
  }
  if (must_be_there) throw Error("substring not found");
  return Value::integer(-1);
}

Value count(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("count", {"sub"}, 1);
  const std::string& text = self.as_text().bytes();
  const std::string& wanted = given.text(0).bytes();
  runtime.spend(text.size());
  if (wanted.empty()) return Value::integer(length_of(self) + 1);
  std::int64_t number = 0;
  for (std::size_t at = text.find(wanted); at != std::string::npos;
       at = text.find(wanted, at + wanted.size())) {
    ++number;
  }
  return Value::integer(number);
}

template <Text (*changed)(Runtime&, const Text&)>
Value change_case(Runtime& runtime, const Value& self, Arguments& arguments) {
  arguments.bind("str", {});
  return Value::text(changed(runtime, self.as_text()));
}

// isalpha and its like: the text is not empty and every character has one of the properties.
template <Property... accepted>
Value all_are(Runtime& runtime, const Value& self, Arguments& arguments) {
  arguments.bind("str", {});
  const std::string& text = self.as_text().bytes();
  runtime.spend(64 * text.size());
  for (std::size_t i = 0; i < text.size(); i += character_length(text[i])) {
    const std::uint32_t c = character_at(text, i);
    if (!(has_property(c, accepted) || ...)) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}

Value isspace(Runtime&, const Value& self, Arguments&) {
  const std::string& text = self.as_text().bytes();
  return Value::boolean(!text.empty() && skip_spaces(text, 0) == text.size());
}

template <const char* test>
Value tested(Runtime& runtime, const Value& self, Arguments& arguments) {
  runtime.spend(64 * self.as_text().size());
  return Value::boolean(apply_test(runtime, test, self, arguments));
}
constexpr char kLower[] = "lower", kUpper[] = "upper";

template <Alignment alignment>
Value pad(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("ljust", {"width", "fillchar"}, 1);
  const Text fill = given.has(1) ? given.text(1) : Text(" ", true);
  return Value::text(padded(runtime, self.as_text(), given.integer(0, 0), fill, alignment));
}

Value zfill(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("zfill", {"width"}, 1);
  const Text& text = self.as_text();
  const bool has_sign = !text.empty() && (text.bytes()[0] == '-' || text.bytes()[0] == '+');
  Text result = text.part(0, has_sign ? 1 : 0);
  result.append(padded(runtime, text.part(has_sign ? 1 : 0, text.size()),
                       given.integer(0, 0) - (has_sign ? 1 : 0), Text("0", true), Alignment::kRight));
  return Value::text(std::move(result));
}

Value expandtabs(Runtime& runtime, const Value& self, Arguments& arguments) {
  const std::int64_t width = arguments.bind("expandtabs", {"tabsize"}).integer(0, 8);
  const Text& text = self.as_text();
  Text result;
  std::int64_t column = 0;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = i + character_length(text.bytes()[i]);
    const char c = text.bytes()[i];
    if (c == '\t') {
      const std::int64_t spaces = width > 0 ? width - column % width : 0;
      runtime.spend_text(result.size() + static_cast<std::size_t>(spaces));
      result.append(std::string(static_cast<std::size_t>(spaces), ' '), text.trusted_at(i));
      column += spaces;
    } else {
      result.append_part(text, i, end);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    i = end;
  }
  return Value::text(std::move(result));
}

Value format(Runtime& runtime, const Value& self, Arguments& arguments) {
  return brace_format(runtime, self.as_text(), arguments);
}

Value marked(const Value& value) {
  if (value.is_text()) return Value::markup(value.as_text());
  if (!value.is_list()) return value;
  std::vector<Value> items;
  for (const Value& item : value.as_list().items) items.push_back(marked(item));
  return value.as_list().is_tuple ? Value::tuple(std::move(items)) : Value::list(std::move(items));
}

// A method of markup gives markup; what replace, join and format put into it is escaped.
Value markup_method(const std::string& name, const Value& self, Method method) {
  return Value::method(name, self, [name, method](Runtime& runtime, const Value& of, Arguments& arguments) {
    const auto escape = [&](Value& value) {
      if (value.is_text()) value = Value::text(as_markup(runtime, value));
    };
    if (name == "replace" && arguments.positional.size() > 1) escape(arguments.positional[1]);
    if (name == "format") {
      for (Value& value : arguments.positional) escape(value);
      for (auto& keyword : arguments.keyword) escape(keyword.second);
    }
    if (name == "join" && !arguments.positional.empty()) {
      std::vector<Value> items = items_of(runtime, arguments.positional[0])->items;
      for (Value& item : items) escape(item);
      arguments.positional[0] = Value::list(std::move(items));
    }
    return marked(method(runtime, of, arguments));
  });
}

}  // namespace

std::optional<Value> find_string_method(const Value& text, std::string_view name) {
  static const std::unordered_map<std::string_view, Method> kMethods = {
      {"strip", strip<true, true>},
      {"lstrip", strip<true, false>},
      {"rstrip", strip<false, true>},
      {"split", split},
      {"rsplit", rsplit},
      {"splitlines", splitlines},
      {"partition", partition<false>},
      {"rpartition", partition<true>},
      {"startswith", starts_or_ends<false>},
      {"endswith", starts_or_ends<true>},
      {"removeprefix", remove_affix<false>},
      {"removesuffix", remove_affix<true>},
      {"replace", replace},
      {"join", join},
      {"find", find<false, false>},
      {"rfind", find<true, false>},
      {"index", find<false, true>},
      {"rindex", find<true, true>},
      {"count", count},
      {"upper", change_case<upper>},
      {"lower", change_case<lower>},
      {"casefold", change_case<lower>},
      {"capitalize", change_case<capitalized>},
      {"title", change_case<titled>},
      {"swapcase", change_case<swapped_case>},
      {"isalpha", all_are<Property::kAlphabetic>},
      {"isdigit", all_are<Property::kDigit>},
      {"isdecimal", all_are<Property::kDecimal>},
      {"isnumeric", all_are<Property::kNumeric>},
      {"isalnum", all_are<Property::kAlphabetic, Property::kNumeric>},
      {"isspace", isspace},
      {"islower", tested<kLower>},
      {"isupper", tested<kUpper>},
      {"ljust", pad<Alignment::kLeft>},
      {"rjust", pad<Alignment::kRight>},
      {"center", pad<Alignment::kCenter>},
      {"zfill", zfill},
      {"expandtabs", expandtabs},
      {"format", format},
  };
  const auto found = kMethods.find(name);
  if (found == kMethods.end()) return std::nullopt;
  if (text.is_markup()) return markup_method(std::string(name), text, found->second);
  return Value::method(std::string(name), text, found->second);
}

}  // namespace bise::jinja
