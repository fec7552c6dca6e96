#include "tensor/dtype.h"

#include <array>

#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  std::size_t size;
};

constexpr std::array<Entry, 14> kTable{{{DType::kF64, "F64", 8},
                                        {DType::kF32, "F32", 4},
                                        {DType::kF16, "F16", 2},
                                        {DType::kBF16, "BF16", 2},
                                        {DType::kF8E4M3, "F8_E4M3", 1},
                                        {DType::kI64, "I64", 8},
                                        {DType::kI32, "I32", 4},
                                        {DType::kI16, "I16", 2},
                                        {DType::kI8, "I8", 1},
                                        {DType::kU64, "U64", 8},
                                        {DType::kU32, "U32", 4},
                                        {DType::kU16, "U16", 2},
                                        {DType::kU8, "U8", 1},
                                        {DType::kBool, "BOOL", 1}}};

const Entry& entry(DType dtype) {
  for (const Entry& candidate : kTable)
    if (candidate.dtype == dtype) return candidate;
  check(false, "every DType stands in the table");
  return kTable[0];
}

}  // namespace

std::size_t dtype_size(DType dtype) {
  return entry(dtype).size;
}

std::string_view dtype_name(DType dtype) {
  return entry(dtype).name;
}

DType parse_dtype(std::string_view name) {
  for (const Entry& candidate : kTable)
    if (candidate.name == name) return candidate.dtype;
  throw Error("unknown dtype \"{}\"", name);
}

bool is_float(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kF8E4M3: return true;
    default: return false;
  }
}

}  // namespace bise
