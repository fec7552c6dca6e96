// Encoding the inputs of linear layers, and changes of a matrix's type.
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/row_vectors.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 256;

template <int kVectors, class T>
__global__ void __launch_bounds__(kMostRowThreads)
    encode_vectors_kernel(const T* in, float static_scale, Encoded out) {
  __shared__ float scratch[32];
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  WideRaw<T> row[kVectors] = {};
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (wide_column(v) < out.columns)
      row[v] = *reinterpret_cast<const WideRaw<T>*>(in + blockIdx.x * out.columns + wide_column(v));
  encode_loaded<kVectors>(blockIdx.x, out, static_scale, scratch,
                          [&](int v, float(&values)[kWide]) { load_wide(row[v].values, values); });
}

// Of any width.
template <class T>
__global__ void encode_kernel(const T* in, float static_scale, Encoded out) {
  __shared__ float scratch[32];
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const T* row = in + blockIdx.x * out.columns;
  encode_row(blockIdx.x, out, static_scale, scratch, [&](std::int64_t c) { return load_value(row + c); });
}

// values *= row_scale * column scales, + bias, of a vector of sums.
__device__ inline void scale_wide(const SumScales& scales, float row_scale, std::int64_t column,
                                  float (&values)[kWide]) {
  float columns[kWide];
  load_wide(scales.columns + column, columns);
#pragma unroll
  for (int i = 0; i < kWide; ++i) values[i] = values[i] * columns[i] * row_scale;
  if (!scales.bias) return;
  load_wide(scales.bias + column, columns);
#pragma unroll
  for (int i = 0; i < kWide; ++i) values[i] += columns[i];
}

// Two blocks share a multiprocessor where kMost is half of what it may be: one reads while the other writes.
template <int kVectors, int kMost, class T>
__global__ void __launch_bounds__(kMost, kMostRowThreads / kMost)
    gate_vectors_kernel(const T* gate_up, SumScales scales, float static_scale, Encoded out) {
  __shared__ float scratch[32];
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const T* row = gate_up + blockIdx.x * 2 * out.columns;
  WideRaw<T> gates[kVectors], ups[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (wide_column(v) >= out.columns) continue;
    gates[v] = *reinterpret_cast<const WideRaw<T>*>(row + wide_column(v));
    ups[v] = *reinterpret_cast<const WideRaw<T>*>(row + out.columns + wide_column(v));
  }
  const float row_scale = scales.rows ? scales.rows[blockIdx.x] : 1.f;
  float values[kVectors][kWide] = {};
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (wide_column(v) >= out.columns) continue;
    float up[kWide];
    load_wide(gates[v].values, values[v]);
    load_wide(ups[v].values, up);
    if (scales.columns) {
      scale_wide(scales, row_scale, wide_column(v), values[v]);
      scale_wide(scales, row_scale, out.columns + wide_column(v), up);
    }
#pragma unroll
    for (int i = 0; i < kWide; ++i) values[v][i] = gate_times_up(values[v][i], up[i]);
  }
  encode_vectors(blockIdx.x, out, static_scale, scratch, values);
}

// Of any width.
template <class T>
__global__ void gate_kernel(const T* gate_up, float static_scale, Encoded out) {
  __shared__ float scratch[32];
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const T* row = gate_up + blockIdx.x * 2 * out.columns;
  encode_row(blockIdx.x, out, static_scale, scratch, [&](std::int64_t c) {
    return gate_times_up(load_value(row + c), load_value(row + out.columns + c));
  });
}

__device__ inline float code_value(const Encoded& in, std::int64_t index) {
  switch (in.encoding) {
    case Encoding::kBf16: return __bfloat162float(static_cast<const bf16*>(in.codes)[index]);
    case Encoding::kInt8Token: return static_cast<float>(static_cast<const std::int8_t*>(in.codes)[index]);
    default: return from_e4m3(static_cast<const std::uint8_t*>(in.codes)[index]);
  }
}

__global__ void decode_kernel(Encoded in, float* out) {
  const float scale = in.encoding == Encoding::kBf16 ? 1.f : in.scales[blockIdx.x];
  for (std::int64_t c = threadIdx.x; c < in.columns; c += kThreads)
    out[blockIdx.x * in.columns + c] = code_value(in, blockIdx.x * in.stride + c) * scale;
}

__global__ void codes_kernel(Encoded in, std::int64_t count, bf16* out) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (i < count) out[i] = __float2bfloat16_rn(code_value(in, i));
}

__global__ void permute_kernel(const bf16* in, const std::int32_t* permutation, std::int64_t stride,
                               bf16* out) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  for (std::int64_t c = threadIdx.x; c < stride; c += kThreads) {
    const std::int32_t from = permutation[c];
    out[blockIdx.x * stride + c] = from < 0 ? __float2bfloat16_rn(0.f) : in[blockIdx.x * stride + from];
  }
}

template <class Out>
__global__ void transpose_kernel(Encoded in, std::int64_t rows, std::int64_t depth, Out* out) {
  const std::int64_t column = blockIdx.y, row = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (row >= depth) return;
  float value = 0;
  if (row < rows) {
    value = code_value(in, row * in.stride + column);
    if (in.encoding != Encoding::kBf16) value *= in.scales[row];
  }
  store_value(out + column * depth + row, value);
}

template <class In, class Out>
__global__ void convert_kernel(const In* in, std::int64_t count, Out* out) {
  const std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (i < count) store_value(out + i, load_value(in + i));
}

}  // namespace

void encode(Values in, std::int64_t rows, float static_scale, Encoded out, cudaStream_t stream) {
  with_type(in, [&](auto* values) {
    using T = std::remove_pointer_t<decltype(values)>;
    // Many rows, which are bf16, are bound by memory: short blocks, so that more of them are on their way.
    const std::int64_t most = std::is_same_v<T, bf16> ? short_row_threads(out.stride) : kMostRowThreads;
    if (const RowShape shape = row_shape(out.columns, out.stride, most); shape.vectors > 0)
      return with_vectors(shape.vectors, [&](auto vectors) {
        launch(encode_vectors_kernel<decltype(vectors)::value, T>, static_cast<unsigned>(rows), shape.threads,
               0, stream, values, static_scale, out);
      });
    launch(encode_kernel<T>, static_cast<unsigned>(rows), threads_for(out.columns), 0, stream, values,
           static_scale, out);
  });
}

namespace {

// False where no row of vectors fits.
template <class T>
bool gate_vectors(const T* values, const SumScales& scales, std::int64_t rows, float static_scale,
                  const Encoded& out, cudaStream_t stream) {
  constexpr int kHalf = kMostRowThreads / 2;
  const auto start = [&](auto most, const RowShape& shape) {
    with_vectors(shape.vectors, [&](auto vectors) {
      launch(gate_vectors_kernel<decltype(vectors)::value, decltype(most)::value, T>,
             static_cast<unsigned>(rows), shape.threads, 0, stream, values, scales, static_scale, out);
    });
    return true;
  };
  if constexpr (std::is_same_v<T, bf16>)  // many rows
    if (const RowShape shape = row_shape(out.columns, out.stride, kHalf); shape.vectors > 0)
      return start(std::integral_constant<int, kHalf>(), shape);
  const RowShape shape = row_shape(out.columns, out.stride);
  return shape.vectors > 0 && start(std::integral_constant<int, kMostRowThreads>(), shape);
}

}  // namespace

void gate_and_encode(Values gate_up, std::int64_t rows, float static_scale, Encoded out,
                     cudaStream_t stream) {
  with_type(gate_up, [&](auto* values) {
    using T = std::remove_pointer_t<decltype(values)>;
    if (!gate_vectors<T>(values, {}, rows, static_scale, out, stream))
      launch(gate_kernel<T>, static_cast<unsigned>(rows), threads_for(out.columns), 0, stream, values,
             static_scale, out);
  });
}

bool supports_gate_of_sums(const Encoded& out) {
  return row_shape(out.columns, out.stride).vectors > 0;
}

void gate_sums_and_encode(const void* sums, bool integers, const SumScales& scales, std::int64_t rows,
                          float static_scale, Encoded out, cudaStream_t stream) {
  if (integers)
    gate_vectors(static_cast<const std::int32_t*>(sums), scales, rows, static_scale, out, stream);
  else
    gate_vectors(static_cast<const float*>(sums), scales, rows, static_scale, out, stream);
}

void decode(Encoded in, std::int64_t rows, float* out, cudaStream_t stream) {
  decode_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(in, out);
}

void codes_to_bf16(Encoded in, std::int64_t rows, void* out, cudaStream_t stream) {
  const std::int64_t count = rows * in.stride;
  launch(codes_kernel, blocks_for(count, kThreads), kThreads, 0, stream, in, count, static_cast<bf16*>(out));
}

void permute_columns(const void* in, const std::int32_t* permutation, std::int64_t rows, std::int64_t stride,
                     void* out, cudaStream_t stream) {
  launch(permute_kernel, static_cast<unsigned>(rows), kThreads, 0, stream, static_cast<const bf16*>(in),
         permutation, stride, static_cast<bf16*>(out));
}

void transpose(Encoded in, std::int64_t rows, std::int64_t depth, Values out, cudaStream_t stream) {
  const dim3 grid(blocks_for(depth, kThreads), static_cast<unsigned>(in.stride));
  with_type(out,
            [&](auto* values) { transpose_kernel<<<grid, kThreads, 0, stream>>>(in, rows, depth, values); });
}

void to_float(Values in, std::int64_t count, float* out, cudaStream_t stream) {
  with_type(in, [&](auto* values) {
    convert_kernel<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(values, count, out);
  });
}

void from_float(const float* in, std::int64_t count, Values out, cudaStream_t stream) {
  with_type(out, [&](auto* values) {
    convert_kernel<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(in, count, values);
  });
}

}  // namespace bise::cuda
