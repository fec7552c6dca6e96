// Linear layers for few rows, bound by reading the weight: every weight goes from memory straight into the
// registers of the one warp that multiplies it on the tensor cores (mma.sync, the weight as operand A of 16
// rows, the inputs as operand B of 8 rows).
//
// Which 16 (or 32) columns a product takes does not matter as long as both operands agree. So a thread loads
// 16 consecutive bytes of its weight row, whatever columns those are, and the inputs of the same columns.
//
// A block has kWarps warps and computes 16 rows of the weight; its warps take the column chunks in turn and
// add their sums in a fixed order at the end, the same for any number of input rows.
#include <cassert>

#include "backend/cuda/device_math.cuh"

namespace bise::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kTileRows = 16;  // of the weight

__device__ inline uint4 load_once(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

__device__ inline uint4 load_shared_by_many(const void* p) {
  return __ldg(static_cast<const uint4*>(p));
}

__device__ inline void multiply_bf16(float (&sums)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                     std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ inline void multiply_fp8(float (&sums)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                    std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ inline void multiply_int8(int (&sums)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                     std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ inline std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

__device__ inline std::uint32_t word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// How a thread's 16 bytes of a weight row become bf16 pairs. kPairs pairs cover 2 kPairs columns; pair(i)
// holds columns 2i and 2i + 1, but for the formats with kInterleaved, where of each 8 columns pair j holds
// columns j and j + 4. `zero` is what is subtracted from a code.
struct PlainBf16 {
  static constexpr int kPairs = 4;
  static constexpr bool kInterleaved = false;
  template <int kPair>
  static __device__ std::uint32_t pair(const uint4& raw, float, const float*) {
    return word(raw, kPair);
  }
};

struct Fp8Codes {
  static constexpr int kPairs = 8;
  static constexpr bool kInterleaved = false;
  template <int kPair>
  static __device__ std::uint32_t pair(const uint4& raw, float, const float*) {
    const auto two = static_cast<__nv_fp8x2_storage_t>(word(raw, kPair / 2) >> (kPair % 2 * 16));
    const __half2_raw halves = __nv_cvt_fp8x2_to_halfraw2(two, __NV_E4M3);
    const float2 values = __half22float2(__half2(halves));
    return pack_bf16(values.x, values.y);
  }
};

struct Int8Codes {
  static constexpr int kPairs = 8;
  static constexpr bool kInterleaved = false;
  template <int kPair>
  static __device__ std::uint32_t pair(const uint4& raw, float zero, const float*) {
    const std::uint32_t two = word(raw, kPair / 2) >> (kPair % 2 * 16);
    const float low = static_cast<float>(static_cast<std::int8_t>(two));
    const float high = static_cast<float>(static_cast<std::int8_t>(two >> 8));
    return pack_bf16(low - zero, high - zero);
  }
};

// Codes offset by 8. 0x4300 | code is the bf16 number 128 + code.
struct Int4Codes {
  static constexpr int kPairs = 16;
  static constexpr bool kInterleaved = true;
  template <int kPair>
  static __device__ std::uint32_t pair(const uint4& raw, float zero, const float*) {
    const std::uint32_t codes = (word(raw, kPair / 4) >> (kPair % 4 * 4)) & 0x000f000fu;
    std::uint32_t biased = codes | 0x43004300u;
    const __nv_bfloat162 difference =
        __hsub2(reinterpret_cast<__nv_bfloat162&>(biased), __float2bfloat162_rn(136.f + zero));
    return reinterpret_cast<const std::uint32_t&>(difference);
  }
};

// Byte i holds elements 2i (high nibble) and 2i + 1.
struct Nf4Codes {
  static constexpr int kPairs = 16;
  static constexpr bool kInterleaved = false;
  template <int kPair>
  static __device__ std::uint32_t pair(const uint4& raw, float scale, const float* levels) {
    const std::uint32_t byte = word(raw, kPair / 4) >> (kPair % 4 * 8);
    return pack_bf16(levels[(byte >> 4) & 15] * scale, levels[byte & 15] * scale);
  }
};

// The inputs of a thread's columns as operand B: the same 2 kPairs columns of input row `n`.
template <class Codes>
__device__ inline void input_pairs(const bf16* columns, std::uint32_t (&pairs)[Codes::kPairs]) {
#pragma unroll
  for (int i = 0; i < Codes::kPairs / 4; ++i) {
    const uint4 v = load_shared_by_many(columns + 8 * i);
    if constexpr (Codes::kInterleaved) {
      pairs[4 * i] = __byte_perm(v.x, v.z, 0x5410);      // columns 0 and 4
      pairs[4 * i + 1] = __byte_perm(v.x, v.z, 0x7632);  // 1 and 5
      pairs[4 * i + 2] = __byte_perm(v.y, v.w, 0x5410);
      pairs[4 * i + 3] = __byte_perm(v.y, v.w, 0x7632);
    } else {
      pairs[4 * i] = v.x;
      pairs[4 * i + 1] = v.y;
      pairs[4 * i + 2] = v.z;
      pairs[4 * i + 3] = v.w;
    }
  }
}

template <int kPair, class Body>
__device__ inline void each_pair(Body body) {
  if constexpr (kPair > 0) each_pair<kPair - 1>(body);
  body(std::integral_constant<int, kPair>());
}

struct Task {
  const void* in;          // [rows, in_stride] bf16 or codes
  const float* in_scales;  // or null
  int rows;
  std::int64_t in_stride;  // values
  Weight weight;
  const float* bias;
  void* out;
};

// Adds the warps' sums in order and writes out[row, n] for the block's 16 weight rows.
template <class Out, class Sum, int kTiles>
__device__ void finish(const Sum (&sums)[kTiles][4], const Task& task, float weight_scale_of_lane, Out* out) {
  __shared__ Sum partial[kWarps][kTileRows][kTiles * 8 + 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
    for (int i = 0; i < 4; ++i) partial[warp][g + i / 2 * 8][tile * 8 + 2 * t + i % 2] = sums[tile][i];
  __syncthreads();
  const int n = static_cast<int>(blockIdx.x) * kTileRows + threadIdx.x % kTileRows;
  if (n >= task.weight.rows) return;
  for (int r = threadIdx.x / kTileRows; r < task.rows; r += kWarps * 32 / kTileRows) {
    Sum sum = partial[0][threadIdx.x % kTileRows][r];
    for (int w = 1; w < kWarps; ++w) sum += partial[w][threadIdx.x % kTileRows][r];
    float value = static_cast<float>(sum) * weight_scale_of_lane;
    if (task.in_scales) value *= task.in_scales[r];
    if (task.bias) value += task.bias[n];
    store_value(out + static_cast<std::int64_t>(r) * task.weight.rows + n, value);
  }
}

// Weights that become bf16. kScaleSums: a group is a multiple of the columns of a chunk, so the sums of a
// chunk are scaled; otherwise the weights are, and rounded.
template <class Codes, int kTiles, bool kScaleSums, class Out>
__global__ void __launch_bounds__(kWarps * 32) float_kernel(Task task) {
  constexpr int kColumns = 2 * Codes::kPairs;  // of a thread and chunk
  constexpr int kChunk = 4 * kColumns;
  const Weight& weight = task.weight;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kTileRows + g;
  const std::int64_t row_bytes = weight.stride * 16 / kColumns;
  const auto* codes = static_cast<const char*>(weight.codes) + row * row_bytes + t * 16;
  const auto* in = static_cast<const bf16*>(task.in) + t * kColumns;

  __shared__ float levels[16];
  if constexpr (std::is_same_v<Codes, Nf4Codes>) {
    if (threadIdx.x < 16) levels[threadIdx.x] = weight.levels[threadIdx.x];
    __syncthreads();
  }

  float sums[kTiles][4] = {};
  const int chunks = static_cast<int>(weight.stride / kChunk);
#pragma unroll 2
  for (int chunk = warp; chunk < chunks; chunk += kWarps) {
    const uint4 low = load_once(codes + chunk * 64);
    const uint4 high = load_once(codes + 8 * row_bytes + chunk * 64);
    float scale_low = 1, scale_high = 1, zero_low = 0, zero_high = 0;
    if (weight.scales) {
      const int column = chunk * kChunk + (kScaleSums ? 0 : t * kColumns);
      const std::int64_t at = row * weight.groups + column / weight.group_size;
      scale_low = weight.scales[at];
      scale_high = weight.scales[at + 8 * weight.groups];
      if (weight.zero_points) {
        zero_low = weight.zero_points[at];
        zero_high = weight.zero_points[at + 8 * weight.groups];
      }
    }
    float chunk_sums[kTiles][4] = {};
    auto& target = kScaleSums ? chunk_sums : sums;
    std::uint32_t a[2][Codes::kPairs];
    each_pair<Codes::kPairs - 1>([&](auto pair) {
      constexpr int kPair = decltype(pair)::value;
      if constexpr (std::is_same_v<Codes, Nf4Codes>) {
        a[0][kPair] = Codes::template pair<kPair>(low, scale_low, levels);
        a[1][kPair] = Codes::template pair<kPair>(high, scale_high, levels);
      } else {
        a[0][kPair] = Codes::template pair<kPair>(low, zero_low, nullptr);
        a[1][kPair] = Codes::template pair<kPair>(high, zero_high, nullptr);
        if constexpr (!kScaleSums) {
          const auto scaled = [](std::uint32_t two, float scale) {
            const float2 values = __bfloat1622float2(reinterpret_cast<__nv_bfloat162&>(two));
            return pack_bf16(values.x * scale, values.y * scale);
          };
          a[0][kPair] = scaled(a[0][kPair], scale_low);
          a[1][kPair] = scaled(a[1][kPair], scale_high);
        }
      }
    });
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int r = min(tile * 8 + g, task.rows - 1);  // beyond the last: any values
      std::uint32_t b[Codes::kPairs];
      input_pairs<Codes>(in + r * task.in_stride + chunk * kChunk, b);
#pragma unroll
      for (int i = 0; i < Codes::kPairs; i += 2)
        multiply_bf16(target[tile], a[0][i], a[1][i], a[0][i + 1], a[1][i + 1], b[i], b[i + 1]);
    }
    if constexpr (kScaleSums) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        sums[tile][0] += chunk_sums[tile][0] * scale_low;
        sums[tile][1] += chunk_sums[tile][1] * scale_low;
        sums[tile][2] += chunk_sums[tile][2] * scale_high;
        sums[tile][3] += chunk_sums[tile][3] * scale_high;
      }
    }
  }
  finish(sums, task, 1.f, static_cast<Out*>(task.out));
}

// Codes times codes, one scale to each row of both.
template <bool kIntegers, int kTiles, class Out>
__global__ void __launch_bounds__(kWarps * 32) code_kernel(Task task) {
  using Sum = std::conditional_t<kIntegers, int, float>;
  constexpr int kChunk = 64;
  const Weight& weight = task.weight;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const auto* codes = static_cast<const char*>(weight.codes) +
                      (static_cast<std::int64_t>(blockIdx.x) * kTileRows + g) * weight.stride + t * 16;
  const auto* in = static_cast<const char*>(task.in) + t * 16;

  Sum sums[kTiles][4] = {};
  const int chunks = static_cast<int>(weight.stride / kChunk);
#pragma unroll 2
  for (int chunk = warp; chunk < chunks; chunk += kWarps) {
    const uint4 low = load_once(codes + chunk * kChunk);
    const uint4 high = load_once(codes + 8 * weight.stride + chunk * kChunk);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int r = min(tile * 8 + g, task.rows - 1);
      const uint4 b = load_shared_by_many(in + r * task.in_stride + chunk * kChunk);
      if constexpr (kIntegers) {
        multiply_int8(sums[tile], low.x, high.x, low.y, high.y, b.x, b.y);
        multiply_int8(sums[tile], low.z, high.z, low.w, high.w, b.z, b.w);
      } else {
        multiply_fp8(sums[tile], low.x, high.x, low.y, high.y, b.x, b.y);
        multiply_fp8(sums[tile], low.z, high.z, low.w, high.w, b.z, b.w);
      }
    }
  }
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kTileRows + threadIdx.x % kTileRows;
  finish(sums, task, weight.scales[n * weight.groups], static_cast<Out*>(task.out));
}

// Calls body(std::integral_constant<int, tiles>) with the smallest number of tiles of 8 that holds the rows.
template <class Body>
void with_tiles(std::int64_t rows, Body body) {
  if (rows <= 8)
    body(std::integral_constant<int, 1>());
  else if (rows <= 16)
    body(std::integral_constant<int, 2>());
  else if (rows <= 32)
    body(std::integral_constant<int, 4>());
  else
    body(std::integral_constant<int, 8>());
}

template <class Out>
void launch(const Task& task, Encoding encoding, cudaStream_t stream) {
  const Weight& weight = task.weight;
  const auto blocks = static_cast<unsigned>(padded_rows(weight.rows) / kTileRows);
  with_tiles(task.rows, [&](auto tiles) {
    constexpr int kTiles = decltype(tiles)::value;
    const auto start = [&](auto kernel) { kernel<<<blocks, kWarps * 32, 0, stream>>>(task); };
    if (encoding == Encoding::kInt8Token) return start(code_kernel<true, kTiles, Out>);
    if (encoding != Encoding::kBf16) return start(code_kernel<false, kTiles, Out>);
    const auto start_scaled = [&](auto codes, int chunk) {
      using Codes = decltype(codes);
      if (weight.group_size % chunk == 0)
        start(float_kernel<Codes, kTiles, true, Out>);
      else
        start(float_kernel<Codes, kTiles, false, Out>);
    };
    switch (weight.format) {
      case WeightFormat::kBf16: return start(float_kernel<PlainBf16, kTiles, false, Out>);
      case WeightFormat::kFp8: return start_scaled(Fp8Codes(), 64);
      case WeightFormat::kInt8: return start_scaled(Int8Codes(), 64);
      case WeightFormat::kInt4: return start_scaled(Int4Codes(), 128);
      case WeightFormat::kNf4: return start(float_kernel<Nf4Codes, kTiles, false, Out>);
    }
  });
}

}  // namespace

void small_linear(const Encoded& in, std::int64_t rows, const Weight& weight, const float* bias, Values out,
                  cudaStream_t stream) {
  constexpr std::int64_t kMostRows = 64;
  const std::int64_t code_bytes = in.encoding == Encoding::kBf16 ? 2 : 1;
  for (std::int64_t first = 0; first < rows; first += kMostRows) {
    Task task{.in = static_cast<const char*>(in.codes) + first * in.stride * code_bytes,
              .in_scales = in.scales ? in.scales + first : nullptr,
              .rows = static_cast<int>(rows - first < kMostRows ? rows - first : kMostRows),
              .in_stride = in.stride,
              .weight = weight,
              .bias = bias,
              .out = nullptr};
    with_type(out, [&](auto* values) {
      task.out = values + first * weight.rows;
      launch<std::remove_pointer_t<decltype(values)>>(task, in.encoding, stream);
    });
  }
}

}  // namespace bise::cuda
