// Filters on sequences. What Jinja computes lazily is a list here.
#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/operations.h"
#include "text/jinja/string_operations.h"

namespace bise::jinja {
namespace {

using Items = std::vector<Value>;

Items items(Runtime& runtime, const Value& input) {
  const auto list = items_of(runtime, input);
  runtime.spend(64 * list->items.size());
  return list->items;
}

// What filters such as sort(attribute="a.b") look at: a path of names and indices, or the item itself.
class Key {
 public:
  // `path` is a string, an integer, or nothing (undefined or None).
  Key(const Value& path, Value fallback = Value()) : fallback_(std::move(fallback)) {
    if (path.is_integral()) parts_.push_back(path);
    if (!path.is_text()) return;
    std::string_view text = path.as_text().bytes();
    while (true) {
      const std::size_t dot = std::min(text.find('.'), text.size());
      const std::string_view part = text.substr(0, dot);
      const bool is_index =
          !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
      parts_.push_back(is_index ? Value::integer(std::stoll(std::string(part))) : Value::text(part, true));
      if (dot == text.size()) break;
      text.remove_prefix(dot + 1);
    }
  }
  Value of(Runtime& runtime, const Value& item) const {
    Value value = item;
    for (const Value& part : parts_) {
      value = item_of(runtime, value, part);
      if (value.is_undefined() && !fallback_.is_undefined()) value = fallback_;
    }
    return value;
  }

 private:
  Items parts_;
  Value fallback_;
};

Value folded(Runtime& runtime, const Value& value, bool case_sensitive) {
  return case_sensitive || !value.is_text() ? value : Value::text(lower(runtime, value.as_text()));
}

// Stable. `key` gives what each item is ordered by.
template <class KeyOf>
void sort_items(Runtime& runtime, Items& list, bool reverse, KeyOf key) {
  std::vector<std::pair<Value, std::size_t>> order;
  for (std::size_t i = 0; i < list.size(); ++i) order.emplace_back(key(list[i]), i);
  std::stable_sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    runtime.spend(16 + std::min(a.first.weight(), b.first.weight()));
    return reverse ? less(b.first, a.first) : less(a.first, b.first);
  });
  Items sorted;
  for (const auto& entry : order) sorted.push_back(list[entry.second]);
  list = std::move(sorted);
}

Value list(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("list", {});
  return Value::list(items(runtime, input));
}

Value length(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("length", {});
  if (input.is_text()) runtime.spend(input.weight());
  return Value::integer(length_of(input));
}

Value first(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("first", {});
  const auto all = items_of(runtime, input);
  return all->items.empty() ? Value::undefined("No first item, sequence was empty.") : all->items.front();
}

Value last(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("last", {});
  const auto all = items_of(runtime, input);
  return all->items.empty() ? Value::undefined("No last item, sequence was empty.") : all->items.back();
}

Value join(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("join", {"d", "attribute"});
  const Text separator = to_text(given[0]);
  const Key key(given[1]);
  Text result;
  bool is_first = true;
  const auto all = items_of(runtime, input);
  for (const Value& item : all->items) {
    const Value value = key.of(runtime, item);
    runtime.spend(value.weight());
    if (!is_first) result.append(separator);
    result.append(to_text(value));
    runtime.spend_text(result.size() > Runtime::kMaxOutput ? result.size() : separator.size());
    is_first = false;
  }
  return Value::text(std::move(result));
}

Value reverse(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("reverse", {});
  if (input.is_text()) return slice_of(runtime, input, Value(), Value(), Value::integer(-1));
  Items all = items(runtime, input);
  std::reverse(all.begin(), all.end());
  return Value::list(std::move(all));
}

Value item_pairs(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("items", {});
  if (input.is_undefined()) return Value::list({});
  if (!input.is_dict()) throw Error("can only get item pairs from a mapping, not {}", input.type_name());
  Items pairs;
  runtime.spend(192 * input.as_dict().entries().size());
  for (const auto& [key, value] : input.as_dict().entries()) pairs.push_back(Value::tuple({key, value}));
  return Value::list(std::move(pairs));
}

Value dictsort(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("dictsort", {"case_sensitive", "by", "reverse"});
  const std::string by = given.has(1) ? given.text(1).bytes() : "key";
  if (by != "key" && by != "value") throw Error("dictsort(): you can only sort by either 'key' or 'value'");
  Arguments none;
  Items pairs = item_pairs(runtime, input, none).as_list().items;
  sort_items(runtime, pairs, given.flag(2, false), [&](const Value& pair) {
    return folded(runtime, pair.as_list().items[by == "key" ? 0 : 1], given.flag(0, false));
  });
  return Value::list(std::move(pairs));
}

Value sort(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("sort", {"reverse", "case_sensitive", "attribute"});
  std::vector<Key> keys;
  if (given[2].is_text()) {
    for (const Value& path : split_text(runtime, given.text(2), nullptr, 0, false)) {
      const Text comma(",", true);
      for (const Value& part : split_text(runtime, path.as_text(), &comma, -1, false))
        keys.emplace_back(part);
    }
  } else {
    keys.emplace_back(given[2]);
  }
  Items all = items(runtime, input);
  sort_items(runtime, all, given.flag(0, false), [&](const Value& item) {
    Items parts;
    for (const Key& key : keys) parts.push_back(folded(runtime, key.of(runtime, item), given.flag(1, false)));
    return parts.size() == 1 ? parts[0] : Value::list(std::move(parts));
  });
  return Value::list(std::move(all));
}

Value unique(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("unique", {"case_sensitive", "attribute"});
  const Key key(given[1]);
  Dict seen;
  Items kept;
  for (const Value& item : items(runtime, input)) {
    const Value of = folded(runtime, key.of(runtime, item), given.flag(0, false));
    if (seen.find(of)) continue;
    seen.set(of, Value::none());
    kept.push_back(item);
  }
  return Value::list(std::move(kept));
}

template <bool largest>
Value extreme(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind(largest ? "max" : "min", {"case_sensitive", "attribute"});
  const Key key(given[1]);
  const auto all = items_of(runtime, input);
  if (all->items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const auto key_of = [&](const Value& item) {
    return folded(runtime, key.of(runtime, item), given.flag(0, false));
  };
  const Value* best = &all->items[0];
  Value best_key = key_of(*best);
  for (const Value& item : all->items) {
    Value of = key_of(item);
    if (largest ? less(best_key, of) : less(of, best_key)) {
      best = &item;
      best_key = std::move(of);
    }
  }
  return *best;
}

Value sum(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("sum", {"attribute", "start"});
  const Key key(given[0]);
  Value total = given.has(1) ? given[1] : Value::integer(0);
  if (total.is_text()) throw Error("sum() can't sum strings: use join");
  const auto all = items_of(runtime, input);
  for (const Value& item : all->items) {
    total = arithmetic(runtime, "+", total, key.of(runtime, item));
  }
  return total;
}

Value groupby(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("groupby", {"attribute", "default", "case_sensitive"}, 1);
  const Key key(given[0], given[1]);
  const auto key_of = [&](const Value& item) {
    return folded(runtime, key.of(runtime, item), given.flag(2, false));
  };
  Items all = items(runtime, input);
  sort_items(runtime, all, false, key_of);
  Items groups;
  for (std::size_t begin = 0; begin < all.size();) {
    std::size_t end = begin + 1;
    while (end < all.size() && equal(key_of(all[begin]), key_of(all[end]))) ++end;
    Items members(all.begin() + static_cast<std::ptrdiff_t>(begin),
                  all.begin() + static_cast<std::ptrdiff_t>(end));
    groups.push_back(Value::tuple({key.of(runtime, all[begin]), Value::list(std::move(members))}));
    begin = end;
  }
  return Value::list(std::move(groups));
}

Value batch(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("batch", {"linecount", "fill_with"}, 1);
  const std::int64_t size = given.integer(0, 1);
  if (size < 1) throw Error("batch(): linecount must be positive");
  Items batches, row;
  for (const Value& item : items(runtime, input)) {
    if (static_cast<std::int64_t>(row.size()) == size) batches.push_back(Value::list(std::exchange(row, {})));
    row.push_back(item);
  }
  if (!row.empty()) {
    while (given.has(1) && !given[1].is_none() && static_cast<std::int64_t>(row.size()) < size) {
      runtime.spend(64);
      row.push_back(given[1]);
    }
    batches.push_back(Value::list(std::move(row)));
  }
  return Value::list(std::move(batches));
}

// Columns of as equal a length as can be; shorter ones filled up with fill_with.
Value slice(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("slice", {"slices", "fill_with"}, 1);
  const std::int64_t slices = given.integer(0, 1);
  if (slices < 1 || slices > 100'000) throw Error("slice(): slices must be from 1 to 100000");
  const Items all = items(runtime, input);
  const std::size_t count = static_cast<std::size_t>(slices);
  const std::size_t shortest = all.size() / count;
  const std::size_t longer = all.size() % count;
  Items columns;
  std::size_t at = 0;
  runtime.spend(64 * count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t size = shortest + (i < longer ? 1 : 0);
    Items column(all.begin() + static_cast<std::ptrdiff_t>(at),
                 all.begin() + static_cast<std::ptrdiff_t>(at + size));
    if (given.has(1) && !given[1].is_none() && i >= longer) column.push_back(given[1]);
    columns.push_back(Value::list(std::move(column)));
    at += size;
  }
  return Value::list(std::move(columns));
}

// The first positional argument taken off: the name of a filter, test or attribute.
Value take_first(Arguments& arguments, const char* function) {
  if (arguments.positional.empty()) throw Error("{}() misses an argument", function);
  Value taken = arguments.positional.front();
  arguments.positional.erase(arguments.positional.begin());
  return taken;
}

std::string name_of(const Value& value) {
  if (!value.is_text())
    throw Error("the name of a filter or test must be a string, not {}", value.type_name());
  return value.as_text().bytes();
}

Value map(Runtime& runtime, const Value& input, Arguments& arguments) {
  if (!input.truth()) return Value::list({});
  Items results;
  if (arguments.positional.empty()) {
    const auto given = arguments.bind("map", {"attribute", "default"}, 1);
    const Key key(given[0], given[1]);
    for (const Value& item : items(runtime, input)) results.push_back(key.of(runtime, item));
  } else {
    const std::string filter = name_of(take_first(arguments, "map"));
    for (const Value& item : items(runtime, input))
      results.push_back(apply_filter(runtime, filter, item, arguments));
  }
  return Value::list(std::move(results));
}

// select, reject, selectattr, rejectattr: by a test, or by truth when none is named.
template <bool keep, bool by_attribute>
Value choose(Runtime& runtime, const Value& input, Arguments& arguments) {
  const Key key(by_attribute ? take_first(arguments, "selectattr") : Value());
  const bool has_test = !arguments.positional.empty();
  const std::string test = has_test ? name_of(take_first(arguments, "select")) : "";
  Items kept;
  if (!input.truth()) return Value::list({});
  for (const Value& item : items(runtime, input)) {
    const Value of = key.of(runtime, item);
    const bool holds = has_test ? apply_test(runtime, test, of, arguments) : of.truth();
    if (holds == keep) kept.push_back(item);
  }
  return Value::list(std::move(kept));
}

}  // namespace

FilterFunction find_sequence_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, FilterFunction> kFilters = {
      {"list", list},
      {"length", length},
      {"count", length},
      {"first", first},
      {"last", last},
      {"join", join},
      {"reverse", reverse},
      {"items", item_pairs},
      {"dictsort", dictsort},
      {"sort", sort},
      {"unique", unique},
      {"min", extreme<false>},
      {"max", extreme<true>},
      {"sum", sum},
      {"groupby", groupby},
      {"batch", batch},
      {"slice", slice},
      {"map", map},
      {"select", choose<true, false>},
      {"reject", choose<false, false>},
      {"selectattr", choose<true, true>},
      {"rejectattr", choose<false, true>},
  };
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace bise::jinja
