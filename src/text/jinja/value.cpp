#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bise::jinja {
namespace {

int depth_above(int inner) {
  if (inner >= kMaxDepth) throw Error("a value of the template is nested deeper than {} levels", kMaxDepth);
  return inner + 1;
}

std::size_t weight_above(std::size_t present, const Value& added) {
  const std::size_t weight = present + 1 + added.weight();
  if (weight > kMaxWeight)
    throw Error("a value of the template is larger than {} bytes and items", kMaxWeight);
  return weight;
}

// Equal keys have equal text: 1, 1.0 and true are one key, as in Python.
std::string key_text(const Value& key) {
  if (key.is_text()) return fmt::format("s{}", key.as_text().bytes());
  if (key.is_integral()) return fmt::format("n{}", key.as_integer());
  if (key.is_number()) {
    const double number = key.as_double();
    if (number == std::floor(number) && std::abs(number) < 9e18) {
      return fmt::format("n{}", static_cast<std::int64_t>(number));
    }
    return fmt::format("f{}", repr(number));
  }
  if (key.is_none()) return "none";
  if (key.is_undefined()) return "undefined";
  if (key.is_list() && key.as_list().is_tuple) {
    std::string text = "t";
    for (const Value& item : key.as_list().items) {
      const std::string part = key_text(item);
      text += fmt::format("{}:{}", part.size(), part);
    }
    return text;
  }
  throw Error("unhashable type: '{}'", key.type_name());
}

}  // namespace

const Value* Dict::find(const Value& key) const {
  const auto found = index_.find(key_text(key));
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

const Value* Dict::find(std::string_view key) const {
  const auto found = index_.find(fmt::format("s{}", key));
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

void Dict::set(const Value& key, Value value) {
  depth = std::max({depth, depth_above(key.depth()), depth_above(value.depth())});
  weight = weight_above(weight_above(weight, key), value);
  const auto [found, added] = index_.try_emplace(key_text(key), entries_.size());
  if (added) {
    entries_.emplace_back(key, std::move(value));
  } else {
    entries_[found->second].second = std::move(value);
  }
}

Value Value::undefined(std::string message) {
  return Value(Data(std::make_shared<const Undefined>(Undefined{std::move(message)})));
}

Value Value::markup(Text text) {
  Value value = Value::text(std::move(text));
  value.markup_ = true;
  return value;
}

Value Value::sequence(std::vector<Value> items, bool is_tuple) {
  List list{std::move(items), is_tuple};
  for (const Value& item : list.items) {
    list.depth = std::max(list.depth, depth_above(item.depth()));
    list.weight = weight_above(list.weight, item);
  }
  return Value(Data(std::make_shared<const List>(std::move(list))));
}

Value Value::list(std::vector<Value> items) {
  return sequence(std::move(items), false);
}
Value Value::tuple(std::vector<Value> items) {
  return sequence(std::move(items), true);
}

Value Value::dict(Dict dict) {
  return Value(Data(std::make_shared<const Dict>(std::move(dict))));
}

Value Value::callable(std::string name, std::function<Value(Runtime&, Arguments&)> call) {
  return Value(Data(std::make_shared<const Callable>(Callable{std::move(name), std::move(call), 1})));
}

Value Value::method(std::string name, const Value& self,
                    std::function<Value(Runtime&, const Value&, Arguments&)> call) {
  auto bound = [self, call = std::move(call)](Runtime& runtime, Arguments& arguments) {
    return call(runtime, self, arguments);
  };
  return Value(Data(std::make_shared<const Callable>(
      Callable{std::move(name), std::move(bound), depth_above(self.depth())})));
}

Value Value::from_json(const Json& json, bool trusted) {
  switch (json.type()) {
    case Json::value_t::boolean: return boolean(json.get<bool>());
    case Json::value_t::number_integer: return integer(json.get<std::int64_t>(), trusted);
    case Json::value_t::number_unsigned:
      if (json.get<std::uint64_t>() > INT64_MAX) throw Error("integer {} is beyond 64 bits", json.dump());
      return integer(json.get<std::int64_t>(), trusted);
    case Json::value_t::number_float: return floating(json.get<double>(), trusted);
    case Json::value_t::string: return text(json.get_ref<const std::string&>(), trusted);
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(from_json(item, trusted));
      return list(std::move(items));
    }
    case Json::value_t::object: {
      Dict entries;
      for (const auto& [key, item] : json.items()) entries.set(text(key, trusted), from_json(item, trusted));
      return dict(std::move(entries));
    }
    default: return none();
  }
}

std::int64_t Value::as_integer() const {
  if (const bool* flag = std::get_if<bool>(&data_)) return *flag;
  return std::get<std::int64_t>(data_);
}

double Value::as_double() const {
  if (const double* number = std::get_if<double>(&data_)) return *number;
  return static_cast<double>(as_integer());
}

const std::string& Value::undefined_message() const {
  static const std::string kUnnamed = "the value is undefined";
  const auto& undefined = std::get<std::shared_ptr<const Undefined>>(data_);
  return undefined ? undefined->message : kUnnamed;
}

int Value::depth() const {
  switch (kind()) {
    case Kind::kList: return as_list().depth;
    case Kind::kDict: return as_dict().depth;
    case Kind::kCallable: return as_callable().depth;
    case Kind::kLoop: return as_loop().items->depth + 1;
    default: return 0;
  }
}

std::size_t Value::weight() const {
  switch (kind()) {
    case Kind::kText: return as_text().size();
    case Kind::kList: return as_list().weight;
    case Kind::kDict: return as_dict().weight;
    default: return 8;
  }
}

bool Value::truth() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return false;
    case Kind::kBool:
    case Kind::kInt: return as_integer() != 0;
    case Kind::kFloat: return as_double() != 0;
    case Kind::kText: return !as_text().empty();
    case Kind::kList: return !as_list().items.empty();
    case Kind::kDict: return !as_dict().entries().empty();
    default: return true;
  }
}

std::string Value::type_name() const {
  switch (kind()) {
    case Kind::kUndefined: return "Undefined";
    case Kind::kNone: return "NoneType";
    case Kind::kBool: return "bool";
    case Kind::kInt: return "int";
    case Kind::kFloat: return "float";
    case Kind::kText: return "str";
    case Kind::kList: return as_list().is_tuple ? "tuple" : "list";
    case Kind::kDict: return "dict";
    case Kind::kNamespace: return "Namespace";
    case Kind::kCallable: return "function";
    case Kind::kLoop: return "LoopContext";
  }
  return "object";
}

bool equal(const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) return left.as_integer() == right.as_integer();
    return left.as_double() == right.as_double();
  }
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Value::Kind::kText: return left.as_text().bytes() == right.as_text().bytes();
    case Value::Kind::kList:
      return left.as_list().is_tuple == right.as_list().is_tuple &&
             std::equal(left.as_list().items.begin(), left.as_list().items.end(),
                        right.as_list().items.begin(), right.as_list().items.end(), equal);
    case Value::Kind::kDict: {
      const auto& entries = left.as_dict().entries();
      if (entries.size() != right.as_dict().entries().size()) return false;
      return std::all_of(entries.begin(), entries.end(), [&](const auto& entry) {
        const Value* other = right.as_dict().find(entry.first);
        return other && equal(entry.second, *other);
      });
    }
    case Value::Kind::kNamespace: return &left.as_namespace() == &right.as_namespace();
    case Value::Kind::kCallable: return &left.as_callable() == &right.as_callable();
    case Value::Kind::kLoop: return &left.as_loop() == &right.as_loop();
    default: return true;
  }
}

bool less(const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) return left.as_integer() < right.as_integer();
    return left.as_double() < right.as_double();
  }
  if (left.is_text() && right.is_text()) return left.as_text().bytes() < right.as_text().bytes();
  if (left.is_list() && right.is_list() && left.as_list().is_tuple == right.as_list().is_tuple) {
    const auto& a = left.as_list().items;
    const auto& b = right.as_list().items;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      if (!equal(a[i], b[i])) return less(a[i], b[i]);
    }
    return a.size() < b.size();
  }
  if (left.is_undefined()) throw Error("{}", left.undefined_message());
  if (right.is_undefined()) throw Error("{}", right.undefined_message());
  throw Error("'<' not supported between instances of '{}' and '{}'", left.type_name(), right.type_name());
}

}  // namespace bise::jinja
