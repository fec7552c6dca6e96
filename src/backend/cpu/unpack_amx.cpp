#include "backend/cpu/unpack_amx.h"

// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>
#include <array>

#include "tensor/float_types.h"

// What is included above keeps the baseline instruction set, so that no shared inline function is compiled
// for more than the processor has.
#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi")
#include "backend/cpu/transpose_kernel.h"

namespace bise {
namespace {

// The two bytes of the bf16 of every non-negative e4m3 code.
struct E4M3Table {
  alignas(64) std::array<std::uint8_t, 128> low, high;
};

const E4M3Table& e4m3_table() {
  static const E4M3Table table = [] {
    E4M3Table made;
    for (std::size_t code = 0; code < 128; ++code) {
      const bf16 value = float_to_bf16(e4m3_to_float(static_cast<e4m3>(code)));
      made.low[code] = static_cast<std::uint8_t>(value);
      made.high[code] = static_cast<std::uint8_t>(value >> 8);
    }
    return made;
  }();
  return table;
}

constexpr int kMaxGroups =
    kPanelTiles + 5;  // groups have at least the 32 columns of a tile; filled up to 128

// Groups that the `columns` from `first` touch, with their scales and zero points.
struct BlockGroups {
  BlockGroups(const LinearPart& part, std::int64_t row, std::int64_t first, std::int64_t columns)
      : size(part.group_size ? part.group_size : part.stored.columns + 128),
        first_group(part.group_size ? first / size : 0) {
    const std::int64_t last = part.group_size ? (first + columns + 127) / size : 0;
    part.load_groups(row, first_group, last - first_group + 1, scales, zero_points);
  }
  std::int64_t of(std::int64_t column) const { return column / size - first_group; }

  std::int64_t size, first_group;
  float scales[kMaxGroups], zero_points[kMaxGroups];
};

__m512i mask_load(const std::byte* in, std::int64_t bytes) {
  if (bytes >= 64) return _mm512_loadu_si512(in);
  return _mm512_maskz_loadu_epi8(_cvtu64_mask64((1ull << bytes) - 1), in);
}

__m512i to_bf16(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

__m512 low_to_float(__m512i bf16_values) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(bf16_values)), 16));
}

__m512 high_to_float(__m512i bf16_values) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(bf16_values, 1)), 16));
}

void copy_bytes(const std::byte* in, std::int64_t bytes, std::byte* out, std::int64_t tile_step) {
  for (; bytes > 0; bytes -= 64, in += 64, out += tile_step) _mm512_store_si512(out, mask_load(in, bytes));
}

void unpack_f32(const std::byte* in, std::int64_t columns, std::byte* out, std::int64_t tile_step) {
  for (; columns > 0; columns -= 32, in += 128, out += tile_step) {
    const __m512i low = mask_load(in, std::min<std::int64_t>(columns * 4, 64));
    const __m512i high = mask_load(in + 64, std::clamp<std::int64_t>(columns * 4 - 64, 0, 64));
    _mm512_store_si512(out, to_bf16(_mm512_castsi512_ps(low), _mm512_castsi512_ps(high)));
  }
}

void unpack_f16(const std::byte* in, std::int64_t columns, std::byte* out, std::int64_t tile_step) {
  for (; columns > 0; columns -= 32, in += 64, out += tile_step) {
    const __m512i halves = mask_load(in, std::min<std::int64_t>(columns * 2, 64));
    _mm512_store_si512(out, to_bf16(_mm512_cvtph_ps(_mm512_castsi512_si256(halves)),
                                    _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1))));
  }
}

// Any scheme, through the definition.
void unpack_any(const LinearPart& part, std::int64_t row, std::int64_t first, std::int64_t columns,
                std::byte* out, std::int64_t tile_step) {
  alignas(64) float values[kPanelTiles * 32] = {};
  part.dequantize(row, first, columns, values);
  unpack_f32(reinterpret_cast<const std::byte*>(values), columns, out, tile_step);
}

// Bytes, signed or (packed) offset by 128.
template <bool kOffset>
void unpack_int8(const LinearPart& part, std::int64_t row, std::int64_t first, std::int64_t columns,
                 std::byte* out, std::int64_t tile_step) {
  const BlockGroups groups(part, row, first, columns);
  const std::byte* in = part.row(row) + first;
  for (std::int64_t k = 0; k < columns; k += 32, in += 32, out += tile_step) {
    const std::int64_t group = groups.of(first + k);
    const __m512 scale = _mm512_set1_ps(groups.scales[group]);
    const __m512 zero = _mm512_set1_ps(groups.zero_points[group] + (kOffset ? 128.0f : 0.0f));
    const __m256i codes = _mm512_castsi512_si256(mask_load(in, std::min<std::int64_t>(columns - k, 32)));
    const __m128i low = _mm256_castsi256_si128(codes), high = _mm256_extracti128_si256(codes, 1);
    const __m512i low_wide = kOffset ? _mm512_cvtepu8_epi32(low) : _mm512_cvtepi8_epi32(low);
    const __m512i high_wide = kOffset ? _mm512_cvtepu8_epi32(high) : _mm512_cvtepi8_epi32(high);
    const __m512 low_value = _mm512_mul_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(low_wide), zero), scale);
    const __m512 high_value = _mm512_mul_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(high_wide), zero), scale);
    _mm512_store_si512(out, to_bf16(low_value, high_value));
  }
}

void unpack_e4m3(const LinearPart& part, std::int64_t row, std::int64_t first, std::int64_t columns,
                 std::byte* out, std::int64_t tile_step) {
  const E4M3Table& table = e4m3_table();
  const __m512i low0 = _mm512_load_si512(&table.low[0]), low1 = _mm512_load_si512(&table.low[64]);
  const __m512i high0 = _mm512_load_si512(&table.high[0]), high1 = _mm512_load_si512(&table.high[64]);
  // Quarter-lanes in an order that the interleaving below turns back.
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
  const BlockGroups groups(part, row, first, columns);
  const std::byte* in = part.row(row) + first;
  const auto store = [&](__m512i values, std::int64_t k) {
    if (k >= columns) return;
    if (part.group_size) {
      const __m512 scale = _mm512_set1_ps(groups.scales[groups.of(first + k)]);
      values =
          to_bf16(_mm512_mul_ps(low_to_float(values), scale), _mm512_mul_ps(high_to_float(values), scale));
    }
    _mm512_store_si512(out + k / 32 * tile_step, values);
  };
  for (std::int64_t k = 0; k < columns; k += 64) {
    const __m512i codes = _mm512_permutexvar_epi64(order, mask_load(in + k, columns - k));
    const __m512i low = _mm512_permutex2var_epi8(low0, codes, low1);
    const __m512i magnitude = _mm512_permutex2var_epi8(high0, codes, high1);
    const __m512i high = _mm512_ternarylogic_epi32(magnitude, codes, sign, 0xf8);  // magnitude | codes & sign
    store(_mm512_unpacklo_epi8(low, high), k);
    store(_mm512_unpackhi_epi8(low, high), k + 32);
  }
}

// kGroups: groups in 128 columns (1 also for larger ones). kHighFirst: the even column is the high nibble.
template <int kGroups, bool kHighFirst>
void unpack_nibbles(const LinearPart& part, std::int64_t row, std::int64_t first, std::int64_t columns,
                    std::byte* out, std::int64_t tile_step) {
  const BlockGroups groups(part, row, first, columns);
  const __m512 levels = _mm512_load_ps(part.levels.data());
  const __m512i nibble = _mm512_set1_epi16(15);
  // The group of each word's four codes, above the code in the table's index.
  alignas(64) std::uint16_t group_bits[32];
  for (int word = 0; word < 32; ++word)
    group_bits[word] = static_cast<std::uint16_t>(word * kGroups / 32 << 4);
  const __m512i group_index = _mm512_load_si512(group_bits);
  const std::byte* in = part.row(row) + first / 2;
  for (std::int64_t k = 0; k < columns; k += 128, in += 64, out += 4 * tile_step) {
    const std::int64_t group = groups.of(first + k);
    const auto values_of = [&](std::int64_t g) {
      return _mm512_mul_ps(_mm512_sub_ps(levels, _mm512_set1_ps(groups.zero_points[g])),
                           _mm512_set1_ps(groups.scales[g]));
    };
    const __m512i words = mask_load(in, (columns - k + 1) / 2);
    const __m512 first_values = values_of(group);
    const __m512i table = to_bf16(first_values, kGroups == 1 ? first_values : values_of(group + 1));
    __m512i second_table = table;
    if constexpr (kGroups == 4) second_table = to_bf16(values_of(group + 2), values_of(group + 3));
    const auto store = [&](int tile, __m512i codes) {
      __m512i values;
      if constexpr (kGroups == 1) {
        values = _mm512_permutexvar_epi16(codes, table);  // both halves of the table are equal
      } else {
        const __m512i index =
            _mm512_ternarylogic_epi32(codes, nibble, group_index, 0xea);  // codes & nibble | group
        values = kGroups == 2 ? _mm512_permutexvar_epi16(index, table)
                              : _mm512_permutex2var_epi16(table, index, second_table);
      }
      _mm512_store_si512(out + tile * tile_step, values);
    };
    store(kHighFirst ? 1 : 0, words);
    store(kHighFirst ? 0 : 1, _mm512_srli_epi16(words, 4));
    store(kHighFirst ? 3 : 2, _mm512_srli_epi16(words, 8));
    store(kHighFirst ? 2 : 3, _mm512_srli_epi16(words, 12));
  }
}

}  // namespace

void unpack_row(const LinearPart& part, bool integer, bool nibbles, std::int64_t row, std::int64_t first,
                std::int64_t columns, std::byte* out, std::int64_t tile_step) {
  const std::byte* in = part.row(row);
  if (integer) return copy_bytes(in + first, columns, out, tile_step);
  switch (part.format) {
    case RowFormat::kBF16: return copy_bytes(in + first * 2, columns * 2, out, tile_step);
    case RowFormat::kF16: return unpack_f16(in + first * 2, columns, out, tile_step);
    case RowFormat::kF32: return unpack_f32(in + first * 4, columns, out, tile_step);
    case RowFormat::kInt8: return unpack_int8<false>(part, row, first, columns, out, tile_step);
    case RowFormat::kInt8Packed: return unpack_int8<true>(part, row, first, columns, out, tile_step);
    case RowFormat::kE4M3: return unpack_e4m3(part, row, first, columns, out, tile_step);
    case RowFormat::kNf4:
      if (nibbles) return unpack_nibbles<2, true>(part, row, first, columns, out, tile_step);
      break;
    case RowFormat::kInt4Packed:
      if (!nibbles) break;
      if (part.group_size == 32) return unpack_nibbles<4, false>(part, row, first, columns, out, tile_step);
      if (part.group_size == 64) return unpack_nibbles<2, false>(part, row, first, columns, out, tile_step);
      return unpack_nibbles<1, false>(part, row, first, columns, out, tile_step);
    case RowFormat::kOther: break;
  }
  unpack_any(part, row, first, columns, out, tile_step);
}

void arrange_nibbles(const std::byte* in, std::byte* out, std::int64_t tile_step) {
  const __m512i quarter[4] = {_mm512_loadu_si512(in), _mm512_loadu_si512(in + 64),
                              _mm512_loadu_si512(in + 128), _mm512_loadu_si512(in + 192)};
  alignas(64) static constexpr auto kEveryFourth = [] {
    std::array<std::uint16_t, 32> index{};
    for (std::size_t j = 0; j < 32; ++j) index[j] = static_cast<std::uint16_t>(4 * (j % 16));
    return index;
  }();
  for (int tile = 0; tile < 4; ++tile) {
    const __m512i index =
        _mm512_add_epi16(_mm512_load_si512(kEveryFourth.data()), _mm512_set1_epi16(static_cast<short>(tile)));
    const __m512i low = _mm512_permutex2var_epi16(quarter[0], index, quarter[1]);
    const __m512i high = _mm512_permutex2var_epi16(quarter[2], index, quarter[3]);
    _mm512_store_si512(out + tile * tile_step, _mm512_mask_mov_epi64(low, 0xf0, high));
  }
}

void widen_codes(const std::byte* in, std::byte* out) {
  const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)in)));
  const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(in + 16))));
  _mm512_store_si512(out, to_bf16(low, high));
}

void transpose_tile(const std::byte* in, std::int64_t stride, std::byte* out) {
  for (int c = 0; c < 4; ++c) {
    __m512 rows[4];
    transpose_columns(in, c, rows, stride);
    for (int r = 0; r < 4; ++r) _mm512_store_ps(out + (4 * c + r) * kTileRowBytes, rows[r]);
  }
}

}  // namespace bise
