// X^T X for GPTQ (Frantar et al. 2022, eq. 2): of bf16 inputs on the tensor cores with float32 sums, of
// quantized inputs, whose decoded values bf16 cannot hold, in float32.
#include "backend/cuda/cuda_backend.h"
#include "base/check.h"

namespace bise {

void CudaBackend::accumulate_hessian(const LinearInput& in, std::span<float> hessian) {
  const std::int64_t columns = in.columns(), width = cuda::padded(columns), depth = cuda::padded(in.rows());
  check(hessian.size() == static_cast<std::size_t>(columns * columns), "the hessian is [columns, columns]");
  const bool exact = in.type() != InputType::kNone;
  inputs_.grow(static_cast<std::size_t>(width * depth) * (exact ? 4 : 2));
  cuda::transpose(dynamic_cast<const CudaLinearInput&>(in).encoded(), in.rows(), depth,
                  {inputs_.as<void>(), exact ? cuda::Float::kF32 : cuda::Float::kBf16}, stream_);
  sums_.grow(static_cast<std::size_t>(width * width) * sizeof(float));
  large_.multiply({.operands = exact ? LargeLinear::Operands::kF32 : LargeLinear::Operands::kBf16,
                   .in = inputs_.as<void>(),
                   .weight = inputs_.as<void>(),
                   .rows = width,
                   .columns = width,
                   .stride = depth,
                   .out = {sums_.as<void>(), cuda::Float::kF32}},
                  stream_);
  std::vector<float> products(static_cast<std::size_t>(width * width));
  copy_to_host(sums_.as<void>(), products.data(), products.size() * sizeof(float));
  for (std::int64_t i = 0; i < columns; ++i)
    for (std::int64_t j = i; j < columns; ++j)
      hessian[static_cast<std::size_t>(i * columns + j)] +=
          2 * products[static_cast<std::size_t>(i * width + j)];
}

}  // namespace bise
