#include "backend/cuda/large_int8.h"

#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/dispatch_policy.hpp>
#include <cutlass/epilogue/fusion/sm90_callbacks_tma_warpspecialized.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <cutlass/util/packed_stride.hpp>

namespace bise::cuda {
namespace {

using cute::_1;
using cute::_128;
using cute::_2;
using cute::_256;
using cute::Shape;
namespace fusion = cutlass::epilogue::fusion;

constexpr auto kRound = cutlass::FloatRoundStyle::round_to_nearest;

template <class Tile, class Cluster, class MainloopSchedule, class EpilogueSchedule, bool kAdds>
struct Kernel {
  using Out = cutlass::bfloat16_t;
  // bf16((sum * column scale) * row scale), or with what stands there added before it is rounded
  using ScaledColumns = fusion::Sm90EVT<fusion::Sm90Compute<cutlass::multiplies, float, float, kRound>,
                                        fusion::Sm90RowBroadcast<0, Tile, float>, fusion::Sm90AccFetch>;
  template <class Result>
  using Scaled = fusion::Sm90EVT<fusion::Sm90Compute<cutlass::multiplies, Result, float, kRound>,
                                 fusion::Sm90ColBroadcast<0, Tile, float>, ScaledColumns>;
  using Added = fusion::Sm90EVT<fusion::Sm90Compute<cutlass::plus, Out, float, kRound>,
                                fusion::Sm90SrcFetch<Out>, Scaled<float>>;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, std::int32_t, float,
      std::conditional_t<kAdds, Out, void>, cutlass::layout::RowMajor, 8, Out, cutlass::layout::RowMajor, 8,
      EpilogueSchedule, std::conditional_t<kAdds, Added, Scaled<Out>>>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, std::int8_t, cutlass::layout::RowMajor, 16,
      std::int8_t, cutlass::layout::ColumnMajor, 16, std::int32_t, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      MainloopSchedule>::CollectiveOp;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<
      cutlass::gemm::kernel::GemmUniversal<Shape<int, int, int, int>, Mainloop, Epilogue, void>>;
};

template <bool kAdds>
using Narrow =
    Kernel<Shape<_128, _128, _128>, Shape<_2, _1, _1>, cutlass::gemm::KernelTmaWarpSpecializedPingpong,
           cutlass::epilogue::TmaWarpSpecialized, kAdds>::Gemm;
template <bool kAdds>
using Wide =
    Kernel<Shape<_128, _256, _128>, Shape<_2, _1, _1>, cutlass::gemm::KernelTmaWarpSpecializedCooperative,
           cutlass::epilogue::TmaWarpSpecializedCooperative, kAdds>::Gemm;

int multiprocessors() {
  static const int count = cutlass::KernelHardwareInfo::query_device_multiprocessor_count(0);
  return count;
}

template <class Gemm, bool kAdds>
bool run(const LargeInt8& product, cudaStream_t stream) {
  const int m = static_cast<int>(product.rows), n = static_cast<int>(product.columns),
            k = static_cast<int>(product.stride);
  const auto shape = [](int rows, int columns) { return cute::make_shape(rows, columns, 1); };
  const auto epilogue = [&] {
    const auto strides = cutlass::make_cute_packed_stride(typename Gemm::GemmKernel::StrideD{}, shape(m, n));
    auto* out = static_cast<cutlass::bfloat16_t*>(product.out);
    if constexpr (kAdds)
      return typename Gemm::GemmKernel::EpilogueArguments{
          {{}, {{product.row_scales}, {{product.column_scales}, {}, {}}, {}}, {}},
          out,
          strides,
          out,
          strides};
    else
      return typename Gemm::GemmKernel::EpilogueArguments{
          {{product.row_scales}, {{product.column_scales}, {}, {}}, {}}, nullptr, {}, out, strides};
  };
  typename Gemm::Arguments arguments{
      cutlass::gemm::GemmUniversalMode::kGemm,
      {m, n, k, 1},
      {static_cast<const std::int8_t*>(product.in),
       cutlass::make_cute_packed_stride(typename Gemm::GemmKernel::StrideA{}, shape(m, k)),
       static_cast<const std::int8_t*>(product.weight),
       cutlass::make_cute_packed_stride(typename Gemm::GemmKernel::StrideB{}, shape(n, k))},
      epilogue()};
  arguments.hw_info.sm_count = multiprocessors();
  Gemm gemm;
  return Gemm::can_implement(arguments) == cutlass::Status::kSuccess &&
         Gemm::get_workspace_size(arguments) == 0 &&
         gemm.initialize(arguments, nullptr, stream) == cutlass::Status::kSuccess &&
         gemm.run(stream) == cutlass::Status::kSuccess;
}

// The wider tile reads less of the operands from shared memory for each product: 6 % of a long prompt's time
// (H200, at its power limit), where there are tiles enough for several rounds of the multiprocessors.
template <bool kAdds>
bool run_best(const LargeInt8& product, cudaStream_t stream) {
  constexpr std::int64_t kRounds = 4;
  const std::int64_t wide_tiles = (product.rows + 127) / 128 * ((product.columns + 255) / 256);
  return wide_tiles >= kRounds * multiprocessors() ? run<Wide<kAdds>, kAdds>(product, stream)
                                                   : run<Narrow<kAdds>, kAdds>(product, stream);
}

}  // namespace

bool supports_large_int8(std::int64_t columns) {
  return columns % 8 == 0;
}

bool large_int8(const LargeInt8& product, cudaStream_t stream) {
  return product.adds ? run_best<true>(product, stream) : run_best<false>(product, stream);
}

}  // namespace bise::cuda
