#include "quantize/calibrate.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace bise {
namespace {

// Enough tokens for the matrix kernels to run at full speed, on the host and on a device.
constexpr std::int64_t kStepTokens = 2048, kDeviceStepTokens = 16384;

std::int64_t length_of(const std::vector<std::int32_t>& sequence) {
  return static_cast<std::int64_t>(sequence.size());
}

std::int64_t longest(const std::vector<std::vector<std::int32_t>>& sequences) {
  std::int64_t length = 0;
  for (const auto& sequence : sequences) length = std::max(length, length_of(sequence));
  return length;
}

void check_sequences(const std::vector<std::vector<std::int32_t>>& sequences, std::int64_t vocab_size) {
  if (sequences.empty()) throw Error("there are no calibration sequences");
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].empty()) throw Error("calibration sequence {} is empty", i);
    for (const std::int32_t id : sequences[i])
      if (id < 0 || id >= vocab_size)
        throw Error("calibration sequence {} has a token outside the vocabulary", i)
            .expected(fmt::format("0 to {}", vocab_size - 1))
            .got(std::to_string(id));
  }
}

}  // namespace

CalibrationRun::CalibrationRun(Backend& backend, const ModelConfig& config,
                               std::vector<std::vector<std::int32_t>> sequences)
    : sequences_(std::move(sequences)),
      blocks_per_sequence_((longest(sequences_) + backend.preferred_block_size() - 1) /
                           backend.preferred_block_size()),
      runner_(backend, config,
              std::max(backend.memory().host ? kStepTokens : kDeviceStepTokens, longest(sequences_))) {
  check_sequences(sequences_, config.vocab_size);
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    const std::int64_t length = length_of(sequences_[i]);
    if (steps_.empty() || steps_.back().tokens + length > runner_.max_tokens())
      steps_.push_back({i, i, tokens_, 0});
    steps_.back().last = i + 1;
    steps_.back().tokens += length;
    tokens_ += length;
  }
  std::int64_t most_sequences = 0;
  for (const Step& step : steps_)
    most_sequences = std::max(most_sequences, static_cast<std::int64_t>(step.last - step.first));
  batch_ = std::make_unique<StepBatch>(runner_.max_tokens(), most_sequences, blocks_per_sequence_);
  KvCacheShape shape;
  shape.layers = 1;
  shape.num_blocks = most_sequences * blocks_per_sequence_;
  shape.block_size = backend.preferred_block_size();
  shape.num_kv_heads = config.num_key_value_heads;
  shape.head_dim = config.head_dim;
  cache_ = backend.make_kv_cache(shape);
  hidden_ = backend.make_row_store(tokens_, config.hidden_size);
}

void CalibrationRun::begin(const Step& step) {
  batch_->clear();
  std::vector<std::int32_t> blocks(static_cast<std::size_t>(blocks_per_sequence_));
  std::int32_t next_block = 0;
  for (std::size_t i = step.first; i < step.last; ++i) {
    std::iota(blocks.begin(), blocks.end(), next_block);
    next_block += static_cast<std::int32_t>(blocks_per_sequence_);
    batch_->add(sequences_[i], 0, blocks);
  }
  runner_.begin_step(batch_->view(), *cache_);
}

void CalibrationRun::load(const Step& step) {
  begin(step);
  runner_.load_hidden(*hidden_, step.begin, step.tokens);
}

void CalibrationRun::embed(const DeviceTensor& embed_tokens, const DeviceTensor& any_norm) {
  for (const Step& step : steps_) {
    begin(step);
    runner_.embed(embed_tokens);
    runner_.save_hidden(any_norm, *hidden_, step.begin);
  }
}

void CalibrationRun::observe(const LayerWeights& weights, std::int64_t index, const InputObserver& observer) {
  for (const Step& step : steps_) {
    load(step);
    runner_.run_layer(weights, index, {}, &observer);
  }
}

void CalibrationRun::advance(const LayerWeights& weights, std::int64_t index) {
  for (const Step& step : steps_) {
    load(step);
    runner_.run_layer(weights, index, {});
    runner_.save_hidden(*weights.input_layernorm, *hidden_, step.begin);
  }
}

}  // namespace bise
