#include "formats/gguf_import.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "formats/gguf_tokenizer.h"
#include "formats/safetensors.h"
#include "formats/tensor_names.h"
#include "tensor/float_types.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

// Sizes of the model, from the metadata under "llama.".
struct Sizes {
  std::int64_t layers, hidden, feed_forward, heads, kv_heads, head_dim, context, experts, experts_used;
};

// A tensor to be written: rows [row, row + shape[0]) of a GGUF tensor, seen as a matrix.
struct Copy {
  std::string source;
  std::int64_t row = 0;
  PlannedTensor target;
  std::int64_t rotary_heads = 0;  // > 0: rows are in llama.cpp's interleaved rotary order
};

Sizes read_sizes(const GgufFile& gguf) {
  if (const std::string name = gguf.string("general.architecture"); name != "llama")
    throw Error("architecture is not supported")
        .at("key general.architecture")
        .expected("\"llama\"")
        .got(fmt::format("\"{}\"", name));
  if (gguf.integer("split.count", 1) > 1)
    throw Error("the model is split into several files: merge them first").at("key split.count");
  Sizes s{};
  s.layers = gguf.integer("llama.block_count");
  s.hidden = gguf.integer("llama.embedding_length");
  s.feed_forward = gguf.integer("llama.feed_forward_length");
  s.heads = gguf.integer("llama.attention.head_count");
  s.kv_heads = gguf.integer("llama.attention.head_count_kv", s.heads);
  s.context = gguf.integer("llama.context_length");
  s.experts = gguf.integer("llama.expert_count", 0);
  s.experts_used = gguf.integer("llama.expert_used_count", 0);
  for (const std::int64_t size : {s.layers, s.hidden, s.feed_forward, s.heads, s.kv_heads, s.context})
    if (size < 1 || size > (1 << 24))
      throw Error("a model size is out of range").at("keys llama.*").got(fmt::format("{}", size));
  if (s.experts < 0 || s.experts > 512 || s.layers > 1000 || s.heads % s.kv_heads != 0)
    throw Error("the model's sizes contradict each other").at("keys llama.*");
  s.head_dim = gguf.integer("llama.attention.key_length", s.hidden / s.heads);
  if (s.head_dim < 2 || s.head_dim > (1 << 14) || s.head_dim % 2 != 0)
    throw Error("head size is out of range").got(fmt::format("{}", s.head_dim));
  if (gguf.integer("llama.rope.dimension_count", s.head_dim) != s.head_dim)
    throw Error("rotary embedding of a part of the head is not supported")
        .at("key llama.rope.dimension_count");
  return s;
}

// The metadata's float as the shortest decimal that rounds to it: 1e-05, not 9.999999747378752e-06.
double decimal(double value) {
  return std::strtod(fmt::format("{}", static_cast<float>(value)).c_str(), nullptr);
}

std::vector<Copy> plan_copies(const GgufFile& gguf, const Sizes& s) {
  std::vector<Copy> copies;
  const auto add = [&](std::string source, std::string target, Shape shape, std::int64_t rotary = 0,
                       std::int64_t row = 0) {
    copies.push_back({std::move(source), row, {std::move(target), DType::kBF16, std::move(shape)}, rotary});
  };
  const std::int64_t vocab = gguf.tensor("token_embd.weight").rows();
  add("token_embd.weight", "model.embed_tokens.weight", {vocab, s.hidden});
  for (std::int64_t layer = 0; layer < s.layers; ++layer) {
    const std::string from = fmt::format("blk.{}.", layer), to = fmt::format("model.layers.{}.", layer);
    const std::int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    add(from + "attn_norm.weight", to + "input_layernorm.weight", {s.hidden});
    add(from + "attn_q.weight", to + "self_attn.q_proj.weight", {q, s.hidden}, s.heads);
    add(from + "attn_k.weight", to + "self_attn.k_proj.weight", {kv, s.hidden}, s.kv_heads);
    add(from + "attn_v.weight", to + "self_attn.v_proj.weight", {kv, s.hidden});
    add(from + "attn_output.weight", to + "self_attn.o_proj.weight", {s.hidden, q});
    add(from + "ffn_norm.weight", to + "post_attention_layernorm.weight", {s.hidden});
    if (s.experts == 0) {
      add(from + "ffn_gate.weight", to + "mlp.gate_proj.weight", {s.feed_forward, s.hidden});
      add(from + "ffn_up.weight", to + "mlp.up_proj.weight", {s.feed_forward, s.hidden});
      add(from + "ffn_down.weight", to + "mlp.down_proj.weight", {s.hidden, s.feed_forward});
      continue;
    }
    add(from + "ffn_gate_inp.weight", to + "block_sparse_moe.gate.weight", {s.experts, s.hidden});
    for (std::int64_t e = 0; e < s.experts; ++e) {
      const std::string expert = fmt::format("{}block_sparse_moe.experts.{}.", to, e);
      add(from + "ffn_gate_exps.weight", expert + "w1.weight", {s.feed_forward, s.hidden}, 0,
          e * s.feed_forward);
      add(from + "ffn_down_exps.weight", expert + "w2.weight", {s.hidden, s.feed_forward}, 0, e * s.hidden);
      add(from + "ffn_up_exps.weight", expert + "w3.weight", {s.feed_forward, s.hidden}, 0,
          e * s.feed_forward);
    }
  }
  add("output_norm.weight", "model.norm.weight", {s.hidden});
  if (gguf.contains("output.weight")) add("output.weight", "lm_head.weight", {vocab, s.hidden});
  return copies;
}

// Every tensor of the file is used, whole, and has the shape that the metadata asks for.
void check_tensors(const GgufFile& gguf, const Sizes& s, const std::vector<Copy>& copies) {
  std::set<std::string> used = {"rope_freqs.weight"};
  for (const Copy& copy : copies) {
    used.insert(copy.source);
    Shape expected = copy.target.shape;
    if (copy.source.ends_with("_exps.weight")) expected.insert(expected.begin(), s.experts);
    const GgufTensor& tensor = gguf.tensor(copy.source);
    if (tensor.shape != expected)
      throw Error("tensor {} has the wrong shape", copy.source)
          .expected(shape_text(expected))
          .got(shape_text(tensor.shape));
  }
  for (const GgufTensor& tensor : gguf.tensors())
    if (!used.contains(tensor.name))
      throw Error("tensor {} is not part of a Llama model that can be imported", tensor.name);
}

// The factors of Llama 3.1's rope_freqs.weight, by frequency (Llama 3.1 model code, apply_scaling).
double llama3_factor(double wavelength, double factor, double original) {
  const double low = 1, high = 4;
  if (wavelength < original / high) return 1;
  if (wavelength > original / low) return factor;
  const double smooth = (original / wavelength - low) / (high - low);
  return 1 / ((1 - smooth) / factor + smooth);
}

// rope_scaling of config.json, null for none.
Json rope_scaling(const GgufFile& gguf, const Sizes& s, double theta) {
  if (gguf.contains("rope_freqs.weight")) {
    const GgufTensor& tensor = gguf.tensor("rope_freqs.weight");
    if (tensor.shape != Shape{s.head_dim / 2})
      throw Error("tensor rope_freqs.weight has the wrong shape").got(shape_text(tensor.shape));
    std::vector<float> factors(static_cast<std::size_t>(tensor.columns()));
    gguf.dequantize(tensor, 0, 1, factors);
    const double factor = factors.back();
    constexpr double kOriginal = 8192, kPi = 3.14159265358979323846;
    for (std::size_t i = 0; i < factors.size(); ++i) {
      const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(s.head_dim);
      const double expected = llama3_factor(2 * kPi * std::pow(theta, exponent), factor, kOriginal);
      if (!(std::fabs(factors[i] - expected) <= 1e-3 * expected))
        throw Error("rope_freqs.weight is not Llama 3.1's scaling")
            .expected(fmt::format("{}", expected))
            .got(fmt::format("{}", factors[i]));
    }
    return {{"rope_type", "llama3"},
            {"factor", factor},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 4.0},
            {"original_max_position_embeddings", 8192}};
  }
  const std::string type = gguf.string("llama.rope.scaling.type", "none");
  if (type == "none") return nullptr;
  const double factor = decimal(gguf.number("llama.rope.scaling.factor"));
  if (type == "linear") return {{"rope_type", "linear"}, {"factor", factor}};
  if (type == "yarn")
    return {{"rope_type", "yarn"},
            {"factor", factor},
            {"original_max_position_embeddings", gguf.integer("llama.rope.scaling.original_context_length")}};
  throw Error("rope scaling is not supported").at("key llama.rope.scaling.type").got("\"" + type + "\"");
}

Json id_or_null(std::int64_t id) {
  return id < 0 ? Json() : Json(id);
}

Json config_json(const GgufFile& gguf, const Sizes& s, const SpecialTokenIds& special) {
  const bool mixtral = s.experts > 0;
  const double theta = decimal(gguf.number("llama.rope.freq_base", 10000));
  Json config = {{"architectures", {mixtral ? "MixtralForCausalLM" : "LlamaForCausalLM"}},
                 {"model_type", mixtral ? "mixtral" : "llama"},
                 {"vocab_size", gguf.tensor("token_embd.weight").rows()},
                 {"hidden_size", s.hidden},
                 {"intermediate_size", s.feed_forward},
                 {"num_hidden_layers", s.layers},
                 {"num_attention_heads", s.heads},
                 {"num_key_value_heads", s.kv_heads},
                 {"head_dim", s.head_dim},
                 {"hidden_act", "silu"},
                 {"max_position_embeddings", s.context},
                 {"rms_norm_eps", decimal(gguf.number("llama.attention.layer_norm_rms_epsilon"))},
                 {"rope_theta", theta},
                 {"rope_scaling", rope_scaling(gguf, s, theta)}};
  if (mixtral) {
    config["num_local_experts"] = s.experts;
    config["num_experts_per_tok"] = s.experts_used;
    config["sliding_window"] = nullptr;
  } else {
    config["attention_bias"] = false;
    config["mlp_bias"] = false;
  }
  config["tie_word_embeddings"] = !gguf.contains("output.weight");
  config["bos_token_id"] = id_or_null(special.bos);
  config["eos_token_id"] = id_or_null(special.eos);
  config["pad_token_id"] = id_or_null(special.pad);
  config["torch_dtype"] = "bfloat16";
  config["use_cache"] = true;
  return config;
}

Json generation_config_json(const SpecialTokenIds& special) {
  Json config = Json::object();
  if (special.bos >= 0) config["bos_token_id"] = special.bos;
  if (special.eos >= 0) config["eos_token_id"] = special.eos;
  if (special.eot >= 0 && special.eot != special.eos)
    config["eos_token_id"] = Json::array({special.eos, special.eot});
  if (special.pad >= 0) config["pad_token_id"] = special.pad;
  return config;
}

// As json_text, but text that is no UTF-8 is an error: a changed token would be another token.
void write_json(const fs::path& path, const Json& value) {
  std::string text;
  try {
    text = value.dump(2);
  } catch (const Json::exception& problem) {
    throw Error("the file's text is no UTF-8: {}", problem.what()).at(path.filename().string());
  }
  write_file(path, text + "\n");
}

Tensor convert(const GgufFile& gguf, const Copy& copy) {
  const GgufTensor& source = gguf.tensor(copy.source);
  const std::int64_t columns = source.columns();
  const std::int64_t rows = element_count(copy.target.shape) / columns;
  Tensor result = Tensor::allocate(DType::kBF16, copy.target.shape);
  auto* out = result.mutable_data<bf16>();
  std::vector<float> row(static_cast<std::size_t>(columns));
  for (std::int64_t i = 0; i < rows; ++i) {
    gguf.dequantize(source, copy.row + i, copy.row + i + 1, row);
    for (const float value : row) *out++ = float_to_bf16(value);
  }
  return copy.rotary_heads > 0 ? from_interleaved_rotary(result, copy.rotary_heads) : result;
}

void import_tensors(const GgufFile& gguf, const std::vector<Copy>& copies, const fs::path& folder,
                    const ImportProgress& progress) {
  std::vector<PlannedTensor> plan;
  for (const Copy& copy : copies) plan.push_back(copy.target);
  CheckpointWriter writer(folder, plan);
  for (std::size_t i = 0; i < copies.size(); ++i) {
    writer.write(copies[i].target.name, convert(gguf, copies[i]));
    // The three expert tensors of a layer serve many copies; the others are done.
    if (!copies[i].source.ends_with("_exps.weight")) gguf.release(gguf.tensor(copies[i].source));
    if (progress) progress(i + 1, copies.size());
  }
  writer.finish();
}

}  // namespace

void import_gguf(const GgufFile& gguf, const fs::path& folder, const ImportProgress& progress) {
  try {
    const Sizes sizes = read_sizes(gguf);
    const GgufTokenizer tokenizer(gguf);
    const std::vector<Copy> copies = plan_copies(gguf, sizes);
    check_tensors(gguf, sizes, copies);
    if (static_cast<std::int64_t>(tokenizer.vocab_size()) > gguf.tensor("token_embd.weight").rows())
      throw Error("there are more tokens than embedding rows").got(fmt::format("{}", tokenizer.vocab_size()));
    write_json(folder / "config.json", config_json(gguf, sizes, tokenizer.special()));
    write_json(folder / "generation_config.json", generation_config_json(tokenizer.special()));
    write_json(folder / "tokenizer.json", tokenizer.tokenizer_json());
    write_json(folder / "tokenizer_config.json", tokenizer.tokenizer_config_json(sizes.context));
    write_json(folder / "special_tokens_map.json", tokenizer.special_tokens_map_json());
    import_tensors(gguf, copies, folder, progress);
  } catch (const Error& error) {
    rethrow_inside(error, gguf.path().string());
  }
}

}  // namespace bise
