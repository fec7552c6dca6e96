#include "backend/cpu/one_row_amx.h"

// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>
#include <array>

#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/unpack_amx.h"

// What is included above keeps the baseline instruction set, so that no shared inline function is compiled
// for more than the processor has.
#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi")

namespace bise {
namespace {

constexpr std::int64_t kTileBytes = 16 * kTileRowBytes, kStepColumns = 128;

enum class Kind { kNone, kInt4Group32, kInt4Group64, kInt4Group128, kNf4, kInt8, kInt8Packed };

Kind kind_of(const LinearPart& part) {
  const StoredLinear& stored = part.stored;
  if (part.format == RowFormat::kNf4) return Kind::kNf4;
  if (!stored.zero_point.empty()) return Kind::kNone;
  if (part.format == RowFormat::kInt4Packed && part.group_size != 0) {
    if (stored.scheme.strategy == Strategy::kBlock || stored.scale.dtype() != DType::kBF16)
      return Kind::kNone;
    return part.group_size == 32   ? Kind::kInt4Group32
           : part.group_size == 64 ? Kind::kInt4Group64
                                   : Kind::kInt4Group128;
  }
  if (part.group_size != 0) return Kind::kNone;
  if (part.format == RowFormat::kInt8) return Kind::kInt8;
  return part.format == RowFormat::kInt8Packed ? Kind::kInt8Packed : Kind::kNone;
}

__m512i to_bf16(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

__m512 quarter_to_float(__m128i codes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
}

template <bool kTail>
__m512i load(const std::byte* in, std::int64_t bytes) {
  if (!kTail || bytes >= 64) return _mm512_loadu_si512(in);
  return _mm512_maskz_loadu_epi8(_cvtu64_mask64((1ull << std::max<std::int64_t>(bytes, 0)) - 1), in);
}

// 4-bit codes. kGroups: groups in 128 columns (1 also for larger ones). kHighFirst: the even column is the
// high nibble. As unpack_nibbles (unpack_amx.cpp), with the same values.
template <int kGroups, bool kHighFirst>
class Nibbles {
 public:
  static constexpr std::int64_t kStepBytes = 64;

  explicit Nibbles(const LinearPart& part)
      : levels_(part.levels.data()), steps_per_group_(kGroups > 1 ? 1 : part.group_size / kStepColumns) {}

  // The scales of the groups that the block's columns begin in.
  static void load_scales(const OneRowBlock& block, int h, float* out, std::int64_t out_stride) {
    const LinearPart& part = *block.part[h];
    const std::int64_t groups_of_row = (part.stored.columns + part.group_size - 1) / part.group_size;
    const std::int64_t first = block.first_column / part.group_size;
    const std::int64_t count =
        (block.first_column + block.columns + part.group_size - 1) / part.group_size - first;
    const std::int64_t filled = (count + kGroups - 1) / kGroups * kGroups;  // zeros where the row ends
    const std::int64_t begin_of_first = block.row[h] * groups_of_row + first;
    const float* floats = kHighFirst ? part.stored.absmax.data<float>() + begin_of_first : nullptr;
    const std::uint16_t* halves =
        kHighFirst ? nullptr : part.stored.scale.data<std::uint16_t>() + begin_of_first;
    for (std::int64_t r = 0; r < OneRowBlock::kRows; ++r, out += out_stride) {
      const std::int64_t begin = r * groups_of_row;
      for (std::int64_t g = 0; g < filled; g += 16) {
        const auto mask = static_cast<__mmask16>((1u << std::clamp<std::int64_t>(count - g, 0, 16)) - 1u);
        __m512 values;
        if constexpr (kHighFirst)
          values = _mm512_maskz_loadu_ps(mask, floats + begin + g);
        else
          values = _mm512_castsi512_ps(_mm512_slli_epi32(
              _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, halves + begin + g)), 16));
        _mm512_store_ps(out + g, values);
      }
    }
  }

  // The scales of step `step` of the block whose columns begin at `first_column`.
  std::int64_t scale_index(std::int64_t first_column, std::int64_t step) const {
    if constexpr (kGroups > 1) return step * kGroups;
    const std::int64_t first = first_column / kStepColumns;
    return (first + step) / steps_per_group_ - first / steps_per_group_;
  }

  template <bool kTail>
  [[gnu::always_inline]] void widen(const std::byte* in, std::int64_t bytes, const float* scales,
                                    std::byte* out) const {
    const __m512i low_nibbles = _mm512_set1_epi16(0x0f0f), group_bits = _mm512_load_si512(kGroupBits.data());
    const __m512i words = load<kTail>(in, bytes);
    const __m512 values = values_of(scales[0]);
    const __m512i table = to_bf16(values, kGroups == 1 ? values : values_of(scales[1]));
    __m512i index[4];
    if constexpr (kGroups == 1) {  // both halves of the table are equal
      for (int i = 0; i < 4; ++i) index[i] = _mm512_srli_epi16(words, static_cast<unsigned>(4 * i));
    } else {  // words & low nibbles | group above each
      index[0] = _mm512_ternarylogic_epi32(words, low_nibbles, group_bits, 0xea);
      index[1] = _mm512_ternarylogic_epi32(_mm512_srli_epi16(words, 4), low_nibbles, group_bits, 0xea);
      index[2] = _mm512_srli_epi16(index[0], 8);
      index[3] = _mm512_srli_epi16(index[1], 8);
    }
    __m512i second = table;
    if constexpr (kGroups == 4) second = to_bf16(values_of(scales[2]), values_of(scales[3]));
    for (int i = 0; i < 4; ++i)
      _mm512_store_si512(out + (kHighFirst ? i ^ 1 : i) * kTileBytes,
                         kGroups == 4 ? _mm512_permutex2var_epi16(table, index[i], second)
                                      : _mm512_permutexvar_epi16(index[i], table));
  }

 private:
  [[gnu::always_inline]] __m512 values_of(const float& scale) const {
    return _mm512_mul_ps(_mm512_load_ps(levels_), _mm512_set1_ps(scale));
  }

  // The group of each of 32 words of four codes, above both nibbles that stay in place.
  alignas(64) static constexpr auto kGroupBits = [] {
    std::array<std::uint16_t, 32> bits{};
    for (std::size_t word = 0; word < 32; ++word)
      bits[word] = static_cast<std::uint16_t>((word * kGroups / 32) * 0x1010);
    return bits;
  }();

  const float* levels_;
  std::int64_t steps_per_group_;
};

// 8-bit codes whose scale is applied to the product. kOffset: offset by 128.
template <bool kOffset>
class Bytes {
 public:
  static constexpr std::int64_t kStepBytes = 128;

  explicit Bytes(const LinearPart&) {}
  static void load_scales(const OneRowBlock&, int, float*, std::int64_t) {}
  std::int64_t scale_index(std::int64_t, std::int64_t) const { return 0; }

  template <bool kTail>
  [[gnu::always_inline]] void widen(const std::byte* in, std::int64_t bytes, const float*,
                                    std::byte* out) const {
    for (int i = 0; i < 2; ++i) {
      __m512i codes = load<kTail>(in + 64 * i, bytes - 64 * i);
      if constexpr (kOffset) codes = _mm512_xor_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80)));
      _mm512_store_si512(out + 2 * i * kTileBytes,
                         to_bf16(quarter_to_float(_mm512_castsi512_si128(codes)),
                                 quarter_to_float(_mm512_extracti32x4_epi32(codes, 1))));
      _mm512_store_si512(out + (2 * i + 1) * kTileBytes,
                         to_bf16(quarter_to_float(_mm512_extracti32x4_epi32(codes, 2)),
                                 quarter_to_float(_mm512_extracti32x4_epi32(codes, 3))));
    }
  }
};

// A pair of weight tiles and the input's tile into registers, two sets in turn; and their products.
template <int kSet>
void load_set(const std::byte* weights, const std::byte* x) {
  load_tile<6 + kSet>(x, 4);
  load_tile<kSet ? 1 : 4>(weights, kTileRowBytes);
  load_tile<kSet ? 3 : 5>(weights + 4 * kTileBytes, kTileRowBytes);
}

template <int kSet>
void multiply_set() {
  multiply_tiles<false, 0, kSet ? 1 : 4, 6 + kSet>();
  multiply_tiles<false, 2, kSet ? 3 : 5, 6 + kSet>();
}

constexpr int kRowsBeside = 8;  // rows that are widened beside each product
constexpr std::int64_t kMaxGroups = OneRowAmx::kMaxGroups;

// kRowsBeside rows of 128 columns. `bytes`: left of each row, with kTail. `ahead`: from a row to what to
// fetch.
template <class Format, bool kTail>
[[gnu::noinline]] void widen_rows(const Format& format, const std::byte* in, std::int64_t stride,
                                  std::int64_t ahead, const float* scales, std::byte* out,
                                  std::int64_t bytes) {
  for (int i = 0; i < kRowsBeside; ++i) {
    for (std::int64_t line = 0; line < Format::kStepBytes; line += 64)
      _mm_prefetch(in + ahead + line, _MM_HINT_T1);
    format.template widen<kTail>(in, bytes, scales, out);
    in += stride;
    scales += kMaxGroups;
    out += kTileRowBytes;
  }
}

// A block's codes and their scales.
template <class Format>
struct Codes {
  Codes(const OneRowBlock& block, const float* scales_of_rows)
      : format{Format(*block.part[0]), Format(*block.part[1])},
        stride(block.part[0]->row_bytes),
        first_column(block.first_column),
        columns(block.columns),
        scales(scales_of_rows) {
    for (int h = 0; h < 2; ++h)
      in[h] = block.part[h]->row(block.row[h]) + block.first_column / kStepColumns * Format::kStepBytes;
  }

  // Rows [8 i, 8 i + 8) at step `step` of the columns; fetches the same rows of `ahead` at its own step.
  [[gnu::always_inline]] void widen(std::int64_t step, int i, std::byte* slot, const Codes& ahead,
                                    std::int64_t ahead_step) const {
    const int h = i / 2;
    const std::int64_t row = i % 2 * kRowsBeside * stride;
    const std::byte* from = in[h] + row + step * Format::kStepBytes;
    const std::int64_t distance = ahead.in[h] + row + ahead_step * Format::kStepBytes - from;
    const std::int64_t left = columns - step * kStepColumns;
    const float* row_scales =
        scales + i * kRowsBeside * kMaxGroups + format[h].scale_index(first_column, step);
    std::byte* out = slot + h * 4 * kTileBytes + i % 2 * kRowsBeside * kTileRowBytes;
    if (left >= kStepColumns)
      widen_rows<Format, false>(format[h], from, stride, distance, row_scales, out, 0);
    else
      widen_rows<Format, true>(format[h], from, stride, distance, row_scales, out,
                               left * Format::kStepBytes / kStepColumns);
  }

  Format format[2];
  const std::byte* in[2];
  std::int64_t stride, first_column, columns;
  const float* scales;  // kMaxGroups a row
};

}  // namespace

bool OneRowAmx::supports(const OneRowBlock& block) {
  const Kind kind = kind_of(*block.part[0]);
  if (kind == Kind::kNone || (block.part[0] != block.part[1] && kind_of(*block.part[1]) != kind))
    return false;
  for (int h = 0; h < 2; ++h)
    if (block.row[h] + OneRowBlock::kRows > block.part[h]->rows()) return false;
  return true;
}

template <class Format>
void OneRowAmx::multiply_as(const OneRowBlock& block, const OneRowBlock* next) {
  constexpr std::int64_t kSlotBytes = kRingBytes / 2;
  const std::int64_t steps = (block.columns + kStepColumns - 1) / kStepColumns;
  float* scales[2] = {scales_[turn_].of[0], scales_[turn_ ^ 1].of[0]};
  const Codes<Format> codes(block, scales[0]), ahead(next ? *next : block, scales[1]);
  if (!primed_) {
    for (int h = 0; h < 2; ++h)
      Format::load_scales(block, h, scales[0] + h * OneRowBlock::kRows * kMaxGroups, kMaxGroups);
    for (int i = 0; i < 4; ++i) codes.widen(0, i, ring_ + slot_ * kSlotBytes, ahead, 0);
    load_set<0>(ring_ + slot_ * kSlotBytes, block.x);
  }
  if (next)
    for (int h = 0; h < 2; ++h)
      Format::load_scales(*next, h, scales[1] + h * OneRowBlock::kRows * kMaxGroups, kMaxGroups);
  const std::byte* x = block.x;
  for (std::int64_t step = 0; step < steps; ++step, x += 4 * kTileRowBytes) {
    const std::byte* tiles = ring_ + slot_ * kSlotBytes;
    slot_ ^= 1;
    std::byte* slot = ring_ + slot_ * kSlotBytes;
    const bool last = step + 1 == steps, more = !last || next;
    const Codes<Format>& coming = last ? ahead : codes;
    const std::int64_t coming_step = last ? 0 : step + 1;
    if (more) coming.widen(coming_step, 0, slot, ahead, step);
    load_set<1>(tiles + kTileBytes, x + kTileRowBytes);
    multiply_set<0>();
    if (more) coming.widen(coming_step, 1, slot, ahead, step);
    load_set<0>(tiles + 2 * kTileBytes, x + 2 * kTileRowBytes);
    multiply_set<1>();
    if (more) coming.widen(coming_step, 2, slot, ahead, step);
    load_set<1>(tiles + 3 * kTileBytes, x + 3 * kTileRowBytes);
    multiply_set<0>();
    if (more) {
      coming.widen(coming_step, 3, slot, ahead, step);
      load_set<0>(slot, last ? next->x : x + 4 * kTileRowBytes);
    }
    multiply_set<1>();
  }
  primed_ = next != nullptr;
  turn_ ^= 1;
}

void OneRowAmx::multiply(const OneRowBlock& block, const OneRowBlock* next) {
  const Kind kind = kind_of(*block.part[0]);
  if (next && (!supports(*next) || kind_of(*next->part[0]) != kind)) next = nullptr;
  switch (kind) {
    case Kind::kInt4Group32: return multiply_as<Nibbles<4, false>>(block, next);
    case Kind::kInt4Group64: return multiply_as<Nibbles<2, false>>(block, next);
    case Kind::kInt4Group128: return multiply_as<Nibbles<1, false>>(block, next);
    case Kind::kNf4: return multiply_as<Nibbles<2, true>>(block, next);
    case Kind::kInt8: return multiply_as<Bytes<false>>(block, next);
    case Kind::kInt8Packed: return multiply_as<Bytes<true>>(block, next);
    case Kind::kNone: break;
  }
}

}  // namespace bise
