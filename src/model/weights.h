// One decoder layer and a whole model, twice: as a checkpoint stores them (views of mapped files, for
// inspecting and quantizing) and as a backend computes with them. Field names are the Hugging Face module
// names. Plain values owned by whoever holds them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "tensor/stored_linear.h"
#include "tensor/tensor.h"

namespace bise {

// A linear layer and its name in the checkpoint ("model.layers.0.mlp.up_proj").
struct NamedLinear {
  std::string module;
  StoredLinear linear;
};

// What linear layers read: the layers of one site share their input.
enum class InputSite { kQkv, kOutput, kGateUp, kDown };

// One expert of a sparse MLP: w1 = gate, w3 = up [intermediate, hidden], w2 = down [hidden, intermediate].
struct ExpertTensors {
  NamedLinear w1, w3, w2;
};

struct LayerTensors {
  Tensor input_layernorm, post_attention_layernorm;  // [hidden]
  NamedLinear q_proj, k_proj, v_proj, o_proj;
  NamedLinear gate_proj, up_proj, down_proj;  // dense MLP; no module name when there are experts
  NamedLinear gate;                           // router [experts, hidden]; only with experts
  std::vector<ExpertTensors> experts;
  std::optional<float> k_scale, v_scale;  // of a float8 KV cache, when the checkpoint has them

  // All linear layers in computing order; pointers into this object.
  std::vector<NamedLinear*> linears();
  // Those that read the input of `site`. With experts, kGateUp gives the router and every w1 and w3 (they
  // share the input), kDown the w2 of `expert`.
  std::vector<NamedLinear*> linears_at(InputSite site, std::int64_t expert = -1);
};

struct LayerWeights {
  std::unique_ptr<DeviceTensor> input_layernorm, post_attention_layernorm;
  std::unique_ptr<LinearWeight> qkv;                 // q, k and v joined
  std::unique_ptr<LinearWeight> o_proj;              //
  std::unique_ptr<LinearWeight> gate_up, down_proj;  // dense MLP: gate and up joined
  std::unique_ptr<ExpertWeights> experts;            // or this
  // Of a KV cache of kF8E4M3; 1 where the checkpoint has none.
  std::optional<float> key_scale, value_scale;
  std::int64_t bytes = 0;  // of the stored tensors
};

struct ModelWeights {
  std::unique_ptr<DeviceTensor> embed_tokens;  // [vocabulary, hidden]
  std::vector<LayerWeights> layers;
  std::unique_ptr<DeviceTensor> norm;     // [hidden]
  std::unique_ptr<LinearWeight> lm_head;  // [vocabulary, hidden]
  std::int64_t bytes = 0;                 // of the stored tensors; a tied embedding counts once
};

// Bytes that a loaded model holds, for reports.
struct MemoryUse {
  std::int64_t weights = 0, kv_cache = 0, workspace = 0;
  std::int64_t total() const { return weights + kv_cache + workspace; }
};

}  // namespace bise
