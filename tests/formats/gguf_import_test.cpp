#include "formats/gguf_import.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "formats/model_config.h"
#include "formats/safetensors.h"
#include "formats/tensor_names.h"
#include "tensor/float_types.h"
#include "tests/formats/small_files.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

class GgufImport : public testing::Test {
 protected:
  fs::path import(const std::string& bytes) {
    put_file(folder_.path() / "x.gguf", bytes);
    const fs::path out = folder_.path() / "out";
    fs::remove_all(out);
    fs::create_directory(out);
    import_gguf(GgufFile::open(folder_.path() / "x.gguf"), out);
    return out;
  }
  ScratchFolder folder_;
};

TEST_F(GgufImport, ASmallLlamaBecomesACheckpoint) {
  const fs::path out = import(small_llama().bytes());
  const ModelConfig config = read_model_config(out);
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.num_hidden_layers, 2);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.vocab_size, 12);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::int64_t>{0}));
  const Checkpoint checkpoint = Checkpoint::open(out);
  EXPECT_EQ(checkpoint.names().size(), 20u);
  // The builder counts 0, 1/8, 2/8, ... modulo 251/8 through every tensor; all are exact in bf16.
  const Tensor v = checkpoint.tensor("model.layers.1.self_attn.v_proj.weight");
  EXPECT_EQ(v.shape(), (Shape{32, 64}));
  for (std::int64_t i = 0; i < v.elements(); ++i)
    ASSERT_EQ(bf16_to_float(v.data<bf16>()[i]), static_cast<float>(i % 251) / 8) << i;
  Tensor interleaved = Tensor::allocate(DType::kBF16, {64, 64});
  for (std::int64_t i = 0; i < 64 * 64; ++i)
    interleaved.mutable_data<bf16>()[i] = float_to_bf16(static_cast<float>(i % 251) / 8);
  EXPECT_TRUE(same_tensor(checkpoint.tensor("model.layers.0.self_attn.q_proj.weight"),
                          from_interleaved_rotary(interleaved, 2)));
  const Json tokenizer = read_json_file(out / "tokenizer.json");
  EXPECT_EQ(tokenizer["model"]["vocab"]["abc"], 6);
  EXPECT_EQ(json_text(tokenizer["model"]["merges"]), R"([["a","b"],["ab","c"]])");
  EXPECT_EQ(tokenizer["added_tokens"].size(), 2u);
  EXPECT_EQ(tokenizer["pre_tokenizer"]["pretokenizers"][0]["type"], "Digits");
}

TEST_F(GgufImport, Mixtral) {
  GgufBuilder gguf = small_llama();
  gguf.number("llama.expert_count", 3).number("llama.expert_used_count", 2);
  EXPECT_THROW(import(gguf.bytes()), Error);  // the dense tensors are not Mixtral's
  GgufBuilder moe;
  moe.text("general.architecture", "llama")
      .number("llama.block_count", 1)
      .number("llama.embedding_length", 32)
      .number("llama.feed_forward_length", 64)
      .number("llama.attention.head_count", 2)
      .number("llama.context_length", 64)
      .number("llama.expert_count", 3)
      .number("llama.expert_used_count", 2)
      .real("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", "gpt-2")
      .texts("tokenizer.ggml.tokens", {"a", "b"})
      .list<std::int32_t>("tokenizer.ggml.token_type", 5, {1, 1})
      .texts("tokenizer.ggml.merges", {});
  const auto add = [&](const std::string& name, const Shape& shape) {
    std::string bytes;
    for (std::int64_t i = 0; i < element_count(shape); ++i) bytes += raw(static_cast<float>(i / 32));
    moe.tensor(name, shape, 0, bytes);
  };
  add("token_embd.weight", {2, 32});
  add("output.weight", {2, 32});
  add("output_norm.weight", {32});
  for (const char* name : {"attn_norm", "ffn_norm"}) add(fmt::format("blk.0.{}.weight", name), {32});
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"})
    add(fmt::format("blk.0.{}.weight", name), {32, 32});
  add("blk.0.ffn_gate_inp.weight", {3, 32});
  add("blk.0.ffn_gate_exps.weight", {3, 64, 32});
  add("blk.0.ffn_up_exps.weight", {3, 64, 32});
  add("blk.0.ffn_down_exps.weight", {3, 32, 64});
  const fs::path out = import(moe.bytes());
  const ModelConfig config = read_model_config(out);
  EXPECT_EQ(config.num_local_experts, 3);
  EXPECT_FALSE(config.tie_word_embeddings);
  const Checkpoint checkpoint = Checkpoint::open(out);
  const Tensor w1 = checkpoint.tensor("model.layers.0.block_sparse_moe.experts.2.w1.weight");
  EXPECT_EQ(bf16_to_float(w1.data<bf16>()[0]), 2 * 64);  // row 128 of the stack
  const Tensor w2 = checkpoint.tensor("model.layers.0.block_sparse_moe.experts.1.w2.weight");
  EXPECT_EQ(w2.shape(), (Shape{32, 64}));
  EXPECT_EQ(bf16_to_float(w2.data<bf16>()[0]), 64);
}

TEST_F(GgufImport, Llama31RopeFactorsBecomeRopeScaling) {
  const auto with_factors = [](double spoil) {
    GgufBuilder gguf = small_llama();
    std::string bytes;
    for (int i = 0; i < 16; ++i) {
      const double wavelength = 2 * M_PI * std::pow(10000, 2.0 * i / 32);
      double factor = 1;
      if (wavelength > 8192)
        factor = 8;
      else if (wavelength > 2048) {
        const double smooth = (8192 / wavelength - 1) / 3;
        factor = 1 / ((1 - smooth) / 8 + smooth);
      }
      bytes += raw(static_cast<float>(i == 3 ? factor * spoil : factor));
    }
    return gguf.tensor("rope_freqs.weight", {16}, 0, bytes).bytes();
  };
  const RopeConfig rope = read_model_config(import(with_factors(1))).rope;
  EXPECT_EQ(rope.type, RopeType::kLlama3);
  EXPECT_EQ(rope.factor, 8);
  EXPECT_EQ(rope.original_max_position_embeddings, 8192);
  EXPECT_THROW(import(with_factors(1.5)), Error);
}

TEST_F(GgufImport, SentencePieceBecomesByteFallbackBpe) {
  GgufBuilder gguf;
  const std::string bytes = small_llama().bytes();
  // The same model with the other tokenizer: the keys are replaced in a fresh builder.
  gguf.text("general.architecture", "llama").text("tokenizer.ggml.model", "llama");
  put_file(folder_.path() / "x.gguf", bytes);
  const GgufFile dense = GgufFile::open(folder_.path() / "x.gguf");
  for (const char* key :
       {"llama.block_count", "llama.embedding_length", "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.head_count_kv", "llama.context_length"})
    gguf.number(key, static_cast<std::uint32_t>(dense.integer(key)));
  gguf.real("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .texts("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "<0x0A>", "\xe2\x96\x81", "a", "b", "ab",
                                       "\xe2\x96\x81"
                                       "a",
                                       "\xe2\x96\x81"
                                       "ab",
                                       "aab", "aa"})
      .list<std::int32_t>("tokenizer.ggml.token_type", 5, {2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1})
      .list<float>("tokenizer.ggml.scores", 6, {0, 0, 0, 0, -10, -11, -12, -1, -2, -3, -4, -5})
      .number("tokenizer.ggml.bos_token_id", 1)
      .number("tokenizer.ggml.eos_token_id", 2)
      .number("tokenizer.ggml.unknown_token_id", 0)
      .text("tokenizer.chat_template", "{{ messages }}");
  for (const GgufTensor& tensor : dense.tensors())
    gguf.tensor(tensor.name, tensor.shape, 0,
                std::string(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()));
  const fs::path out = import(gguf.bytes());
  const Json tokenizer = read_json_file(out / "tokenizer.json");
  // By score, then by the pieces' lengths, longest left piece first.
  EXPECT_EQ(json_text(tokenizer["model"]["merges"]),
            "[[\"a\",\"b\"],[\"\xe2\x96\x81\",\"a\"],[\"\xe2\x96\x81"
            "a\",\"b\"],[\"\xe2\x96\x81\",\"ab\"],"
            "[\"aa\",\"b\"],[\"a\",\"ab\"],[\"a\",\"a\"]]");
  EXPECT_EQ(tokenizer["model"]["byte_fallback"], true);
  EXPECT_EQ(tokenizer["model"]["unk_token"], "<unk>");
  EXPECT_EQ(tokenizer["normalizer"]["normalizers"][0]["type"], "Prepend");
  EXPECT_EQ(tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
  EXPECT_EQ(tokenizer["decoder"]["decoders"][1]["type"], "ByteFallback");
  const Json config = read_json_file(out / "tokenizer_config.json");
  EXPECT_EQ(config["add_bos_token"], true);
  EXPECT_EQ(config["chat_template"], "{{ messages }}");
}

TEST_F(GgufImport, WhatCannotBeImportedIsRefusedByName) {
  const std::string good = small_llama().bytes();
  const auto swapped = [&](const std::string& from, const std::string& to) {
    std::string bytes = good;
    bytes.replace(bytes.find(from), from.size(), to);
    return bytes;
  };
  const struct {
    std::string bytes;
    const char* message;
  } cases[] = {
      {swapped("llama.block_count", "llama.block_kount"), "llama.block_count"},
      {swapped(GgufBuilder::packed("llama"), GgufBuilder::packed("gemma")), "gemma"},
      {swapped(GgufBuilder::packed("smollm"), GgufBuilder::packed("smolln")), "smolln"},
      {swapped(GgufBuilder::packed("gpt2"), GgufBuilder::packed("rwkv")), "rwkv"},
      {swapped("blk.1.attn_q.weight", "blk.1.attn_r.weight"), "blk.1.attn_q.weight"},
      {swapped(GgufBuilder::packed("abc"), GgufBuilder::packed("ab"
                                                               "a")),
       ""},
      {swapped(GgufBuilder::packed("f"), GgufBuilder::packed("e")), "twice"},
      {swapped(GgufBuilder::packed("f"), GgufBuilder::packed("\xff")), "UTF-8"},
      {swapped("llama.embedding_length" + raw(std::uint32_t{4}) + raw(std::uint32_t{64}),
               "llama.embedding_length" + raw(std::uint32_t{4}) + raw(std::uint32_t{32})),
       "wrong shape"},
      {swapped("llama.attention.head_count_kv" + raw(std::uint32_t{4}) + raw(std::uint32_t{1}),
               "llama.attention.head_count_kv" + raw(std::uint32_t{4}) + raw(std::uint32_t{0})),
       "out of range"},
      {swapped("tokenizer.ggml.eos_token_id" + raw(std::uint32_t{4}) + raw(std::uint32_t{0}),
               "tokenizer.ggml.eos_token_id" + raw(std::uint32_t{4}) + raw(std::uint32_t{12})),
       "eos_token_id"},
      {small_llama().tensor("blk.0.attn_q.bias", {64}, 0, std::string(256, '\0')).bytes(), "attn_q.bias"},
      {small_llama().text("llama.rope.scaling.type", "longrope").real("llama.rope.scaling.factor", 2).bytes(),
       "longrope"},
  };
  for (const auto& bad : cases) {
    try {
      const fs::path out = import(bad.bytes);
      if (*bad.message) ADD_FAILURE() << "accepted: " << bad.message;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(bad.message), std::string::npos) << error.what();
    }
  }
}

// A safetensors file whose header ends in as many spaces as Python writes: to a multiple of 8 bytes.
std::string as_python_pads(const std::string& bytes) {
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  const std::string_view tensors = std::string_view(bytes).substr(sizeof length + length);
  std::string header = bytes.substr(sizeof length, length);
  header.erase(header.find_last_not_of(' ') + 1);
  header.resize((header.size() + 7) / 8 * 8, ' ');
  length = header.size();
  std::string result(sizeof length, '\0');
  std::memcpy(result.data(), &length, sizeof length);
  return result.append(header).append(tensors);
}

// The real model: every byte of the reference's conversion (shared/golden/smollm2/README.md) but for the
// spaces after the header.
TEST_F(GgufImport, SmolLm2EqualsTheReference) {
  const fs::path gguf = source_root() / "build" / "models" / "smollm2.gguf";
  if (!fs::exists(gguf))
    GTEST_SKIP() << "build/models/smollm2.gguf is not on this machine; see CONTRIBUTING.md";
  std::size_t steps = 0;
  import_gguf(GgufFile::open(gguf), folder_.path(), [&](std::size_t done, std::size_t total) {
    EXPECT_EQ(done, ++steps);
    EXPECT_EQ(total, 272u);
  });
  EXPECT_EQ(steps, 272u);
  EXPECT_EQ(sha256_hex(as_python_pads(get_file(folder_.path() / "model.safetensors"))),
            "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b");
  EXPECT_EQ(sha256_hex(get_file(folder_.path() / "tokenizer.json")),
            "1793f703e5efbc7b88d049f635a2797aeddd72990d7e0653823d9fbbb1191e9e");
}

}  // namespace
}  // namespace bise
