// Which scheme and which storage each linear module of a checkpoint has: config.json's
// "quantization_config" (or params.json's "quantization") of compressed-tensors, AutoFP8 and bitsandbytes,
// read and written. spec/quantization.md sections 1, 7.1, 7.2. Plain values, any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "tensor/scheme.h"

namespace bise {

// How the codes of a weight lie in the file.
enum class Storage {
  kDense,   // not quantized: `weight` in a float dtype
  kPlain,   // one code a byte: `weight` I8 or F8_E4M3 [rows, columns]
  kPacked,  // `weight_packed` I32 [rows, ceil(columns * bits / 32)] (compressed-tensors pack-quantized)
  kNf4,     // `weight` U8 [rows * columns / 2, 1] (bitsandbytes)
};

// Scheme and storage of one linear module.
struct LinearFormat {
  Scheme scheme;
  Storage storage = Storage::kDense;
  bool group_index = false;  // weight_g_idx stands in the file (actorder "group" of old checkpoints)
  std::int64_t block_rows = 0, block_columns = 0;  // Strategy::kBlock only
  bool operator==(const LinearFormat&) const = default;
};

// The FP8 key/value cache that a checkpoint asks for.
enum class KvCacheScheme { kNone, kFp8Tensor };

class QuantizationConfig {
 public:
  // Nothing is quantized.
  QuantizationConfig() = default;

  // Reads the folder's config.json or params.json. Throws Error naming the key for an unknown method, an
  // unknown key inside QuantizationArgs, and for what bise does not run (NVFP4, MXFP4, inputs quantized by
  // group, static int8 inputs, 2:4 sparsity, transforms, ...).
  static QuantizationConfig read(const std::filesystem::path& checkpoint_folder);
  // The same from the object itself; `where` names it in errors.
  static QuantizationConfig parse(const Json& object, const std::string& where);

  // The format of the linear module `name` ("model.layers.0.mlp.up_proj", "lm_head"); a module that no
  // target names or that is ignored is dense. Only ask for modules that are linear layers.
  LinearFormat format_of(std::string_view name) const;
  Scheme scheme_of(std::string_view name) const { return format_of(name).scheme; }

  // "compressed-tensors", "fp8", "bitsandbytes" or "" when nothing is quantized.
  const std::string& quant_method() const { return quant_method_; }
  KvCacheScheme kv_cache_scheme() const { return kv_cache_scheme_; }

 private:
  struct Pattern;
  struct Group;
  void parse_compressed_tensors(const Json& object, const std::string& where);
  void parse_fp8(const Json& object, const std::string& where);
  void parse_bitsandbytes(const Json& object, const std::string& where);

  std::string quant_method_;
  KvCacheScheme kv_cache_scheme_ = KvCacheScheme::kNone;
  // Immutable after parsing, so copies share them.
  std::vector<std::shared_ptr<const Group>> groups_;    // the first that matches wins
  std::vector<std::shared_ptr<const Pattern>> ignore_;  // wins over every group
};

// One entry of config_groups to be written.
struct GroupToWrite {
  std::vector<std::string> targets = {"Linear"};
  Scheme scheme;
  bool static_actorder = false;  // GPTQ's default order: "actorder":"static"
  std::string observer = "memoryless_minmax";
};

// The storage that compressed-tensors infers for `scheme`: packed for weight-only integers, else plain.
Storage storage_for(const Scheme& scheme);

// The object that compressed-tensors 0.19 writes, key for key (spec section 1.5). `ignore` holds concrete
// module names. Throws Error for a scheme the format cannot hold (NF4).
Json compressed_tensors_config(const std::vector<GroupToWrite>& groups,
                               const std::vector<std::string>& ignore);

// The object that transformers writes for bitsandbytes NF4 without double quantization. `skip_modules` empty:
// null, the reader's default (all linear modules but lm_head).
Json bitsandbytes_config(const std::vector<std::string>& skip_modules);

}  // namespace bise
