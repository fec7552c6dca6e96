#include "engine/continuation_scorer.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "engine/log_softmax.h"

namespace bise {
namespace {

constexpr std::int64_t kMaxNodes = 64;  // of one step

// What runs through the model: the last token is only predicted.
std::span<const std::int32_t> fed(const ScoredSequence& sequence) {
  return std::span(sequence.token_ids).first(sequence.token_ids.size() - 1);
}

}  // namespace

ContinuationScorer::ContinuationScorer(Decoder& decoder, ThreadPool& pool, DType kv_cache_dtype)
    : decoder_(decoder),
      pool_(pool),
      kv_cache_dtype_(kv_cache_dtype),
      block_size_(decoder.backend().preferred_block_size()) {}

void ContinuationScorer::check_sequences(std::span<const ScoredSequence> sequences) const {
  for (const ScoredSequence& sequence : sequences) {
    const auto length = static_cast<std::int64_t>(sequence.token_ids.size());
    check(sequence.first >= 1 && sequence.first < length, "a sequence has tokens to score and tokens before");
    for (const std::int32_t token : sequence.token_ids)
      check(token >= 0 && token < decoder_.config().vocab_size, "a token is in the vocabulary");
  }
}

// `path` leads from the root to the leaf added before, whose first `shared` tokens the sequence has too; from
// there on it is the greater one.
std::int32_t ContinuationScorer::add_leaf(std::vector<std::int32_t>& path, const ScoredSequence& sequence,
                                          std::int64_t shared) {
  std::int32_t below = -1;
  while (node(path.back()).end > shared) {
    below = path.back();
    path.pop_back();
  }
  if (node(path.back()).end < shared) {  // cut the node below in two
    Node upper;
    upper.sequence = node(below).sequence;
    upper.begin = node(below).begin;
    upper.end = shared;
    upper.parent = path.back();
    upper.children = {below};
    const auto index = static_cast<std::int32_t>(nodes_.size());
    node(path.back()).children.back() = index;
    node(below).begin = shared;
    node(below).parent = index;
    nodes_.push_back(std::move(upper));
    path.push_back(index);
  }
  const auto length = static_cast<std::int64_t>(fed(sequence).size());
  if (length == shared) return path.back();
  Node leaf;
  leaf.sequence = &sequence;
  leaf.begin = shared;
  leaf.end = length;
  leaf.parent = path.back();
  const auto index = static_cast<std::int32_t>(nodes_.size());
  node(path.back()).children.push_back(index);
  nodes_.push_back(std::move(leaf));
  path.push_back(index);
  return index;
}

// Returns the node that each sequence ends in.
std::vector<std::int32_t> ContinuationScorer::make_tree(std::span<const ScoredSequence> sequences) {
  std::vector<std::size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    return std::ranges::lexicographical_compare(fed(sequences[a]), fed(sequences[b]));
  });
  nodes_.assign(1, {});
  std::vector<std::int32_t> path = {0}, leaves(sequences.size());
  std::span<const std::int32_t> before;
  for (const std::size_t index : order) {
    const auto tokens = fed(sequences[index]);
    const std::int64_t shared = std::ranges::mismatch(before, tokens).in1 - before.begin();
    leaves[index] = add_leaf(path, sequences[index], shared);
    before = tokens;
    given_tokens_ += static_cast<std::int64_t>(tokens.size());
  }
  return leaves;
}

void ContinuationScorer::want(std::span<const ScoredSequence> sequences,
                              std::span<const std::int32_t> leaves) {
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    std::int32_t at = leaves[s];
    for (auto position = static_cast<std::int64_t>(fed(sequences[s]).size()) - 1;
         position >= sequences[s].first - 1; --position) {
      while (node(at).begin > position) at = node(at).parent;
      node(at).wanted.push_back(
          {position, sequences[s].token_ids[static_cast<std::size_t>(position + 1)], s});
    }
  }
  for (Node& each : nodes_) std::ranges::stable_sort(each.wanted, {}, &Wanted::position);
}

void ContinuationScorer::make_cache() {
  std::int64_t longest = 0;
  std::vector<std::int64_t> columns_of(nodes_.size(), 0);  // of the path from the root to each node
  for (std::vector<std::int32_t> open = {0}; !open.empty();) {
    const std::int32_t index = open.back();
    open.pop_back();
    for (const std::int32_t child : node(index).children) {
      columns_of[static_cast<std::size_t>(child)] = columns_of[static_cast<std::size_t>(index)] +
                                                    blocks_of(node(child).end) -
                                                    node(child).begin / block_size_;
      longest = std::max(longest, node(child).end);
      open.push_back(child);
    }
  }
  reserved_columns_ = *std::ranges::max_element(columns_of);
  const std::int64_t tokens = decoder_.limits().max_tokens;
  const std::int64_t columns = 2 * reserved_columns_ + 2 * blocks_of(tokens) + 4 * kMaxNodes;
  const auto groups = static_cast<std::int64_t>(decoder_.kv_layout().groups.size());
  cache_ = decoder_.make_kv_cache(columns * groups, kv_cache_dtype_);
  batch_ = std::make_unique<StepBatch>(tokens, kMaxNodes, blocks_of(longest), groups);
  holders_.assign(static_cast<std::size_t>(columns), 0);
  free_columns_.resize(static_cast<std::size_t>(columns));
  std::iota(free_columns_.rbegin(), free_columns_.rend(), 0);
}

// While one path can still run to its end on what stays free, nodes that wait for their children never block
// one another; a node alone in its step may use that reserve.
bool ContinuationScorer::has_room(const Node& node) const {
  const std::int64_t needed = blocks_of(node.end) - node.begin / block_size_;
  const auto free = static_cast<std::int64_t>(free_columns_.size());
  return free >= needed + (batch_->tokens() == 0 ? 0 : reserved_columns_);
}

// Shares the parent's full blocks and copies the one that the two part in.
void ContinuationScorer::start(Node& started) {
  Node& parent = node(started.parent);
  const std::int64_t full = started.begin / block_size_;
  const auto groups = static_cast<std::int64_t>(decoder_.kv_layout().groups.size());
  started.columns.assign(parent.columns.begin(), parent.columns.begin() + full);
  while (static_cast<std::int64_t>(started.columns.size()) < blocks_of(started.end)) {
    check(!free_columns_.empty(), "the cache has room for a node that starts");
    started.columns.push_back(free_columns_.back());
    free_columns_.pop_back();
  }
  for (const std::int32_t column : started.columns) ++holders_[static_cast<std::size_t>(column)];
  if (started.begin % block_size_ != 0)
    for (std::int64_t group = 0; group < groups; ++group)
      decoder_.backend().copy_block(*cache_, parent.columns[static_cast<std::size_t>(full)] * groups + group,
                                    started.columns[static_cast<std::size_t>(full)] * groups + group);
  started.computed = started.begin;
  started.waiting_children = started.children.size();
  if (started.parent != 0 && --parent.waiting_children == 0) release(parent);
}

void ContinuationScorer::feed(Node& fed_node) {
  const std::int64_t count = std::min(fed_node.end - fed_node.computed, batch_->free_tokens());
  const auto groups = static_cast<std::int32_t>(decoder_.kv_layout().groups.size());
  std::vector<std::int32_t> blocks;
  for (std::int32_t group = 0; group < groups; ++group)
    for (const std::int32_t column : fed_node.columns) blocks.push_back(column * groups + group);
  const std::int64_t first_row = batch_->tokens(), last = fed_node.computed + count;
  batch_->add(std::span(fed_node.sequence->token_ids)
                  .subspan(static_cast<std::size_t>(fed_node.computed), static_cast<std::size_t>(count)),
              fed_node.computed, blocks);
  for (auto wanted = std::ranges::lower_bound(fed_node.wanted, fed_node.computed, {}, &Wanted::position);
       wanted != fed_node.wanted.end() && wanted->position < last; ++wanted)
    rows_.push_back(
        {static_cast<std::int32_t>(first_row + wanted->position - fed_node.computed), &*wanted, 0, false});
  fed_node.computed = last;
  computed_tokens_ += count;
}

// Several sequences may want tokens of one row: its logits are made once.
void ContinuationScorer::read_rows() {
  const auto vocabulary = static_cast<std::size_t>(decoder_.config().vocab_size);
  const auto most = static_cast<std::size_t>(decoder_.limits().max_logit_rows);
  for (std::size_t from = 0; from < rows_.size();) {
    std::vector<std::int32_t> distinct;
    std::vector<std::size_t> starts;  // in rows_, of each distinct row
    std::size_t to = from;
    for (; to < rows_.size(); ++to) {
      if (!distinct.empty() && distinct.back() == rows_[to].row) continue;
      if (distinct.size() == most) break;
      distinct.push_back(rows_[to].row);
      starts.push_back(to);
    }
    starts.push_back(to);
    const std::span<const float> logits = decoder_.logits(distinct);
    pool_.parallel_for(
        static_cast<std::int64_t>(distinct.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
          for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
            const auto row = logits.subspan(i * vocabulary, vocabulary);
            const float largest = largest_value(row);
            const double sum = log_sum_exp(row, largest);
            for (std::size_t r = starts[i]; r < starts[i + 1]; ++r) {
              const float own = row[static_cast<std::size_t>(rows_[r].wanted->token)];
              rows_[r].logprob = static_cast<double>(own) - sum;
              rows_[r].greedy = own == largest;
            }
          }
        });
    from = to;
  }
}

void ContinuationScorer::release(Node& released) {
  for (const std::int32_t column : released.columns)
    if (--holders_[static_cast<std::size_t>(column)] == 0) free_columns_.push_back(column);
  released.columns = {};
}

void ContinuationScorer::finish(std::int32_t index) {
  Node& done = node(index);
  ready_.insert(ready_.end(), done.children.rbegin(), done.children.rend());
  if (done.children.empty()) release(done);
}

std::vector<ContinuationScore> ContinuationScorer::score(std::span<const ScoredSequence> sequences,
                                                         const OnScored& on_scored) {
  std::vector<ContinuationScore> result(sequences.size(), {0, true});
  if (sequences.empty()) return result;
  check_sequences(sequences);
  want(sequences, make_tree(sequences));
  make_cache();
  std::vector<std::int64_t> missing(sequences.size());
  for (std::size_t s = 0; s < sequences.size(); ++s)
    missing[s] = static_cast<std::int64_t>(sequences[s].token_ids.size()) - sequences[s].first;
  ready_.assign(nodes_[0].children.rbegin(), nodes_[0].children.rend());
  std::int32_t current = 0;  // the node that is fed; 0 = none
  std::vector<std::int32_t> done;
  while (current != 0 || !ready_.empty()) {
    batch_->clear();
    rows_.clear();
    done.clear();
    while (batch_->free_tokens() > 0 && batch_->sequences() < kMaxNodes) {
      if (current == 0) {
        if (ready_.empty() || !has_room(node(ready_.back()))) break;
        current = ready_.back();
        ready_.pop_back();
        start(node(current));
      }
      feed(node(current));
      if (node(current).computed == node(current).end) done.push_back(std::exchange(current, 0));
    }
    check(batch_->tokens() > 0, "a step has tokens");
    decoder_.forward(batch_->view(), *cache_);
    read_rows();
    for (const Row& row : rows_) {
      const std::size_t s = row.wanted->sequence;
      result[s].logprob += row.logprob;
      result[s].greedy &= row.greedy;
      if (--missing[s] == 0 && on_scored) on_scored(s, result[s]);
    }
    for (auto index = done.rbegin(); index != done.rend(); ++index) finish(*index);
  }
  nodes_.clear();
  cache_.reset();
  return result;
}

}  // namespace bise
