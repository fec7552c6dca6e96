// The functions that every template finds: those of transformers' environment.
#include <array>
#include <ctime>

#include "base/error.h"
#include "text/jinja/operations.h"

namespace bise::jinja {
namespace {

// The sandbox's limit.
constexpr std::int64_t kMaxRange = 100'000;

Value range(Runtime& runtime, Arguments& arguments) {
  const auto given = arguments.bind("range", {"start", "stop", "step"}, 1);
  const bool has_start = given.has(1);
  const std::int64_t start = has_start ? given.integer(0, 0) : 0;
  const std::int64_t stop = given.integer(has_start ? 1 : 0, 0);
  const std::int64_t step = given.integer(2, 1);
  if (step == 0) throw Error("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<std::int64_t>(items.size()) >= kMaxRange) {
      throw Error("range too big: the sandbox blocks ranges larger than {}", kMaxRange);
    }
    items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  runtime.spend(64 * items.size());
  return Value::list(std::move(items));
}

// dict(mapping or pairs, key=value, ...)
Dict make_dict(Runtime& runtime, Arguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) throw Error("dict expected at most 1 argument");
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.is_undefined()) throw Error("{}", from.undefined_message());
    if (from.is_dict()) {
      dict = from.as_dict();
    } else {
      const auto pairs = items_of(runtime, from);
      for (const Value& pair : pairs->items) {
        const auto parts = items_of(runtime, pair);
        if (parts->items.size() != 2) throw Error("dict() needs pairs of key and value");
        dict.set(parts->items[0], parts->items[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.keyword) dict.set(Value::text(name, true), value);
  runtime.spend(128 * dict.entries().size());
  return dict;
}

Value dict(Runtime& runtime, Arguments& arguments) {
  return Value::dict(make_dict(runtime, arguments));
}

Value name_space(Runtime& runtime, Arguments& arguments) {
  auto object = std::make_shared<Namespace>();
  const Dict attributes = make_dict(runtime, arguments);
  for (const auto& [name, value] : attributes.entries()) {
    if (!name.is_text()) throw Error("namespace() needs names for keys");
    const std::string& attribute = name.as_text().bytes();
    if (attribute.starts_with('_')) {
      throw Error("cannot store the underscore-prefixed attribute '{}' on a namespace", attribute);
    }
    object->attributes.insert_or_assign(attribute, value);
  }
  return runtime.new_namespace(std::move(object));
}

Value raise_exception(Runtime&, Arguments& arguments) {
  const auto given = arguments.bind("raise_exception", {"message"}, 1);
  throw Error("{}", to_text(given[0]).bytes());
}

Value strftime_now(Runtime& runtime, Arguments& arguments) {
  const auto given = arguments.bind("strftime_now", {"format"}, 1);
  const Text& format = given.text(0);
  std::tm local{};
  localtime_r(&runtime.now, &local);
  std::array<char, 1024> buffer;
  const std::size_t size = std::strftime(buffer.data(), buffer.size(), format.bytes().c_str(), &local);
  if (size == 0 && !format.empty())
    throw Error("strftime_now(): cannot format the time as '{}'", format.bytes());
  return Value::text(std::string_view(buffer.data(), size), format.trusted());
}

}  // namespace

std::shared_ptr<Scope> make_globals() {
  auto scope = std::make_shared<Scope>();
  scope->variables = {{"range", Value::callable("range", range)},
                      {"dict", Value::callable("dict", dict)},
                      {"namespace", Value::callable("namespace", name_space)},
                      {"raise_exception", Value::callable("raise_exception", raise_exception)},
                      {"strftime_now", Value::callable("strftime_now", strftime_now)}};
  return scope;
}

}  // namespace bise::jinja
