// Methods of lists, tuples, dicts and loops.
#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "text/jinja/operations.h"

namespace bise::jinja {
namespace {

using Method = Value (*)(Runtime&, const Value& self, Arguments&);

Value refuse_change(Runtime&, const Value& self, Arguments&) {
  throw Error("a template must not change a {}: build a new one, or use a namespace", self.type_name());
}

Value list_count(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("count", {"value"}, 1);
  runtime.spend(self.weight());
  const auto& items = self.as_list().items;
  return Value::integer(
      std::count_if(items.begin(), items.end(), [&](const Value& v) { return equal(v, given[0]); }));
}

Value list_index(Runtime& runtime, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("index", {"value"}, 1);
  runtime.spend(self.weight());
  const auto& items = self.as_list().items;
  const auto found =
      std::find_if(items.begin(), items.end(), [&](const Value& v) { return equal(v, given[0]); });
  if (found == items.end()) throw Error("{} is not in list", repr(given[0]));
  return Value::integer(found - items.begin());
}

Value copy(Runtime&, const Value& self, Arguments& arguments) {
  arguments.bind("copy", {});
  return self;
}

Value dict_keys(Runtime& runtime, const Value& self, Arguments& arguments) {
  arguments.bind("keys", {});
  return Value::list(items_of(runtime, self)->items);
}

Value dict_values(Runtime& runtime, const Value& self, Arguments& arguments) {
  arguments.bind("values", {});
  runtime.spend(64 * self.as_dict().entries().size());
  std::vector<Value> values;
  for (const auto& entry : self.as_dict().entries()) values.push_back(entry.second);
  return Value::list(std::move(values));
}

Value dict_items(Runtime& runtime, const Value& self, Arguments& arguments) {
  arguments.bind("items", {});
  runtime.spend(192 * self.as_dict().entries().size());
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.as_dict().entries()) pairs.push_back(Value::tuple({key, value}));
  return Value::list(std::move(pairs));
}

Value dict_get(Runtime&, const Value& self, Arguments& arguments) {
  const auto given = arguments.bind("get", {"key", "default"}, 1);
  if (const Value* found = self.as_dict().find(given[0])) return *found;
  return given.has(1) ? given[1] : Value::none();
}

Value loop_cycle(Runtime&, const Value& self, Arguments& arguments) {
  if (arguments.positional.empty()) throw Error("no items for cycling given");
  return arguments.positional[self.as_loop().index % arguments.positional.size()];
}

Value loop_changed(Runtime& runtime, const Value& self, Arguments& arguments) {
  Loop& loop = self.as_loop();
  for (const Value& value : arguments.positional) runtime.spend(value.weight());
  const bool same =
      loop.was_checked && std::equal(loop.last_checked.begin(), loop.last_checked.end(),
                                     arguments.positional.begin(), arguments.positional.end(), equal);
  loop.was_checked = true;
  loop.last_checked = arguments.positional;
  return Value::boolean(!same);
}

using Table = std::unordered_map<std::string_view, Method>;

const Table& methods_of(Value::Kind kind, bool is_tuple) {
  static const Table kNone;
  static const Table kTuple = {{"count", list_count}, {"index", list_index}};
  static const Table kList = {
      {"count", list_count},      {"index", list_index},     {"copy", copy},
      {"append", refuse_change},  {"extend", refuse_change}, {"insert", refuse_change},
      {"pop", refuse_change},     {"remove", refuse_change}, {"clear", refuse_change},
      {"reverse", refuse_change}, {"sort", refuse_change}};
  static const Table kDict = {{"keys", dict_keys},      {"values", dict_values},
                              {"items", dict_items},    {"get", dict_get},
                              {"copy", copy},           {"update", refuse_change},
                              {"pop", refuse_change},   {"popitem", refuse_change},
                              {"clear", refuse_change}, {"setdefault", refuse_change}};
  static const Table kLoop = {{"cycle", loop_cycle}, {"changed", loop_changed}};
  switch (kind) {
    case Value::Kind::kList: return is_tuple ? kTuple : kList;
    case Value::Kind::kDict: return kDict;
    case Value::Kind::kLoop: return kLoop;
    default: return kNone;
  }
}

}  // namespace

std::optional<Value> find_method(const Value& object, std::string_view name) {
  if (object.is_text()) return find_string_method(object, name);
  const Table& table = methods_of(object.kind(), object.is_list() && object.as_list().is_tuple);
  const auto found = table.find(name);
  if (found == table.end()) return std::nullopt;
  return Value::method(std::string(name), object, found->second);
}

}  // namespace bise::jinja
