// A value of a template expression, with Python's meaning: truth, equality, order, str() and repr().
// Values are immutable (namespaces and loops aside) and cheap to copy. Everything a value holds is at most
// kMaxDepth deep and weighs at most kMaxWeight, so that walking over it is safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "text/jinja/text.h"

namespace bise::jinja {

class Value;
class Runtime;
class Arguments;

inline constexpr int kMaxDepth = 250;
// Bytes of text plus items, counted as often as they would be printed: [x, x] weighs twice what x does.
inline constexpr std::size_t kMaxWeight = std::size_t{1} << 26;

struct Undefined {
  std::string message;  // what an attempt to use it says: "'x' is undefined"
};
struct None {};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;
  std::size_t weight = 1;
};

// Keys in order of insertion.
class Dict {
 public:
  // Null when absent. Throws Error on an unhashable key (list, dict).
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(const Value& key, Value value);
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  int depth = 1;
  std::size_t weight = 1;

 private:
  std::vector<std::pair<Value, Value>> entries_;
  std::unordered_map<std::string, std::size_t> index_;
};

// The object made by namespace(): the only thing a template may change.
struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

// A macro, a global function or a method bound to its object.
struct Callable {
  std::string name;
  std::function<Value(Runtime&, Arguments&)> call;
  int depth = 1;
};

// The `loop` variable of a for statement.
struct Loop {
  std::shared_ptr<const List> items;
  std::size_t index = 0;  // of the present item
  int nesting = 0;        // loop.depth0
  Callable recurse;       // loop(children); empty unless the loop is recursive
  std::vector<Value> last_checked;
  bool was_checked = false;
};

class Value {
 public:
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kFloat,
    kText,
    kList,
    kDict,
    kNamespace,
    kCallable,
    kLoop
  };

  Value() : data_(std::shared_ptr<const Undefined>()) {}
  static Value undefined(std::string message);
  static Value none() { return Value(Data(None{})); }
  static Value boolean(bool value) { return Value(Data(value)); }
  static Value integer(std::int64_t value, bool trusted = true) { return Value(Data(value), trusted); }
  static Value floating(double value, bool trusted = true) { return Value(Data(value), trusted); }
  static Value text(Text text) { return Value(Data(std::make_shared<const Text>(std::move(text)))); }
  // Text that `safe` or `escape` has declared to be HTML: what is added to it is escaped.
  static Value markup(Text text);
  static Value text(std::string_view bytes, bool trusted) { return text(Text(bytes, trusted)); }
  // These throw Error when the result would be deeper than kMaxDepth or heavier than kMaxWeight.
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  static Value dict(Dict dict);
  static Value callable(std::string name, std::function<Value(Runtime&, Arguments&)> call);
  // A method of `self`.
  static Value method(std::string name, const Value& self,
                      std::function<Value(Runtime&, const Value&, Arguments&)> call);
  static Value name_space(std::shared_ptr<Namespace> object) { return Value(Data(std::move(object))); }
  static Value loop(std::shared_ptr<Loop> object) { return Value(Data(std::move(object))); }
  // Every string and number inside is marked `trusted` or not. Throws Error on an integer beyond 64 bits.
  static Value from_json(const Json& json, bool trusted);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_text() const { return kind() == Kind::kText; }
  bool is_markup() const { return markup_; }
  bool is_list() const { return kind() == Kind::kList; }  // or tuple
  bool is_dict() const { return kind() == Kind::kDict; }
  // bool, int or float; the first two are integral.
  bool is_number() const { return kind() >= Kind::kBool && kind() <= Kind::kFloat; }
  bool is_integral() const { return kind() == Kind::kBool || kind() == Kind::kInt; }

  // Each may be called on a value of its kind only.
  std::int64_t as_integer() const;  // integral
  double as_double() const;         // number
  const Text& as_text() const { return *std::get<std::shared_ptr<const Text>>(data_); }
  const List& as_list() const { return *std::get<std::shared_ptr<const List>>(data_); }
  std::shared_ptr<const List> list_pointer() const { return std::get<std::shared_ptr<const List>>(data_); }
  const Dict& as_dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Namespace& as_namespace() const { return *std::get<std::shared_ptr<Namespace>>(data_); }
  const Callable& as_callable() const { return *std::get<std::shared_ptr<const Callable>>(data_); }
  Loop& as_loop() const { return *std::get<std::shared_ptr<Loop>>(data_); }
  const std::string& undefined_message() const;

  // Whether the text of this number counts as written by the template.
  bool trusted() const { return trusted_; }
  int depth() const;
  std::size_t weight() const;
  bool truth() const;
  // The Python type's name, as error messages give it: "int", "dict", "Undefined".
  std::string type_name() const;

 private:
  using Data =
      std::variant<std::shared_ptr<const Undefined>, None, bool, std::int64_t, double,
                   std::shared_ptr<const Text>, std::shared_ptr<const List>, std::shared_ptr<const Dict>,
                   std::shared_ptr<Namespace>, std::shared_ptr<const Callable>, std::shared_ptr<Loop>>;
  explicit Value(Data data, bool trusted = true) : data_(std::move(data)), trusted_(trusted) {}
  static Value sequence(std::vector<Value> items, bool is_tuple);

  Data data_;
  bool trusted_ = true;
  bool markup_ = false;
};

// Python's ==.
bool equal(const Value& left, const Value& right);
// Python's <. Throws Error when the two cannot be ordered.
bool less(const Value& left, const Value& right);

// str(value); "" for undefined. What {{ value }} prints.
Text to_text(const Value& value);
// repr(value). What comes from strings keeps no trust: the result is untrusted unless it is one number.
std::string repr(const Value& value);
// repr of a float: the shortest digits that read back the same.
std::string repr(double value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool indented = false;
  std::string indent;  // one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// json.dumps. Throws Error on what JSON cannot hold (undefined, functions).
std::string to_json(const Value& value, const JsonStyle& style);

}  // namespace bise::jinja
