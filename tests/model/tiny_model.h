// A small random model made in memory, for tests that need no checkpoint.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "model/decoder.h"
#include "model/loader.h"
#include "model/step_batch.h"
#include "tensor/float_types.h"

namespace bise {

struct TinyModel {
  ModelConfig config;
  ModelWeights weights;
};

inline ModelConfig tiny_config() {
  ModelConfig config;
  config.architecture = "MistralForCausalLM";
  config.model_type = "mistral";
  config.hidden_size = 128;
  config.intermediate_size = 192;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 32;
  config.vocab_size = 320;
  config.max_position_embeddings = 512;
  config.sliding_window.assign(2, 0);
  return config;
}

class RandomTensors {
 public:
  explicit RandomTensors(std::uint32_t seed) : engine_(seed) {}

  // Normal values around `mean`, rounded to bfloat16.
  Tensor tensor(Shape shape, float deviation, float mean = 0) {
    std::normal_distribution<float> normal(mean, deviation);
    std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
    for (float& value : values) value = normal(engine_);
    return from_float(values, DType::kBF16, std::move(shape));
  }
  NamedLinear linear(const std::string& module, std::int64_t rows, std::int64_t columns) {
    NamedLinear result{module, {}};
    result.linear.rows = rows;
    result.linear.columns = columns;
    result.linear.weight = tensor({rows, columns}, 1.5f / std::sqrt(static_cast<float>(columns)));
    return result;
  }

 private:
  std::mt19937 engine_;
};

inline LayerTensors tiny_layer(const ModelConfig& config, std::int64_t index, RandomTensors& random) {
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const std::int64_t query = config.num_attention_heads * config.head_dim;
  const std::int64_t key = config.num_key_value_heads * config.head_dim;
  LayerTensors layer;
  layer.input_layernorm = random.tensor({hidden}, 0.2f, 1);
  layer.post_attention_layernorm = random.tensor({hidden}, 0.2f, 1);
  layer.q_proj = random.linear(prefix + "self_attn.q_proj", query, hidden);
  layer.k_proj = random.linear(prefix + "self_attn.k_proj", key, hidden);
  layer.v_proj = random.linear(prefix + "self_attn.v_proj", key, hidden);
  layer.o_proj = random.linear(prefix + "self_attn.o_proj", hidden, query);
  if (config.num_local_experts == 0) {
    layer.gate_proj = random.linear(prefix + "mlp.gate_proj", inner, hidden);
    layer.up_proj = random.linear(prefix + "mlp.up_proj", inner, hidden);
    layer.down_proj = random.linear(prefix + "mlp.down_proj", hidden, inner);
    return layer;
  }
  const std::string block = prefix + "block_sparse_moe.";
  layer.gate = random.linear(block + "gate", config.num_local_experts, hidden);
  for (std::int64_t expert = 0; expert < config.num_local_experts; ++expert) {
    const std::string module = block + "experts." + std::to_string(expert) + ".";
    layer.experts.push_back({random.linear(module + "w1", inner, hidden),
                             random.linear(module + "w3", inner, hidden),
                             random.linear(module + "w2", hidden, inner)});
  }
  return layer;
}

// With a `partition`, that rank's share of it.
inline TinyModel tiny_model(Backend& backend, const ModelConfig& config, std::uint32_t seed = 1,
                            const Partition* partition = nullptr) {
  const Partition mine = partition ? *partition : Partition();
  RandomTensors random(seed);
  TinyModel model;
  model.config = config;
  model.weights.embed_tokens =
      backend.prepare_tensor(random.tensor({config.vocab_size, config.hidden_size}, 1));
  for (std::int64_t index = 0; index < config.num_hidden_layers; ++index)
    model.weights.layers.push_back(prepare_layer(backend, share_of(config, mine),
                                                 share_of(tiny_layer(config, index, random), config, mine)));
  model.weights.norm = backend.prepare_tensor(random.tensor({config.hidden_size}, 0.2f, 1));
  std::vector<StoredLinear> head;
  head.push_back(random.linear("lm_head", config.vocab_size, config.hidden_size).linear);
  model.weights.lm_head = backend.prepare_linear(std::move(head));
  return model;
}

inline std::vector<std::int32_t> random_tokens(std::int64_t count, std::int64_t vocab_size,
                                               std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<std::int32_t> token(0, static_cast<std::int32_t>(vocab_size - 1));
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::int32_t& each : tokens) each = token(engine);
  return tokens;
}

// Logits [tokens, vocabulary] of one sequence, computed `chunk` tokens a step from an empty cache.
inline std::vector<float> all_logits(Decoder& decoder, std::span<const std::int32_t> tokens,
                                     std::int64_t chunk, DType cache_dtype = DType::kBF16) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  const std::int64_t block_size = decoder.backend().preferred_block_size();
  const std::int64_t per_group = (count + block_size - 1) / block_size;
  const auto groups = static_cast<std::int64_t>(decoder.kv_layout().groups.size());
  const std::int64_t num_blocks = groups * per_group;
  const auto cache = decoder.make_kv_cache(num_blocks, cache_dtype);
  std::vector<std::int32_t> blocks;
  // Not in order: the block table must be obeyed.
  for (std::int64_t b = num_blocks - 1; b >= 0; --b) blocks.push_back(static_cast<std::int32_t>(b));
  StepBatch batch(decoder.limits().max_tokens, 1, per_group, groups);
  std::vector<float> result;
  for (std::int64_t done = 0; done < count; done += chunk) {
    const std::int64_t now = std::min(chunk, count - done);
    batch.clear();
    batch.add(tokens.subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(now)), done, blocks);
    decoder.forward(batch.view(), *cache);
    for (std::int64_t first = 0; first < now; first += decoder.limits().max_logit_rows) {
      std::vector<std::int32_t> rows;
      for (std::int64_t row = first; row < std::min(now, first + decoder.limits().max_logit_rows); ++row)
        rows.push_back(static_cast<std::int32_t>(row));
      const std::span<const float> logits = decoder.logits(rows);
      result.insert(result.end(), logits.begin(), logits.end());
    }
  }
  return result;
}

}  // namespace bise
