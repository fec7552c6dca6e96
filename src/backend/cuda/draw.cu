// Drawing tokens (backend.h, TokenDraw): argmax of the logits, or of logits with temperature and Gumbel noise
// (Gumbel 1954) among those that min_p, top_k and top_p leave. Rule and arithmetic are those of
// engine/sampler.cpp, engine/logit_kernels_body.h and engine/gumbel.h.
//
// A cluster of blocks has a row to itself. It reads the row once from device memory; each block keeps its
// part in shared memory and looks at it as often as the rule needs. Nothing is sorted:
//   top_k  the k-th largest logit is searched by counting what reaches three values between two bounds;
//   top_p  a token is drawn from all. If what stands before it weighs too much, it is no token of the
//   nucleus,
//          and the whole nucleus stands before it: the draw is repeated among those. The best of a set that
//          holds the nucleus is, once it is in the nucleus, the nucleus' best.
// Counts and weights are integers, the rest are maxima: the order in which threads are joined does not show.
#include <climits>
#include <cmath>

#include "backend/cuda/draw.h"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/row_cluster.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 512, kBlocks = 8, kBlocksOfMultiprocessor = 3;
// Logits of a block, in shared memory.
constexpr std::int64_t kMostOfBlock = 50 * 1024;
using Cluster = RowCluster<kBlocks, kThreads>;

// Scaled logits so far below the largest weigh nothing (2^-34 = e^-23.6) and are never drawn: the noise lies
// between -3.1 and 22.9.
constexpr float kDeepest = 27;
// kHighest of engine/sampler.cpp.
constexpr float kHighest = 1e30f;

// Whole vectors, so that each block's part begins at an aligned address.
__host__ __device__ std::int64_t logits_of_block(std::int64_t columns) {
  return (columns + 4 * kBlocks - 1) / (4 * kBlocks) * 4;
}

// A token's place in a row: larger logits first; of equals the smaller token.
struct Place {
  float logit;
  std::int32_t token;
};
__device__ inline bool is_before(float logit, std::int32_t token, Place place) {
  return logit > place.logit || (logit == place.logit && token < place.token);
}

struct Drawn {
  double noisy;
  Place place;
};
__device__ inline Drawn better(Drawn a, Drawn b) {
  return b.noisy > a.noisy || (b.noisy == a.noisy && b.place.token < a.place.token) ? b : a;
}

struct Counts {
  std::uint32_t of[3];
};

// gumbel_bits() of engine/gumbel.h.
__device__ inline std::uint32_t noise_bits(const TokenDraw& draw, std::int32_t token) {
  std::uint32_t x = static_cast<std::uint32_t>(token) * 0x9e3779b9u + draw.key_low;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15) ^ draw.key_high) * 0x846ca68bu;
  return x ^ (x >> 16);
}

__device__ inline double noisy_logit(const TokenDraw& draw, float logit, std::int32_t token) {
  const double v = (static_cast<double>(noise_bits(draw, token)) + 0.5) * 0x1p-32;
  return static_cast<double>(__fmul_rn(logit, draw.factor)) - log(-log1p(-v));
}

// The same in float32, of the logit's distance from the largest: off by less than 5e-5, and where scaled
// logits are large by what their rounding adds to noisy_logit().
__device__ inline float near_noisy_logit(const TokenDraw& draw, float below, std::int32_t token) {
  const std::uint32_t bits = noise_bits(draw, token);
  const float v = (static_cast<float>(bits) + 0.5f) * 0x1p-32f;
  const float rest = (static_cast<float>(~bits) + 0.5f) * 0x1p-32f;  // 1 - v
  // -ln(1 - v), where v is small by its series.
  const float outer = v < 0x1p-6f ? v * (1 + v * (0.5f + v * (1.f / 3))) : -__logf(rest);
  return below * draw.factor - __logf(outer);
}
__device__ inline float nearness(const TokenDraw& draw, float largest) {
  return 1e-3f + 5e-7f * fabsf(largest * draw.factor);
}

// exp(x) for x <= 0 in units of 2^-33, as weight_of_negative() of engine/logit_kernels_body.h.
__device__ inline std::uint64_t weight_of_negative(float x) {
  if (x < -24.f) return 0;
  const int n = __float2int_rz(__fsub_rn(__fmul_rn(x, 1.44269504f), 0.5f));
  const float whole = static_cast<float>(n);
  const float r = __fsub_rn(__fsub_rn(x, __fmul_rn(whole, 0.693359375f)), __fmul_rn(whole, -2.12194440e-4f));
  float sum = 1.0f / 720;
  for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    sum = __fadd_rn(__fmul_rn(sum, r), term);
  return __float2ull_rn(__fmul_rn(sum, __int_as_float((n + 127 + 33) << 23)));
}

// Integers in the order of the floats, and back.
__device__ inline std::uint32_t ordered(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ inline float from_ordered(std::uint32_t key) {
  return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// One row, by a cluster.
class RowDraw {
 public:
  __device__ RowDraw(const TokenDraw& draw, const float* row, std::int64_t columns, float* part,
                     Cluster& cluster)
      : draw_(draw),
        part_(part),
        count_(static_cast<int>(logits_of_block(columns))),
        first_(static_cast<int>(blockIdx.x) * count_),
        cluster_(cluster) {
    load(row, static_cast<int>(columns));
  }

  // Once, before token(). Each step is done before the next begins; who has a logit's place at the end has
  // the edited logit.
  __device__ void edit(const EditedDraw& edits, const std::int32_t* words, int columns) {
    const std::int32_t* at = words + edits.first;
    const auto for_each_of = [&](int count, int size, auto change) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
        if (const int place = at[i * size] - first_; place >= 0 && place < count_)
          change(part_[place], at + i * size);
      at += count * size;
    };
    for_each_of(edits.biases, 2, [](float& logit, const std::int32_t* pair) {
      logit = __fadd_rn(logit, __int_as_float(pair[1]));
    });
    for_each_of(edits.counts, 2, [&](float& logit, const std::int32_t* pair) {
      if (logit != -INFINITY) logit = penalized(edits, logit, pair[1]);
    });
    for_each_of(edits.removed, 1, [](float& logit, const std::int32_t*) { logit = -INFINITY; });
    __syncthreads();
    const bool broken = largest_.token < 0;
    largest_ = {-INFINITY, INT_MAX};
    for (int i = static_cast<int>(threadIdx.x) * 4; i < count_; i += kThreads * 4) {
      const int token = first_ + i;
      const std::uint32_t bits =
          edits.allowed == 0 || token >= columns ? ~0u : static_cast<std::uint32_t>(at[token / 32]);
      for (int j = 0; j < 4; ++j) {
        float& logit = part_[i + j];
        if ((bits >> (token % 32 + j) & 1) == 0) logit = -INFINITY;
        if (logit > largest_.logit) largest_ = {logit, token + j};
      }
    }
    if (broken) largest_ = {INFINITY, -1};
  }

  // The same in every thread; -1 where a logit is no number or none is above -infinity.
  __device__ std::int32_t token() {
    cluster_.wait_for_blocks();
    largest_ =
        cluster_.join(largest_, [](Place a, Place b) { return is_before(b.logit, b.token, a) ? b : a; });
    if (largest_.token < 0 || largest_.logit == -INFINITY) return -1;
    if (draw_.factor == 0) return largest_.token;
    // Rounding the bound is no harm: it does not pass by a logit.
    Place bound = {fmaxf(__fadd_rn(largest_.logit, draw_.smallest), largest_.logit - kDeepest / draw_.factor),
                   INT_MAX};
    if (draw_.top_k > 0) bound.logit = top_k_bound(bound.logit);
    const bool nucleus = draw_.top_p < 1;
    const double target = nucleus ? draw_.top_p * static_cast<double>(weight_before(bound)) : 0;
    for (;;) {
      const Place drawn = draw_before(bound);
      if (drawn.token < 0) return -1;
      if (!nucleus || static_cast<double>(weight_before(drawn)) < target) return drawn.token;
      bound = drawn;
    }
  }

 private:
  // The block's part of the row, beyond its end -infinity. No thread looks at what another has loaded.
  __device__ void load(const float* row, int columns) {
    const bool aligned = columns % 4 == 0;
    bool broken = false;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x) * 4; i < count_; i += kThreads * 4) {
      const int token = first_ + i;
      float4 four = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
      float* each = &four.x;
      if (aligned && token < columns) four = *reinterpret_cast<const float4*>(row + token);
      for (int j = 0; j < 4; ++j) {
        if (!aligned && token + j < columns) each[j] = row[token + j];
        broken |= isnan(each[j]);
        if (each[j] > largest_.logit) largest_ = {each[j], token + j};
      }
      *reinterpret_cast<float4*>(part_ + i) = four;
    }
    if (broken) largest_ = {INFINITY, -1};
  }

  __device__ static float penalized(const EditedDraw& edits, float logit, std::int32_t output_count) {
    logit = logit > 0 ? __fdiv_rn(logit, edits.repetition) : __fmul_rn(logit, edits.repetition);
    logit = fminf(fmaxf(logit, -kHighest), kHighest);
    if (output_count == 0) return logit;
    logit = __fsub_rn(logit, __fmul_rn(edits.frequency, static_cast<float>(output_count)));
    return __fsub_rn(logit, edits.presence);
  }

  template <class Visit>
  __device__ void for_each(Visit visit) const {
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x) * 4; i < count_; i += kThreads * 4) {
      const float4 four = *reinterpret_cast<const float4*>(part_ + i);
      visit(four.x, first_ + i);
      visit(four.y, first_ + i + 1);
      visit(four.z, first_ + i + 2);
      visit(four.w, first_ + i + 3);
    }
  }

  __device__ float below_largest(float logit) const {
    return __fsub_rn(logit, largest_.logit);
  }

  // How many logits of the row reach each value.
  __device__ Counts count(const float (&values)[3]) {
    Counts counts = {};
    for_each([&](float logit, int) {
      for (int j = 0; j < 3; ++j) counts.of[j] += logit >= values[j] ? 1 : 0;
    });
    return cluster_.join(counts, [](Counts a, Counts b) {
      for (int j = 0; j < 3; ++j) a.of[j] += b.of[j];
      return a;
    });
  }

  // The top_k-th largest logit, or a value between it and the next one; `bound` where fewer reach that.
  __device__ float top_k_bound(float bound) {
    const auto wanted = static_cast<std::uint32_t>(draw_.top_k);
    // As many reach `low`, or it is the bound; fewer reach `end`.
    std::uint32_t low = ordered(bound), end = ordered(largest_.logit) + 1;
    // At first quarters of the values between them, as logits are spread, then of their bits, which are few.
    constexpr int kEvenSteps = 3;
    for (int step = 0; end - low > 1; ++step) {
      std::uint32_t keys[3];
      float values[3];
      for (int j = 0; j < 3; ++j) {
        const std::uint32_t quarters = static_cast<std::uint32_t>(j) + 1, size = end - low;
        if (step < kEvenSteps) {
          const float from = from_ordered(low), to = from_ordered(end - 1);
          keys[j] = ordered(from + (to - from) * (0.25f * static_cast<float>(quarters)));
          keys[j] = min(max(keys[j], low + 1), end - 1);
        } else {
          keys[j] = low + max(1u, size / 4 * quarters + size % 4 * quarters / 4);
        }
        values[j] = from_ordered(keys[j]);
      }
      const Counts counts = count(values);
      std::uint32_t reached = 0;
      for (int j = 0; j < 3; ++j) {
        if (counts.of[j] < wanted) {
          end = keys[j];
          break;
        }
        low = keys[j];
        reached = counts.of[j];
      }
      if (reached == wanted) break;
    }
    return from_ordered(low);
  }

  // Of the tokens before `place`, in units of 2^-33.
  __device__ std::uint64_t weight_before(Place place) {
    std::uint64_t weight = 0;
    for_each([&](float logit, int token) {
      if (is_before(logit, token, place))
        weight += weight_of_negative(__fmul_rn(below_largest(logit), draw_.factor));
    });
    return cluster_.join(weight, [](std::uint64_t a, std::uint64_t b) { return a + b; });
  }

  // The best with noise of the tokens before `place`; token -1 when there is none. Those that are near the
  // best in float32 are compared in double.
  __device__ Place draw_before(Place place) {
    float near = -INFINITY;
    for_each([&](float logit, int token) {
      if (is_before(logit, token, place))
        near = fmaxf(near, near_noisy_logit(draw_, below_largest(logit), token));
    });
    const float enough =
        cluster_.join(near, [](float a, float b) { return fmaxf(a, b); }) - nearness(draw_, largest_.logit);
    Drawn drawn = {-INFINITY, {0, INT_MAX}};
    if (near >= enough)
      for_each([&](float logit, int token) {
        if (is_before(logit, token, place) && near_noisy_logit(draw_, below_largest(logit), token) >= enough)
          drawn = better(drawn, {noisy_logit(draw_, logit, token), {logit, token}});
      });
    drawn = cluster_.join(drawn, better);
    return drawn.place.token == INT_MAX ? Place{0, -1} : drawn.place;
  }

  const TokenDraw draw_;
  float* part_;
  int count_, first_;
  Cluster& cluster_;
  Place largest_ = {-INFINITY, INT_MAX};  // the thread's, then the row's
};

__global__ __launch_bounds__(kThreads, kBlocksOfMultiprocessor) void draw_kernel(const float* logits,
                                                                                 std::int64_t columns,
                                                                                 const TokenDraw* draws,
                                                                                 std::int32_t* tokens) {
  extern __shared__ float4 part[];
  __shared__ Cluster::Shared shared;
  let_next_kernel_begin();
  Cluster cluster(shared, static_cast<int>(blockIdx.x));
  wait_for_earlier_kernels();
  const TokenDraw draw = draws[blockIdx.y];
  if (draw.factor < 0) return;  // all of the cluster
  RowDraw row(draw, logits + blockIdx.y * columns, columns, &part[0].x, cluster);
  const std::int32_t token = row.token();
  if (blockIdx.x == 0 && threadIdx.x == 0) tokens[blockIdx.y] = token;
}

__global__ __launch_bounds__(kThreads, kBlocksOfMultiprocessor) void edited_draw_kernel(
    const float* logits, std::int64_t columns, const EditedDraw* draws, const std::int32_t* words,
    std::int32_t* tokens) {
  extern __shared__ float4 part[];
  __shared__ Cluster::Shared shared;
  let_next_kernel_begin();
  Cluster cluster(shared, static_cast<int>(blockIdx.x));
  wait_for_earlier_kernels();
  const EditedDraw own = draws[blockIdx.y];
  RowDraw row(own.draw, logits + own.row * columns, columns, &part[0].x, cluster);
  row.edit(own, words, static_cast<int>(columns));
  const std::int32_t token = row.token();
  if (blockIdx.x == 0 && threadIdx.x == 0) tokens[own.row] = token;
}

// A cluster for each of `rows` rows.
template <class... Parameters, class... Arguments>
void launch_rows(void (*kernel)(Parameters...), std::int64_t rows, std::int64_t columns, cudaStream_t stream,
                 Arguments... arguments) {
  launch_clusters(kBlocks, kernel, dim3(kBlocks, static_cast<unsigned>(rows)), kThreads,
                  static_cast<std::size_t>(logits_of_block(columns)) * sizeof(float), stream, arguments...);
}

template <class Kernel>
cudaError_t allow_most(Kernel kernel) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(kMostOfBlock * sizeof(float)));
}

}  // namespace

bool supports_draw(std::int64_t columns) {
  return logits_of_block(columns) <= kMostOfBlock;
}

void draw(const float* logits, std::int64_t rows, std::int64_t columns, const TokenDraw* draws,
          std::int32_t* tokens, cudaStream_t stream) {
  static const cudaError_t allowed = allow_most(draw_kernel);
  (void)allowed;  // the launch fails if this did
  launch_rows(draw_kernel, rows, columns, stream, logits, columns, draws, tokens);
}

void draw_edited(const float* logits, std::int64_t columns, const EditedDraw* draws, std::int64_t count,
                 const std::int32_t* words, std::int32_t* tokens, cudaStream_t stream) {
  static const cudaError_t allowed = allow_most(edited_draw_kernel);
  (void)allowed;  // the launch fails if this did
  launch_rows(edited_draw_kernel, count, columns, stream, logits, columns, draws, words, tokens);
}

}  // namespace bise::cuda
