#include "grammar/parser_states.h"

#include <algorithm>
#include <functional>

#include "base/check.h"

namespace bise {
namespace {

// Only grammars that are ambiguous without end get here: further readings of the text are dropped, which
// leaves a smaller language, never a dead end.
constexpr std::size_t kMaxItems = 4096;

std::uint64_t hash_of(std::span<const Item> items) {
  std::uint64_t hash = items.size();
  for (const Item item : items) {
    hash = (hash ^ item) * 0x9E3779B97F4A7C15;
    hash ^= hash >> 29;
  }
  return hash;
}

void sort_unique(std::vector<Item>& items) {
  std::sort(items.begin(), items.end());
  items.erase(std::unique(items.begin(), items.end()), items.end());
  if (items.size() > kMaxItems) items.resize(kMaxItems);
}

}  // namespace

ParserStates::ParserStates(const Automaton& automaton) : automaton_(automaton) {
  std::vector<Item> root = {kDoneItem};
  check(frame_with(root) == kRootFrame, "the root's frame is the first");
}

ParserState ParserStates::start() {
  const std::uint32_t first = automaton_.rule_starts[automaton_.root];
  return closed(item(first, kRootFrame));
}

ParserState ParserStates::after_return(std::uint32_t frame) {
  const ParserState known = returned_.find(frame);
  if (known != FlatMap::kAbsent) return known;
  const std::span<const Item> targets = returns(frame);
  std::vector<Item> items(targets.begin(), targets.end());
  const ParserState result = closure(items);
  returned_.insert(frame, result);
  return result;
}

ParserState ParserStates::step(ParserState from, std::string_view bytes) {
  for (const char c : bytes) {
    from = step(from, static_cast<std::uint8_t>(c));
    if (from == kDead) return kDead;
  }
  return from;
}

std::span<const Item> ParserStates::items(const ParserState& state) const {
  if (!(state & kManyItems)) return {&state, 1};
  const Range& set = sets_[number_of(state)];
  return {pool_.data() + set.begin, set.count};
}

std::size_t ParserStates::size() const {
  return pool_.size() / 4 + frames_.size() + sets_.size() + closed_.size() + stepped_.size();
}

ParserState ParserStates::step_set(ParserState from, std::uint8_t byte) {
  if (from == kDead) return kDead;
  const std::uint64_t key = std::uint64_t{number_of(from)} << 8 | byte;
  const ParserState known = stepped_.find(key);
  // kDead cannot be told from an absent value; dead ends are found again by the few comparisons below.
  if (known != FlatMap::kAbsent) return known;
  std::vector<Item> kernel;
  for (const Item from_item : items(from)) {
    const std::uint32_t target = automaton_.next(state_of(from_item), byte);
    if (target != Automaton::kDead) kernel.push_back(item(target, frame_of(from_item)));
  }
  if (kernel.empty()) return kDead;
  const ParserState result = kernel.size() == 1 ? closed(kernel[0]) : closure(kernel);
  stepped_.insert(key, result);
  return result;
}

ParserState ParserStates::closed(Item kernel) {
  if (automaton_.states[state_of(kernel)].plain()) return kernel;
  const ParserState known = closed_.find(kernel);
  if (known != FlatMap::kAbsent) return known;
  std::vector<Item> items = {kernel};
  const ParserState result = closure(items);
  closed_.insert(kernel, result);
  return result;
}

// All that may be read next after `items`: returns from rules that are complete, then calls.
ParserState ParserStates::closure(std::vector<Item>& items) {
  sort_unique(items);
  std::vector<Item> returned = items;
  for (std::size_t i = 0; i < items.size() && items.size() < kMaxItems; ++i) {
    if (!automaton_.states[state_of(items[i])].final) continue;
    for (const Item target : returns(frame_of(items[i]))) {
      const auto place = std::lower_bound(returned.begin(), returned.end(), target);
      if (place != returned.end() && *place == target) continue;
      returned.insert(place, target);
      items.push_back(target);
    }
  }
  std::vector<Item> active;
  for (const Item from : items) {
    const Automaton::State& state = automaton_.states[state_of(from)];
    if (state.edge_count > 0 || from == kDoneItem) active.push_back(from);
    if (state.call_count > 0) add_callers(state_of(from), frame_of(from));
  }
  predict(active);
  return state_with(active);
}

void ParserStates::add_callers(std::uint32_t state, std::uint32_t frame) {
  for (const Automaton::Call& call : automaton_.calls_of(state)) {
    std::vector<Item>& callers = callers_[call.rule];
    if (callers.empty()) {
      waiting_.push_back(std::uint64_t{automaton_.rule_ranks[call.rule]} << 32 | call.rule);
      std::push_heap(waiting_.begin(), waiting_.end(), std::greater<>());
    }
    if (automaton_.states[call.target].end()) {
      const std::span<const Item> targets = returns(frame);
      callers.insert(callers.end(), targets.begin(), targets.end());
    } else {
      callers.push_back(item(call.target, frame));
    }
  }
}

// Enters the rules that are called, callers before callees, so that all callers of a rule share one frame.
void ParserStates::predict(std::vector<Item>& active) {
  while (!waiting_.empty()) {
    std::pop_heap(waiting_.begin(), waiting_.end(), std::greater<>());
    const auto rule = static_cast<std::uint32_t>(waiting_.back());
    waiting_.pop_back();
    std::vector<Item> callers = std::move(callers_[rule]);
    callers_.erase(rule);
    const std::uint32_t frame = frame_with(callers);
    const std::uint32_t first = automaton_.rule_starts[rule];
    if (automaton_.states[first].edge_count > 0) active.push_back(item(first, frame));
    add_callers(first, frame);
  }
}

std::uint32_t ParserStates::frame_with(std::vector<Item>& returns_to) {
  sort_unique(returns_to);
  const std::uint64_t hash = hash_of(returns_to);
  const auto [begin, end] = frames_by_hash_.equal_range(hash);
  for (auto found = begin; found != end; ++found) {
    const std::span<const Item> known = returns(found->second);
    if (std::equal(known.begin(), known.end(), returns_to.begin(), returns_to.end())) return found->second;
  }
  const auto frame = static_cast<std::uint32_t>(frames_.size());
  check(frame < (std::uint32_t{1} << 31), "frames fit in 31 bits");
  frames_.push_back(
      {static_cast<std::uint32_t>(pool_.size()), static_cast<std::uint32_t>(returns_to.size())});
  pool_.insert(pool_.end(), returns_to.begin(), returns_to.end());
  frames_by_hash_.emplace(hash, frame);
  return frame;
}

ParserState ParserStates::state_with(std::vector<Item>& items) {
  sort_unique(items);
  if (items.size() == 1) return items[0];
  if (items.empty()) return kDead;
  const std::uint64_t hash = hash_of(items);
  const auto [begin, end] = sets_by_hash_.equal_range(hash);
  for (auto found = begin; found != end; ++found) {
    const ParserState candidate = kManyItems | found->second;
    const std::span<const Item> known = this->items(candidate);
    if (std::equal(known.begin(), known.end(), items.begin(), items.end())) return candidate;
  }
  const auto number = static_cast<std::uint32_t>(sets_.size());
  sets_.push_back({static_cast<std::uint32_t>(pool_.size()), static_cast<std::uint32_t>(items.size()),
                   items[0] == kDoneItem});
  pool_.insert(pool_.end(), items.begin(), items.end());
  sets_by_hash_.emplace(hash, number);
  return kManyItems | number;
}

// Frames refer to older frames only, so that those on the way to `frame` can be taken in ascending order.
std::uint32_t ParserStates::import_frame(const ParserStates& other, std::uint32_t frame,
                                         std::unordered_map<std::uint32_t, std::uint32_t>& known) {
  constexpr std::uint32_t kSeen = ~std::uint32_t{0};
  std::vector<std::uint32_t> needed;
  const auto need = [&](std::uint32_t number) {
    if (known.try_emplace(number, kSeen).second) needed.push_back(number);
  };
  need(frame);
  for (std::size_t i = 0; i < needed.size(); ++i)
    for (const Item target : other.returns(needed[i])) need(frame_of(target));
  std::sort(needed.begin(), needed.end());
  for (const std::uint32_t old : needed) {
    std::vector<Item> targets;
    for (const Item target : other.returns(old))
      targets.push_back(old == kRootFrame ? target : item(state_of(target), known.at(frame_of(target))));
    known[old] = frame_with(targets);
  }
  return known.at(frame);
}

void ParserStates::import(const ParserStates& other, std::span<ParserState> states) {
  std::unordered_map<std::uint32_t, std::uint32_t> known;
  for (ParserState& state : states) {
    if (state == kDead) continue;
    std::vector<Item> items;
    for (const Item from : other.items(state))
      items.push_back(item(state_of(from), import_frame(other, frame_of(from), known)));
    state = state_with(items);
  }
}

}  // namespace bise
