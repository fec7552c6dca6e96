// object.name, object[index], object[start:stop:step].
#include <algorithm>

#include "base/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/operations.h"

namespace bise::jinja {
namespace {

// How Jinja's messages name an object: "'dict object' has no attribute 'x'".
std::string described(const Value& object) {
  return object.is_none() ? "None" : object.type_name() + " object";
}

std::optional<Value> loop_attribute(const Loop& loop, std::string_view name) {
  const auto& items = loop.items->items;
  const auto index = static_cast<std::int64_t>(loop.index);
  const auto length = static_cast<std::int64_t>(items.size());
  if (name == "index") return Value::integer(index + 1);
  if (name == "index0") return Value::integer(index);
  if (name == "revindex") return Value::integer(length - index);
  if (name == "revindex0") return Value::integer(length - index - 1);
  if (name == "first") return Value::boolean(index == 0);
  if (name == "last") return Value::boolean(index + 1 == length);
  if (name == "length") return Value::integer(length);
  if (name == "depth") return Value::integer(loop.nesting + 1);
  if (name == "depth0") return Value::integer(loop.nesting);
  if (name == "previtem") {
    return index > 0 ? items[loop.index - 1] : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return index + 1 < length ? items[loop.index + 1] : Value::undefined("there is no next item");
  }
  return std::nullopt;
}

std::optional<Value> find_attribute(const Value& object, std::string_view name) {
  if (object.kind() == Value::Kind::kNamespace) {
    const auto& attributes = object.as_namespace().attributes;
    const auto found = attributes.find(name);
    return found == attributes.end() ? std::nullopt : std::optional(found->second);
  }
  if (object.kind() == Value::Kind::kLoop) {
    if (auto value = loop_attribute(object.as_loop(), name)) return value;
  }
  return find_method(object, name);
}

std::optional<Value> find_item(Runtime& runtime, const Value& object, const Value& index) {
  if (object.is_dict()) {
    if (index.is_list() && !index.as_list().is_tuple) return std::nullopt;
    if (index.is_dict()) return std::nullopt;
    const Value* found = object.as_dict().find(index);
    return found ? std::optional(*found) : std::nullopt;
  }
  if (!index.is_integral() || !(object.is_list() || object.is_text())) return std::nullopt;
  if (object.is_text()) runtime.spend(object.as_text().size());
  const std::int64_t length = length_of(object);
  std::int64_t at = index.as_integer();
  if (at < 0) at += length;
  if (at < 0 || at >= length) return std::nullopt;
  if (object.is_list()) return object.as_list().items[static_cast<std::size_t>(at)];
  const Text& text = object.as_text();
  const std::size_t begin = byte_offset(text.bytes(), static_cast<std::size_t>(at));
  return Value::text(text.part(begin, begin + character_length(text.bytes()[begin])));
}

struct Bounds {
  std::int64_t start, stop, step;
};

// Python's slice.indices(length).
Bounds slice_bounds(const Value& start, const Value& stop, const Value& step, std::int64_t length) {
  const auto given = [](const Value& value) { return !value.is_undefined() && !value.is_none(); };
  for (const Value* value : {&start, &stop, &step}) {
    if (given(*value) && !value->is_integral()) {
      throw Error("slice indices must be integers or None, not {}", value->type_name());
    }
  }
  Bounds bounds{};
  bounds.step = given(step) ? std::clamp<std::int64_t>(step.as_integer(), -INT64_MAX, INT64_MAX) : 1;
  if (bounds.step == 0) throw Error("slice step cannot be zero");
  const std::int64_t lowest = bounds.step < 0 ? -1 : 0;
  const std::int64_t highest = bounds.step < 0 ? length - 1 : length;
  const auto bound = [&](const Value& value, std::int64_t fallback) {
    if (!given(value)) return fallback;
    const std::int64_t at = value.as_integer();
    return at < 0 ? std::max(at < -length ? lowest : at + length, lowest) : std::min(at, highest);
  };
  bounds.start = bound(start, bounds.step < 0 ? highest : lowest);
  bounds.stop = bound(stop, bounds.step < 0 ? lowest : highest);
  return bounds;
}

Value slice_text(Runtime& runtime, const Text& text, const Bounds& bounds) {
  runtime.spend(text.size());
  const std::string& bytes = text.bytes();
  if (bounds.step == 1) {
    const std::size_t begin = byte_offset(bytes, static_cast<std::size_t>(bounds.start));
    const std::size_t end = byte_offset(bytes, static_cast<std::size_t>(std::max(bounds.start, bounds.stop)));
    return Value::text(text.part(begin, end));
  }
  runtime.spend(16 * bytes.size());
  std::vector<std::size_t> offsets;
  for (std::size_t i = 0; i < bytes.size(); i += character_length(bytes[i])) offsets.push_back(i);
  Text result;
  for (std::int64_t i = bounds.start; bounds.step > 0 ? i < bounds.stop : i > bounds.stop;) {
    const std::size_t at = offsets[static_cast<std::size_t>(i)];
    result.append_part(text, at, at + character_length(bytes[at]));
    if (__builtin_add_overflow(i, bounds.step, &i)) break;
  }
  return Value::text(std::move(result));
}

}  // namespace

Value attribute_of(Runtime& runtime, const Value& object, const Value& name) {
  if (object.is_undefined()) throw Error("{}", object.undefined_message());
  const std::string& text = name.as_text().bytes();
  if (auto value = find_attribute(object, text)) return *value;
  if (auto value = find_item(runtime, object, name)) return *value;
  return Value::undefined(fmt::format("'{}' has no attribute '{}'", described(object), text));
}

Value item_of(Runtime& runtime, const Value& object, const Value& index) {
  if (object.is_undefined()) throw Error("{}", object.undefined_message());
  if (auto value = find_item(runtime, object, index)) return *value;
  if (index.is_text()) {
    if (auto value = find_attribute(object, index.as_text().bytes())) return *value;
    return Value::undefined(
        fmt::format("'{}' has no attribute '{}'", described(object), index.as_text().bytes()));
  }
  return Value::undefined(fmt::format("{} has no element {}", described(object), repr(index)));
}

Value slice_of(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
               const Value& step) {
  if (object.is_undefined()) throw Error("{}", object.undefined_message());
  if (!object.is_text() && !object.is_list())
    return Value::undefined(described(object) + " cannot be sliced");
  const Bounds bounds = slice_bounds(start, stop, step, length_of(object));
  if (object.is_text()) return slice_text(runtime, object.as_text(), bounds);
  std::vector<Value> items;
  runtime.spend(64 * object.as_list().items.size());
  for (std::int64_t i = bounds.start; bounds.step > 0 ? i < bounds.stop : i > bounds.stop;) {
    items.push_back(object.as_list().items[static_cast<std::size_t>(i)]);
    if (__builtin_add_overflow(i, bounds.step, &i)) break;
  }
  return object.as_list().is_tuple ? Value::tuple(std::move(items)) : Value::list(std::move(items));
}

}  // namespace bise::jinja
