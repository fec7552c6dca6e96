// Runs an Automaton over bytes, following every way of reading the text at once.
//
// A parser state is a set of items (state of a rule's automaton, frame). A frame stands for "a rule was
// called here": the set of (state after the call, frame of the caller) pairs it may return to, so that
// callers share what they call (a graph-structured stack; the cost on ambiguous grammars is Earley's). Frames
// and states are numbered by their content, which makes equal situations equal numbers wherever in the text
// they occur; what has been worked out for a number holds for every text. Calls at the end of a rule return
// to the caller's caller, so that right recursion does not pile up frames.
//
// One thread at a time (MaskCache locks it).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/flat_map.h"

namespace bise {

// Frame << 32 | state of the automaton.
using Item = std::uint64_t;
// An item, for a parser state that has one item (the usual case), or kManyItems | number of a set.
using ParserState = std::uint64_t;

class ParserStates {
 public:
  static constexpr ParserState kDead = ~ParserState{0};  // no way on: the text is wrong
  static constexpr ParserState kManyItems = ParserState{1} << 63;
  // Frame 0 is that of the root: where it is complete, so is the text (Automaton::kDone).
  static constexpr std::uint32_t kRootFrame = 0;
  // The item of a complete text.
  static constexpr Item kDoneItem = Automaton::kDone;

  explicit ParserStates(const Automaton& automaton);

  static constexpr Item item(std::uint32_t state, std::uint32_t frame) {
    return std::uint64_t{frame} << 32 | state;
  }
  static constexpr std::uint32_t state_of(Item item) { return static_cast<std::uint32_t>(item); }
  static constexpr std::uint32_t frame_of(Item item) { return static_cast<std::uint32_t>(item >> 32); }

  // Before any text.
  ParserState start();
  // Where the rule that `frame` stands for has just been completed.
  ParserState after_return(std::uint32_t frame);
  // After one more byte, or kDead.
  ParserState step(ParserState from, std::uint8_t byte) {
    if (from & kManyItems) return step_set(from, byte);
    const std::uint32_t target = automaton_.next(state_of(from), byte);
    if (target == Automaton::kDead) return kDead;
    const Item next = item(target, frame_of(from));
    return automaton_.states[target].plain() ? next : closed(next);
  }
  ParserState step(ParserState from, std::string_view bytes);

  // Whether the text may end here (or, from a local start, whether the local rule may be complete).
  bool done(ParserState state) const {
    return state & kManyItems ? sets_[number_of(state)].done : state == kDoneItem;
  }
  std::span<const Item> items(const ParserState& state) const;

  // Replaces states of `other` by the same states here; for moving to a fresh ParserStates.
  void import(const ParserStates& other, std::span<ParserState> states);

  // How much has been stored, in entries of about 50 bytes.
  std::size_t size() const;

 private:
  struct Range {
    std::uint32_t begin = 0, count = 0;
    bool done = false;
  };
  static std::uint32_t number_of(ParserState state) { return static_cast<std::uint32_t>(state); }
  std::span<const Item> returns(std::uint32_t frame) const {
    return {pool_.data() + frames_[frame].begin, frames_[frame].count};
  }

  ParserState step_set(ParserState from, std::uint8_t byte);
  ParserState closed(Item kernel);
  ParserState closure(std::vector<Item>& items);
  void add_callers(std::uint32_t state, std::uint32_t frame);
  void predict(std::vector<Item>& active);
  std::uint32_t frame_with(std::vector<Item>& returns);
  ParserState state_with(std::vector<Item>& items);
  std::uint32_t import_frame(const ParserStates& other, std::uint32_t frame,
                             std::unordered_map<std::uint32_t, std::uint32_t>& known);

  const Automaton& automaton_;
  std::vector<Item> pool_;     // the content of frames and sets
  std::vector<Range> frames_;  // items here: (state after the call, caller's frame)
  std::vector<Range> sets_;
  std::unordered_multimap<std::uint64_t, std::uint32_t> frames_by_hash_, sets_by_hash_;
  FlatMap closed_;    // item -> parser state
  FlatMap stepped_;   // number of a set << 8 | byte -> parser state
  FlatMap returned_;  // frame -> parser state
  // Scratch of closure(): by rule called, where it returns to; the rules waiting, lowest rank first.
  std::unordered_map<std::uint32_t, std::vector<Item>> callers_;
  std::vector<std::uint64_t> waiting_;
};

}  // namespace bise
