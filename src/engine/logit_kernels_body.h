// The kernels of logit_kernels.h in the compiler's vectors of kVectorBytes. Include inside a namespace that
// defines kVectorBytes and a target region of its own.

using Floats = float __attribute__((vector_size(kVectorBytes)));
using Ints = std::int32_t __attribute__((vector_size(kVectorBytes)));
using Doubles = double __attribute__((vector_size(2 * kVectorBytes)));
using Words = std::uint32_t __attribute__((vector_size(kVectorBytes)));
constexpr std::size_t kLanes = kVectorBytes / sizeof(float), kVectors = kLogitBlock / kLanes;
// The lanes of a block's vectors, 64 in all, are added in float32 for so many elements, then in double.
constexpr std::size_t kSumBlock = 4096;
constexpr float kLowest = -__builtin_inff();

#define BISE_INLINE static inline __attribute__((always_inline))

BISE_INLINE Floats load(const float* from) {
  Floats result;
  __builtin_memcpy(&result, from, sizeof(result));
  return result;
}

BISE_INLINE void store(Floats values, float* to) {
  __builtin_memcpy(to, &values, sizeof(values));
}

// Elements [i, i + kLanes) of `count`; past the end `fill`.
BISE_INLINE Floats load_part(const float* values, std::size_t i, std::size_t count, float fill) {
  if (i + kLanes <= count) return load(values + i);
  float part[kLanes];
  for (std::size_t lane = 0; lane < kLanes; ++lane) part[lane] = i + lane < count ? values[i + lane] : fill;
  return load(part);
}

// 0, 1, 2, ...
BISE_INLINE Ints lane_numbers() {
  Ints numbers = {};
  for (std::size_t lane = 0; lane < kLanes; ++lane) numbers[lane] = static_cast<std::int32_t>(lane);
  return numbers;
}

BISE_INLINE float largest_lane(Floats v) {
  for (std::int32_t distance = kLanes / 2; distance > 0; distance /= 2) {
    const Floats other = __builtin_shuffle(v, lane_numbers() ^ distance);
    v = v > other ? v : other;
  }
  return v[0];
}

BISE_INLINE double sum_lanes(const Floats (&lanes)[kVectors]) {
  double sum = 0;
  for (std::size_t vector = 0; vector < kVectors; ++vector)
    for (std::size_t lane = 0; lane < kLanes; ++lane) sum += static_cast<double>(lanes[vector][lane]);
  return sum;
}

// exp(x) for x <= 0: 2^n * exp(r), r = x - n ln 2 within +-ln(2)/2, by the Taylor polynomial of degree 6
// (relative error 1e-7); 0 below -87, where float32 ends.
BISE_INLINE Floats exp_of_negative(Floats x) {
  const Ints tiny = x < -87.0f;
  x = tiny ? Floats{} - 87.0f : x;
  // Truncation of a negative value: rounds to the nearest.
  const Ints n = __builtin_convertvector(x * 1.44269504f - 0.5f, Ints);
  const Floats whole = __builtin_convertvector(n, Floats);
  const Floats r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;  // ln 2 in two parts (Cody, Waite)
  Floats sum = Floats{} + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const Floats factor = (Floats)((n + 127) << 23);
  return tiny ? Floats{} : sum * factor;
}

static bool block_maxima(const float* values, std::size_t count, float* maxima) {
  Ints broken = {};
  std::size_t i = 0;
  for (; i + kLogitBlock <= count; i += kLogitBlock) {
    Floats largest = Floats{} + kLowest;
    for (std::size_t v = 0; v < kVectors; ++v) {
      const Floats each = load(values + i + v * kLanes);
      broken |= each != each;
      largest = each > largest ? each : largest;
    }
    maxima[i / kLogitBlock] = largest_lane(largest);
  }
  if (i < count) {
    float largest = kLowest;
    for (std::size_t j = i; j < count; ++j) {
      if (values[j] != values[j]) return false;
      largest = values[j] > largest ? values[j] : largest;
    }
    maxima[i / kLogitBlock] = largest;
  }
  std::int32_t any = 0;
  for (std::size_t lane = 0; lane < kLanes; ++lane) any |= broken[lane];
  return any == 0;
}

static double sum_exp(const float* values, std::size_t count, float largest, float factor) {
  double total = 0;
  for (std::size_t i = 0; i < count;) {
    Floats lanes[kVectors] = {};
    const std::size_t end = i + kSumBlock < count ? i + kSumBlock : count;
    for (; i < end; i += kLogitBlock)
      for (std::size_t v = 0; v < kVectors; ++v)
        lanes[v] += exp_of_negative((load_part(values, i + v * kLanes, count, kLowest) - largest) * factor);
    total += sum_lanes(lanes);
  }
  return total;
}

// exp(x) for x <= 0, rounded to a multiple of 2^-33: from 2^-10 on float32 has no others.
BISE_INLINE Floats weight_of_negative(Floats x) {
  constexpr float kFine = 0x1p-10f;
  const Floats weight = exp_of_negative(x);
  return weight < kFine ? (weight + kFine) - kFine : weight;
}

BISE_INLINE double add_lanes(const Doubles& lanes) {
  double sum = 0;
  for (std::size_t lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

static double sum_weights(const float* values, std::size_t count, float largest, float factor) {
  Doubles sums = {};
  for (std::size_t i = 0; i < count; i += kLanes)
    sums += __builtin_convertvector(
        weight_of_negative((load_part(values, i, count, kLowest) - largest) * factor), Doubles);
  return add_lanes(sums);
}

static double weigh(float* values, std::size_t count, float largest, float factor) {
  Doubles sums = {};
  for (std::size_t i = 0; i < count; i += kLanes) {
    const Floats result = weight_of_negative((load_part(values, i, count, kLowest) - largest) * factor);
    sums += __builtin_convertvector(result, Doubles);
    if (i + kLanes <= count) {
      store(result, values + i);
    } else {
      for (std::size_t lane = 0; i + lane < count; ++lane) values[i + lane] = result[lane];
    }
  }
  return add_lanes(sums);
}

static double weighted_difference(const float* p, const float* q, std::size_t count, float largest) {
  double total = 0;
  for (std::size_t i = 0; i < count;) {
    Floats lanes[kVectors] = {};
    const std::size_t end = i + kSumBlock < count ? i + kSumBlock : count;
    for (; i < end; i += kLogitBlock)
      for (std::size_t v = 0; v < kVectors; ++v) {
        const Floats a = load_part(p, i + v * kLanes, count, largest);
        const Floats b = load_part(q, i + v * kLanes, count, largest);
        lanes[v] += exp_of_negative(a - largest) * (a - b);
      }
    total += sum_lanes(lanes);
  }
  return total;
}

static std::size_t count_at_least(const float* values, std::size_t count, float threshold) {
  Ints counts[kVectors] = {};
  std::size_t i = 0;
  for (; i + kLogitBlock <= count; i += kLogitBlock)
    for (std::size_t v = 0; v < kVectors; ++v) counts[v] -= load(values + i + v * kLanes) >= threshold;
  std::size_t total = 0;
  for (const Ints& each : counts)
    for (std::size_t lane = 0; lane < kLanes; ++lane) total += static_cast<std::size_t>(each[lane]);
  for (; i < count; ++i) total += values[i] >= threshold ? 1 : 0;
  return total;
}

static void apply_mask(float* values, std::size_t count, const std::uint32_t* bits) {
  const Words lane_bits = (Words)((Ints{} + 1) << lane_numbers());
  const Floats removed = Floats{} + kLowest;
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Words kept = (Words{} + (bits[i / 32] >> (i % 32))) & lane_bits;
    store(kept != 0u ? load(values + i) : removed, values + i);
  }
  for (; i < count; ++i)
    if ((bits[i / 32] >> (i % 32) & 1u) == 0) values[i] = kLowest;
}

// With v = (bits + 1/2) / 2^32, the noise -ln(-ln(1 - v)) is at most -ln v; and the bits of a float read as
// an integer are a lower bound of its logarithm (log2(1 + m) >= m). Most tokens lose by this bound, without a
// logarithm; the others are computed exactly.
static std::int32_t gumbel_argmax(const float* values, std::size_t count, float factor, float threshold,
                                  GumbelKey key) {
  constexpr float kLn2 = 0.69314718f, kSlack = 1e-3f;
  // bits >> 8 = v * 2^24: -ln v <= ln 2 * (24 + 127 - float bits / 2^23).
  constexpr float kOffset = kLn2 * (24 + 127) + kSlack, kStep = kLn2 / (1 << 23);
  Words start = (Words)lane_numbers() * 0x9e3779b9u + key.low;
  double best = -__builtin_inf();
  float losing = kLowest;  // a float below `best`, or -infinity
  std::int32_t token = -1;
  for (std::size_t i = 0; i < count; i += kLogitBlock) {
    Floats bounds[kVectors];
    Words bits[kVectors];
    Ints winners = {};
    for (std::size_t v = 0; v < kVectors; ++v) {
      Words x = start;
      x = (x ^ (x >> 16)) * 0x7feb352du;
      x = (x ^ (x >> 15) ^ key.high) * 0x846ca68bu;
      x = x ^ (x >> 16);
      bits[v] = x;
      start += static_cast<std::uint32_t>(kLanes) * 0x9e3779b9u;
      const Floats scaled = load_part(values, i + v * kLanes, count, kLowest) * factor;
      const Ints logarithm = (Ints) __builtin_convertvector((Ints)(x >> 8), Floats);
      bounds[v] = scaled + (kOffset - __builtin_convertvector(logarithm, Floats) * kStep);
      winners |= bounds[v] > losing;
    }
    std::int32_t any = 0;
    for (std::size_t l = 0; l < kLanes; ++l) any |= winners[l];
    if (any == 0) continue;
    for (std::size_t j = 0; j < kLogitBlock && i + j < count; ++j) {
      const float value = values[i + j];
      if (!(bounds[j / kLanes][j % kLanes] > losing) || value < threshold) continue;
      const double noisy = static_cast<double>(value * factor) + gumbel_noise(bits[j / kLanes][j % kLanes]);
      if (!(noisy > best)) continue;
      best = noisy;
      losing = static_cast<float>(best) - 1e-3f;
      token = static_cast<std::int32_t>(i + j);
    }
  }
  return token;
}

static constexpr LogitKernels kKernels{block_maxima,        sum_exp,        sum_weights, weigh,
                                       weighted_difference, count_at_least, apply_mask,  gumbel_argmax};

#undef BISE_INLINE
