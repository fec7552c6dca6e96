// GGUF -> Hugging Face checkpoint, for models of the Llama family (llama, mistral, mixtral under llama.cpp's
// architecture name "llama").
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "formats/gguf.h"

namespace bise {

// Called after each tensor is written: how many of how many.
using ImportProgress = std::function<void(std::size_t done, std::size_t total)>;

// Writes config.json, generation_config.json, model.safetensors (every tensor dequantized to float32 and
// rounded to bfloat16; the row order of q and k changed back from llama.cpp's), tokenizer.json,
// tokenizer_config.json (with the chat template) and special_tokens_map.json into `folder`, which exists: the
// path of an AtomicFolder. Throws Error for another architecture, an unknown tokenizer or pre-tokenizer, and
// tensors that are missing, unexpected or of a wrong shape.
void import_gguf(const GgufFile& gguf, const std::filesystem::path& folder,
                 const ImportProgress& progress = {});

}  // namespace bise
