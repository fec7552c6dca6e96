#include "formats/tensor_names.h"

#include <gtest/gtest.h>

namespace bise {
namespace {

TEST(TensorNames, MistralNativeToHuggingFace) {
  const struct {
    const char *native, *known;
  } cases[] = {
      {"tok_embeddings.weight", "model.embed_tokens.weight"},
      {"output.weight", "lm_head.weight"},
      {"output", "lm_head"},
      {"norm.weight", "model.norm.weight"},
      {"layers.31.attention.wo.weight", "model.layers.31.self_attn.o_proj.weight"},
      {"layers.2.attention.wk.weight_packed", "model.layers.2.self_attn.k_proj.weight_packed"},
      {"layers.2.attention.wk", "model.layers.2.self_attn.k_proj"},
      {"layers.2.attention.wk.qscale_act", "model.layers.2.self_attn.k_proj.input_scale"},
      {"layers.2.attention.wk.qscale_weight", "model.layers.2.self_attn.k_proj.weight_scale"},
      {"layers.2.attention.k_scale", "model.layers.2.self_attn.k_scale"},
      {"layers.0.feed_forward.w1.weight", "model.layers.0.mlp.gate_proj.weight"},
      {"layers.0.feed_forward.w3.weight", "model.layers.0.mlp.up_proj.weight"},
      {"layers.0.feed_forward.gate.weight", "model.layers.0.block_sparse_moe.gate.weight"},
      {"layers.0.gate.weight", "model.layers.0.block_sparse_moe.gate.weight"},
      {"layers.0.block_sparse_moe.experts.7.w2.weight",
       "model.layers.0.block_sparse_moe.experts.7.w2.weight"},
      {"layers.0.feed_forward.experts.7.w2.weight", "model.layers.0.block_sparse_moe.experts.7.w2.weight"},
  };
  for (const auto& names : cases) EXPECT_EQ(hugging_face_name(names.native).value_or("?"), names.known);
  for (const char* unknown : {"", "layers", "layers.", "layers.x.attention.wq.weight", "layers.0.attn.weight",
                              "vision_encoder.conv.weight", "outputs.weight"})
    EXPECT_FALSE(hugging_face_name(unknown).has_value()) << unknown;
}

TEST(TensorNames, OneNameForEachSpelling) {
  const struct {
    const char *stored, *canonical;
  } cases[] = {
      {"model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"},
      {"language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"},
      {"model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"},
      {"language_model.lm_head.weight", "lm_head.weight"},
      {"model.layers.1.block_sparse_moe.experts.3.gate_proj.weight",
       "model.layers.1.block_sparse_moe.experts.3.w1.weight"},
      {"model.layers.1.block_sparse_moe.experts.3.down_proj", "model.layers.1.block_sparse_moe.experts.3.w2"},
      {"model.layers.1.mlp.experts.3.up_proj.weight_scale",
       "model.layers.1.block_sparse_moe.experts.3.w3.weight_scale"},
      {"model.layers.1.block_sparse_moe.experts.3.w3.weight",
       "model.layers.1.block_sparse_moe.experts.3.w3.weight"},
      {"model.layers.1.block_sparse_moe.gate.weight", "model.layers.1.block_sparse_moe.gate.weight"},
      {"model.layers.1.block_sparse_moe.experts.", "model.layers.1.block_sparse_moe.experts."},
      {"", ""},
  };
  for (const auto& names : cases) EXPECT_EQ(canonical_name(names.stored), names.canonical);
}

}  // namespace
}  // namespace bise
