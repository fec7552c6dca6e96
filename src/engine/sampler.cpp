#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "engine/gumbel.h"
#include "engine/logit_kernels.h"

namespace bise {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
// Beyond all logits; penalties may not leave it, so that no division by a temperature overflows.
constexpr float kHighest = 1e30f;
constexpr std::size_t kSortedCandidates = 128;

bool limits_candidates(const TokenDraw& rule, std::size_t vocab_size) {
  return rule.top_p < 1 || (rule.top_k > 0 && static_cast<std::size_t>(rule.top_k) < vocab_size);
}

// The best of candidates in any order, as gumbel_argmax() of logit_kernels.h draws from a row.
std::int32_t draw_candidate(std::span<const RankedLogit> candidates, const TokenDraw& rule) {
  const GumbelKey key{rule.key_low, rule.key_high};
  std::int32_t token = -1;
  double best = -std::numeric_limits<double>::infinity();
  for (const RankedLogit& each : candidates) {
    const std::uint32_t bits = gumbel_bits(key, each.token);
    const auto scaled = static_cast<double>(each.logit * rule.factor);
    // The noise is at most -ln of the bits as a fraction: most lose without a logarithm.
    if (scaled + 0.6931471805599454 * (std::countl_zero(bits) + 1) < best) continue;
    const double noisy = scaled + gumbel_noise(bits);
    if (noisy < best || (noisy == best && each.token > token)) continue;
    best = noisy;
    token = each.token;
  }
  return token;
}

}  // namespace

std::int32_t argmax(std::span<const float> values) {
  LargestLogits largest;
  largest.scan(values);
  return largest.argmax();
}

bool valid(const SamplingParams& params, std::int64_t vocab_size) {
  const auto known = [&](std::int32_t token) { return token >= 0 && token < vocab_size; };
  const auto all_known = [&](const auto& tokens) { return std::ranges::all_of(tokens, known); };
  return params.temperature >= 0 && std::isfinite(params.temperature) && params.top_p > 0 &&
         params.top_p <= 1 && params.min_p >= 0 && params.min_p <= 1 && params.repetition_penalty > 0 &&
         std::isfinite(params.repetition_penalty) && std::abs(params.presence_penalty) <= 2 &&
         std::abs(params.frequency_penalty) <= 2 && params.max_tokens >= 1 && params.min_tokens >= 0 &&
         params.min_tokens <= params.max_tokens && params.repetition_detection.max_pattern_size >= 0 &&
         params.logprobs >= SamplingParams::kNoLogprobs &&
         params.prompt_logprobs >= SamplingParams::kNoLogprobs &&
         std::ranges::all_of(
             params.logit_bias,
             [&](const auto& bias) { return known(bias.first) && !std::isnan(bias.second); }) &&
         all_known(params.allowed_token_ids) && all_known(params.logprob_token_ids) &&
         std::ranges::all_of(params.bad_words,
                             [&](const auto& word) { return !word.empty() && all_known(word); });
}

Sampler::Scratch::Scratch(std::int64_t vocab_size)
    : logits(static_cast<std::size_t>(vocab_size)), largest(vocab_size) {
  weights.reserve(logits.size());
  candidates.reserve(logits.size());
}

Sampler::Sampler(const SamplingParams& params, std::uint64_t seed, std::span<const std::int32_t> prompt,
                 std::int64_t vocab_size)
    : params_(params),
      seed_(params.seed.value_or(seed)),
      prompt_tokens_(static_cast<std::int64_t>(prompt.size())) {
  for (auto& [token, bias] : params_.logit_bias) bias = std::clamp(bias, -100.0f, 100.0f);
  for (const auto& word : params_.bad_words) longest_bad_word_ = std::max(longest_bad_word_, word.size());
  if (penalized())
    for (const std::int32_t token : prompt) counts_.add_prompt(token);
  device_edits_ = editable_on_device();
  removed_.reserve(params_.stop_token_ids.size() + params_.bad_words.size());
  if (!params_.constraint && params_.allowed_token_ids.empty()) return;
  mask_.resize((static_cast<std::size_t>(vocab_size) + 31) / 32);
  for (const std::int32_t token : params_.allowed_token_ids)
    mask_[static_cast<std::size_t>(token) / 32] |= 1u << (token % 32);
  if (!params_.constraint) return;
  constraint_ = params_.constraint->clone();
  params_.constraint.reset();
}

// A device has one mask, and adds one bias to a logit.
bool Sampler::editable_on_device() const {
  if (params_.constraint && !params_.allowed_token_ids.empty()) return false;
  std::vector<std::int32_t> biased;
  for (const auto& [token, bias] : params_.logit_bias) biased.push_back(token);
  std::ranges::sort(biased);
  return std::ranges::adjacent_find(biased) == biased.end();
}

bool Sampler::penalized() const {
  return params_.repetition_penalty != 1 || params_.presence_penalty != 0 || params_.frequency_penalty != 0;
}

void Sampler::accept(std::int32_t token) {
  ++generated_;
  if (penalized()) counts_.add_output(token);
  if (longest_bad_word_ > 1) {
    output_.push_back(token);
    if (output_.size() == longest_bad_word_) output_.erase(output_.begin());
  }
  // A token that the constraint refuses ends the sequence for another reason (a stop token), or was drawn
  // because nothing else was left; the constraint stays where it is.
  if (constraint_) constraint_->accept(token);
  mask_ready_ = false;
}

void Sampler::prepare() {
  if (constraint_ && !mask_ready_) constraint_->fill_mask(mask_);
  mask_ready_ = true;
}

bool Sampler::edits_logits() const {
  return !params_.logit_bias.empty() || !params_.allowed_token_ids.empty() ||
         (generated_ < params_.min_tokens && !params_.stop_token_ids.empty()) || penalized() ||
         !params_.bad_words.empty() || constraint_;
}

void Sampler::apply_allowed(Scratch& scratch) const {
  if (params_.allowed_token_ids.empty()) return;
  scratch.kept.clear();
  for (const std::int32_t token : params_.allowed_token_ids)
    scratch.kept.push_back(scratch.logits[static_cast<std::size_t>(token)]);
  std::ranges::fill(scratch.logits, kLowest);
  for (std::size_t i = 0; i < scratch.kept.size(); ++i)
    scratch.logits[static_cast<std::size_t>(params_.allowed_token_ids[i])] = scratch.kept[i];
}

// repetition_penalty over prompt and output (Keskar et al. 2019), the other two over the output.
void Sampler::apply_penalties(std::span<float> logits) const {
  const auto repetition = static_cast<float>(params_.repetition_penalty);
  for (const auto& [token, output_count] : counts_.entries()) {
    float& logit = logits[static_cast<std::size_t>(token)];
    if (logit == kLowest) continue;
    logit = std::clamp(logit > 0 ? logit / repetition : logit * repetition, -kHighest, kHighest);
    if (output_count == 0) continue;
    logit -= static_cast<float>(params_.frequency_penalty) * static_cast<float>(output_count);
    logit -= static_cast<float>(params_.presence_penalty);
  }
}

// The tokens that may not come next. A word may not be completed when the output ends with all of it but the
// last token; stop tokens may not come before min_tokens.
template <class Visit>
void Sampler::for_each_removed(Visit visit) const {
  if (generated_ < params_.min_tokens)
    for (const std::int32_t token : params_.stop_token_ids) visit(token);
  for (const auto& word : params_.bad_words) {
    const std::size_t before = word.size() - 1;
    if (before <= output_.size() &&
        std::equal(word.begin(), word.end() - 1, output_.end() - static_cast<std::ptrdiff_t>(before)))
      visit(word.back());
  }
}

// Steps 2 to 5 of the order, as LogitEdits has them: what is removed stays so. The result is `logits` itself
// or stands in scratch.
std::span<const float> Sampler::adjust(std::span<const float> logits, Scratch& scratch) {
  if (!edits_logits()) return logits;
  std::vector<float>& work = scratch.logits;
  std::ranges::copy(logits, work.begin());
  for (const auto& [token, bias] : params_.logit_bias) work[static_cast<std::size_t>(token)] += bias;
  apply_allowed(scratch);
  if (penalized()) apply_penalties(work);
  for_each_removed([&](std::int32_t token) {
    if (token >= 0 && static_cast<std::size_t>(token) < work.size())
      work[static_cast<std::size_t>(token)] = kLowest;
  });
  prepare();
  if (constraint_) logit_kernels().apply_mask(work.data(), work.size(), mask_.data());
  return work;
}

// adjust(), with the result's maxima in scratch.largest.
std::span<const float> Sampler::scan(std::span<const float> logits, Scratch& scratch) {
  check(scratch.logits.size() == logits.size(), "the scratch fits the vocabulary");
  const std::span<const float> row = adjust(logits, scratch);
  scratch.largest.scan(row);
  if (scratch.largest.largest() > kLowest) return row;
  std::ranges::copy(logits, scratch.logits.begin());
  if (constraint_) {
    logit_kernels().apply_mask(scratch.logits.data(), scratch.logits.size(), mask_.data());
  } else {
    apply_allowed(scratch);
  }
  scratch.largest.scan(scratch.logits);
  check(scratch.largest.largest() > kLowest, "the constraint leaves a token");
  return scratch.logits;
}

// Of a request that is not greedy.
TokenDraw Sampler::rule() const {
  // vLLM raises temperatures below 0.01 to it, against overflow; endless ones leave float32 too.
  const float factor = 1 / static_cast<float>(std::clamp(params_.temperature, 0.01, 1e30));
  const GumbelKey key = gumbel_key(seed_, prompt_tokens_ + generated_);
  TokenDraw rule{.factor = factor, .key_low = key.low, .key_high = key.high};
  if (params_.min_p > 0) rule.smallest = static_cast<float>(std::log(params_.min_p)) / factor;
  constexpr std::int64_t kMostTopK = std::numeric_limits<std::int32_t>::max();
  rule.top_k = static_cast<std::int32_t>(std::clamp<std::int64_t>(params_.top_k, 0, kMostTopK));
  rule.top_p = std::max(static_cast<float>(params_.top_p), std::numeric_limits<float>::min());
  return rule;
}

std::int32_t Sampler::sample(std::span<const float> logits, Scratch& scratch) {
  const std::span<const float> row = scan(logits, scratch);
  if (params_.greedy()) return scratch.largest.argmax();
  const TokenDraw rule = this->rule();
  std::int32_t token = -1;
  if (limits_candidates(rule, row.size())) {
    scratch.select_candidates(row, rule);
    token = draw_candidate(scratch.candidates, rule);
  } else {
    token = logit_kernels().gumbel_argmax(row.data(), row.size(), rule.factor, scratch.smallest_allowed(rule),
                                          {rule.key_low, rule.key_high});
  }
  check(token >= 0, "a token was drawn");
  return token;
}

std::optional<TokenDraw> Sampler::device_draw() const {
  if (!device_edits_) return std::nullopt;
  return params_.greedy() ? TokenDraw{} : rule();
}

LogitEdits Sampler::device_edits() {
  prepare();
  removed_.clear();
  for_each_removed([&](std::int32_t token) { removed_.push_back(token); });
  return {.biases = params_.logit_bias,
          .counts = counts_.entries(),
          .repetition = static_cast<float>(params_.repetition_penalty),
          .frequency = static_cast<float>(params_.frequency_penalty),
          .presence = static_cast<float>(params_.presence_penalty),
          .removed = removed_,
          .allowed = mask_};
}

std::span<const float> Sampler::processed_logits(std::span<const float> logits, Scratch& scratch) {
  const std::span<const float> row = scan(logits, scratch);
  if (row.data() != scratch.logits.data()) std::ranges::copy(row, scratch.logits.begin());
  if (params_.greedy()) return scratch.logits;
  const TokenDraw rule = this->rule();
  if (limits_candidates(rule, row.size())) {
    scratch.select_candidates(row, rule);
    std::ranges::fill(scratch.logits, kLowest);
    for (const RankedLogit& each : scratch.candidates)
      scratch.logits[static_cast<std::size_t>(each.token)] = each.logit * rule.factor;
  } else {
    const float smallest = scratch.smallest_allowed(rule);
    for (float& logit : scratch.logits) logit = logit < smallest ? kLowest : logit * rule.factor;
  }
  return scratch.logits;
}

// min_p, as a bound of logits.
float Sampler::Scratch::smallest_allowed(const TokenDraw& rule) const {
  return largest.largest() + rule.smallest;
}

// The weights of candidates [first, first + count), in `weights`, and their sum.
double Sampler::Scratch::weigh(std::size_t first, std::size_t count, float factor) {
  weights.resize(count);
  for (std::size_t i = 0; i < count; ++i) weights[i] = candidates[first + i].logit;
  return logit_kernels().weigh(weights.data(), count, largest.largest(), factor);
}

// Fills `candidates` with the tokens that min_p, then top_k (ties kept), then top_p leave.
void Sampler::Scratch::select_candidates(std::span<const float> row, const TokenDraw& rule) {
  const float smallest = smallest_allowed(rule), top = largest.largest();
  const auto top_p = static_cast<double>(rule.top_p);
  candidates.clear();
  if (rule.top_k > 0 && static_cast<std::size_t>(rule.top_k) < row.size()) {
    largest.select(static_cast<std::size_t>(rule.top_k), true, candidates);
    std::erase_if(candidates,
                  [&](const RankedLogit& each) { return each.logit < smallest || each.logit == kLowest; });
  } else if (smallest > kLowest) {
    largest.collect(smallest, candidates);
  } else {
    // Deeper below the largest until those found weigh enough.
    const double target = top_p * logit_kernels().sum_weights(row.data(), row.size(), top, rule.factor);
    for (const float depth : {4.0f, 8.0f, 16.0f, 87.0f}) {
      candidates.clear();
      largest.collect(top - depth / rule.factor, candidates);
      if (weigh(0, candidates.size(), rule.factor) >= target) break;
    }
    return keep_nucleus(target, rule.factor);
  }
  if (top_p < 1) keep_nucleus(top_p * weigh(0, candidates.size(), rule.factor), rule.factor);
}

// Keeps the candidates, by descending logit, as long as those before weigh less than `target`: halves the
// range where that ends until it is worth sorting.
void Sampler::Scratch::keep_nucleus(double target, float factor) {
  const auto at = [&](std::size_t i) { return candidates.begin() + static_cast<std::ptrdiff_t>(i); };
  std::size_t first = 0, last = candidates.size();
  double before = 0;
  while (last - first > kSortedCandidates) {
    const std::size_t middle = first + (last - first) / 2;
    std::nth_element(at(first), at(middle), at(last));
    const double weight = weigh(first, middle - first, factor);
    if (before + weight >= target) {
      last = middle;
    } else {
      before += weight;
      first = middle;
    }
  }
  std::sort(at(first), at(last));
  weigh(first, last - first, factor);
  std::size_t kept = first;
  for (std::size_t i = first; i < last && before < target; ++i, ++kept)
    before += static_cast<double>(weights[i - first]);
  candidates.resize(kept);
}

}  // namespace bise
