// The tensors of one linear module in a checkpoint, of any storage: which there are, reading them with every
// shape checked, and writing them. spec/quantization.md sections 2 and 7.2. Plain functions, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/quantization_config.h"
#include "formats/safetensors.h"
#include "tensor/stored_linear.h"
#include "tensor/tensor.h"

namespace bise {

// Reads the module from the checkpoint as it is stored; a double-quantized NF4 absmax is read as plain F32,
// and NF4 codes as a flat [rows * columns / 2]. Throws Error naming the tensor, expected and found dtype or
// shape.
StoredLinear read_linear(const Checkpoint& checkpoint, const QuantizationConfig& config,
                         const std::string& module, std::int64_t rows, std::int64_t columns);

// Drops the pages of the module's tensors.
void release_linear(const Checkpoint& checkpoint, const std::string& module);

// The codes as I8 [rows, columns] (integer schemes), signed: unpacked where they are packed.
Tensor linear_codes(const StoredLinear& linear);
// The zero points as I8 [rows, groups]; all zero for a symmetric scheme.
Tensor linear_zero_points(const StoredLinear& linear);

// The tensors the writer stores for a module, in the reference's order. `scale_dtype` is the model's dtype
// (NF4 stores F32 whatever it is). Throws Error when the group size does not divide the columns (naming
// module and sizes). The bias, if any, is not among them.
std::vector<PlannedTensor> planned_linear(const std::string& module, const LinearFormat& format,
                                          std::int64_t rows, std::int64_t columns, DType scale_dtype);

// Writes them. `linear` must have exactly the planned dtypes and shapes; `model_dtype` is noted in NF4's
// quant_state ("bfloat16").
void write_linear(CheckpointWriter& writer, const std::string& module, const StoredLinear& linear,
                  DType model_dtype);

}  // namespace bise
