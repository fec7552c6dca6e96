// The tensors of one linear module in a checkpoint, of any storage: which there are, reading them with every
// shape checked, and writing them. spec/quantization.md sections 2 and 7.2. Plain functions, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/quantization_config.h"
#include "formats/safetensors.h"
#include "tensor/tensor.h"

namespace bise {

// A linear layer's weight [rows = outputs, columns = inputs] as stored; nothing is expanded. Absent tensors
// are empty().
struct StoredLinear {
  LinearFormat format;
  std::int64_t rows = 0, columns = 0;
  // kDense: F32, F16 or BF16 [rows, columns]. kPlain: I8 or F8_E4M3 [rows, columns].
  // kPacked: I32 [rows, ceil(columns * num_bits / 32)]. kNf4: U8 [rows * columns / 2, 1], first element of a
  // pair in the high nibble.
  Tensor weight;
  // Multiplier of the codes, any float dtype: [1] (tensor), [rows, 1] (channel), [rows, groups] (group).
  // kNf4: absmax, F32 [rows * columns / 64]; a double-quantized one is read as plain F32.
  Tensor scale;
  // Asymmetric only. kPacked: I32 [ceil(rows * num_bits / 32), groups], packed along rows (tensor/pack.h).
  // kPlain: I8, shaped as scale.
  Tensor zero_point;
  Tensor g_idx;        // I32 [columns]: group of each column, when groups are not consecutive columns
  Tensor input_scale;  // static inputs only: one float
  Tensor quant_map;    // kNf4: F32 [16], the value of each code
  Tensor bias;         // float [rows], when the module has one

  // Groups of columns that share a scale; 1 for tensor and channel.
  std::int64_t groups() const;
};

// Reads the module from the checkpoint. Throws Error naming the tensor, expected and found dtype or shape.
StoredLinear read_linear(const Checkpoint& checkpoint, const QuantizationConfig& config,
                         const std::string& module, std::int64_t rows, std::int64_t columns);

// Drops the pages of the module's tensors.
void release_linear(const Checkpoint& checkpoint, const std::string& module);

// The codes as I8 [rows, columns] (integer schemes), signed: unpacked where they are packed.
Tensor linear_codes(const StoredLinear& linear);
// The zero points as I8 [rows, groups]; all zero for a symmetric scheme.
Tensor linear_zero_points(const StoredLinear& linear);
// The weight as float32 [rows, columns]: (code - zero point) * scale, in f32. For tests and for quantizing
// again; computing uses the codes as they are.
Tensor dequantize_linear(const StoredLinear& linear);

// The tensors the writer stores for a module, in the reference's order. `scale_dtype` is the model's dtype
// (NF4 stores F32). Throws Error when the group size does not divide the columns (naming module and sizes).
// The bias, if any, is not among them.
std::vector<PlannedTensor> planned_linear(const std::string& module, const LinearFormat& format,
                                          std::int64_t rows, std::int64_t columns, DType scale_dtype);

// Writes them. `linear` must have exactly the planned dtypes and shapes; `model_dtype` is noted in NF4's
// quant_state ("bfloat16").
void write_linear(CheckpointWriter& writer, const std::string& module, const StoredLinear& linear,
                  DType model_dtype);

}  // namespace bise
