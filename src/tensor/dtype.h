// Element types of stored tensors. Names and sizes are those of the safetensors format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bise {

enum class DType { kF64, kF32, kF16, kBF16, kF8E4M3, kI64, kI32, kI16, kI8, kU64, kU32, kU16, kU8, kBool };

// Bytes of one element.
std::size_t dtype_size(DType dtype);

// "F32", "BF16", "F8_E4M3", "I8", ...
std::string_view dtype_name(DType dtype);

// The inverse of dtype_name; throws Error for an unknown name.
DType parse_dtype(std::string_view name);

bool is_float(DType dtype);

}  // namespace bise
