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

// Groups have at least the 32 columns of a tile; panels are filled up to 128 columns.
constexpr std::int64_t kMaxGroups = kPanelTiles + 12;

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

// Scales and zero points of the groups of one row that a panel touches, and a walk over its columns.
class PanelGroups {
 public:
  PanelGroups(const LinearPart& part, std::int64_t first, std::int64_t columns)
      : part_(part), size_(static_cast<std::uint32_t>(part.group_size)) {
    if (size_ == 0) return;
    const auto begin = static_cast<std::uint32_t>(first);
    first_group_ = begin / size_;
    offset_ = begin % size_;
    count_ = (offset_ + static_cast<std::uint32_t>(columns) + size_ - 1) / size_;
    groups_of_row_ = (static_cast<std::uint32_t>(part.stored.columns) + size_ - 1) / size_;
    const StoredLinear& stored = part.stored;
    if (!stored.zero_point.empty() || stored.scheme.strategy == Strategy::kBlock) return;
    if (part.format == RowFormat::kNf4)
      floats_ = stored.absmax.data<float>();
    else if (stored.scale.dtype() == DType::kBF16)
      halves_ = stored.scale.data<bf16>();
  }

  void load(std::int64_t row) {
    index_ = 0;
    column_ = offset_;
    if (halves_ || floats_) return load_symmetric(row * groups_of_row_ + first_group_);
    if (size_ == 0 && loaded_ && part_.stored.zero_point.empty()) return;
    part_.load_groups(row, first_group_, count_, scales, zero_points);
    loaded_ = true;
  }
  bool symmetric_bf16() const { return halves_ != nullptr; }
  // The group of the column that the walk has reached.
  std::uint32_t index() const { return index_; }
  void advance(std::uint32_t columns) {
    if (size_ == 0) return;
    for (column_ += columns; column_ >= size_; column_ -= size_) ++index_;
  }

  alignas(64) float scales[kMaxGroups] = {}, zero_points[kMaxGroups] = {};

 private:
  // The usual cases, vectorized: symmetric, with bf16 scales or NF4's float32. Whole vectors are stored,
  // since loads cannot be served from a masked store that is still on its way.
  void load_symmetric(std::int64_t begin) {
    for (std::uint32_t g = 0; g < count_; g += 16) {
      const auto mask = static_cast<__mmask16>((1u << std::min(16u, count_ - g)) - 1u);
      const __m512 values =
          floats_ ? _mm512_maskz_loadu_ps(mask, floats_ + begin + g)
                  : _mm512_castsi512_ps(_mm512_slli_epi32(
                        _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, halves_ + begin + g)), 16));
      _mm512_store_ps(scales + g, values);
    }
  }

  const LinearPart& part_;
  const std::uint32_t size_;  // 0: one scale for the whole row, applied elsewhere
  const bf16* halves_ = nullptr;
  const float* floats_ = nullptr;
  bool loaded_ = false;
  std::uint32_t first_group_ = 0, groups_of_row_ = 1, offset_ = 0, count_ = 1, index_ = 0, column_ = 0;
};

// Bytes, signed or (packed) offset by 128. A byte above the last one of 2^15 makes a float of 2^15 + code by
// itself. kFused: there are no zero points and scales are bf16, so that its distance to code * scale is exact
// and one fused step gives the same bits as two.
template <bool kOffset, bool kFused>
void unpack_int8(const LinearPart& part, const PanelRows& rows, PanelGroups& groups, std::byte* out,
                 std::int64_t tile_step) {
  const __m512i magic = _mm512_set1_epi32(0x47000000);
  const __m512 bias = _mm512_set1_ps(0x1p15f + 128);
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(kOffset ? 0 : 0x80));
  const __m512i step =
      _mm512_slli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 8);
  const auto quarter = [&](__m512i codes, int q) {
    const __m512i index = _mm512_add_epi32(step, _mm512_set1_epi32(q * 16 << 8));
    return _mm512_castsi512_ps(_mm512_mask_permutexvar_epi8(magic, 0x2222222222222222, index, codes));
  };
  const auto widened = [&](__m512i codes, int q) {
    const __m512 scale = _mm512_set1_ps(groups.scales[groups.index()]);
    const __m512 low = quarter(codes, q), high = quarter(codes, q + 1);
    if constexpr (kFused) {
      const __m512 shift = _mm512_mul_ps(scale, bias);
      return to_bf16(_mm512_fmsub_ps(low, scale, shift), _mm512_fmsub_ps(high, scale, shift));
    }
    const __m512 zero = _mm512_add_ps(bias, _mm512_set1_ps(groups.zero_points[groups.index()]));
    return to_bf16(_mm512_mul_ps(_mm512_sub_ps(low, zero), scale),
                   _mm512_mul_ps(_mm512_sub_ps(high, zero), scale));
  };
  for (std::int64_t r = 0; r < rows.count; ++r) {
    groups.load(rows.row + r);
    const std::byte* in = part.row(rows.row + r) + rows.first_column;
    std::byte* tile = out + r * kTileRowBytes;
    for (std::int64_t k = 0; k < rows.columns; k += 64, in += 64, tile += 2 * tile_step) {
      const __m512i codes = _mm512_xor_si512(mask_load(in, rows.columns - k), flip);
      _mm512_store_si512(tile, widened(codes, 0));
      groups.advance(32);
      if (k + 32 < rows.columns) _mm512_store_si512(tile + tile_step, widened(codes, 2));
      groups.advance(32);
    }
  }
}

template <bool kOffset>
void unpack_int8(const LinearPart& part, const PanelRows& rows, std::byte* out, std::int64_t tile_step) {
  PanelGroups groups(part, rows.first_column, rows.columns);
  groups.symmetric_bf16() ? unpack_int8<kOffset, true>(part, rows, groups, out, tile_step)
                          : unpack_int8<kOffset, false>(part, rows, groups, out, tile_step);
}

// The same with a scale for the whole row, applied elsewhere, and no zero points: the codes themselves. A
// byte in the last place of 2^23 becomes a float by one subtraction, and its upper half is exact.
template <bool kOffset>
void unpack_whole_int8(const LinearPart& part, const PanelRows& rows, std::byte* out,
                       std::int64_t tile_step) {
  const __m512i magic = _mm512_set1_epi32(0x4b000000);
  const __m512 offset = _mm512_set1_ps(0x1p23f + 128);
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(kOffset ? 0 : 0x80));
  // Every second byte from `first` on, to the lowest byte of a float.
  const __m512i step =
      _mm512_slli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 1);
  const auto every_second = [&](__m512i codes, int first) {
    const __m512i index = _mm512_add_epi32(step, _mm512_set1_epi32(first));
    return _mm512_sub_ps(
        _mm512_castsi512_ps(_mm512_mask_permutexvar_epi8(magic, 0x1111111111111111, index, codes)), offset);
  };
  const auto widened = [&](__m512i codes, int first) {
    const __m512i even = _mm512_castps_si512(every_second(codes, first));
    return _mm512_or_si512(_mm512_srli_epi32(even, 16), _mm512_castps_si512(every_second(codes, first + 1)));
  };
  for (std::int64_t r = 0; r < rows.count; ++r) {
    const std::byte* in = part.row(rows.row + r) + rows.first_column;
    std::byte* tile = out + r * kTileRowBytes;
    for (std::int64_t k = 0; k < rows.columns; k += 64, in += 64, tile += 2 * tile_step) {
      const __m512i codes = _mm512_xor_si512(mask_load(in, rows.columns - k), flip);
      _mm512_store_si512(tile, widened(codes, 0));
      if (k + 32 < rows.columns) _mm512_store_si512(tile + tile_step, widened(codes, 32));
    }
  }
}

__m512i scaled(__m512i bf16_values, float scale) {
  const __m512 factor = _mm512_set1_ps(scale);
  return to_bf16(_mm512_mul_ps(low_to_float(bf16_values), factor),
                 _mm512_mul_ps(high_to_float(bf16_values), factor));
}

void unpack_e4m3(const LinearPart& part, const PanelRows& rows, std::byte* out, std::int64_t tile_step) {
  const E4M3Table& table = e4m3_table();
  const __m512i low0 = _mm512_load_si512(&table.low[0]), low1 = _mm512_load_si512(&table.low[64]);
  const __m512i high0 = _mm512_load_si512(&table.high[0]), high1 = _mm512_load_si512(&table.high[64]);
  // Quarter-lanes in an order that the interleaving below turns back.
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
  PanelGroups groups(part, rows.first_column, rows.columns);
  for (std::int64_t r = 0; r < rows.count; ++r) {
    groups.load(rows.row + r);
    const std::byte* in = part.row(rows.row + r) + rows.first_column;
    std::byte* tile = out + r * kTileRowBytes;
    for (std::int64_t k = 0; k < rows.columns; k += 64, in += 64, tile += 2 * tile_step) {
      const __m512i codes = _mm512_permutexvar_epi64(order, mask_load(in, rows.columns - k));
      const __m512i low = _mm512_permutex2var_epi8(low0, codes, low1);
      const __m512i magnitude = _mm512_permutex2var_epi8(high0, codes, high1);
      const __m512i high =
          _mm512_ternarylogic_epi32(magnitude, codes, sign, 0xf8);  // magnitude | codes & sign
      __m512i first = _mm512_unpacklo_epi8(low, high), second = _mm512_unpackhi_epi8(low, high);
      if (part.group_size) {
        first = scaled(first, groups.scales[groups.index()]);
        groups.advance(32);
        second = scaled(second, groups.scales[groups.index()]);
        groups.advance(32);
      }
      _mm512_store_si512(tile, first);
      if (k + 32 < rows.columns) _mm512_store_si512(tile + tile_step, second);
    }
  }
}

// The group of each of 32 words of four codes, above the code in a table's index.
template <int kGroups>
struct GroupIndex {
  alignas(64) static constexpr auto kBits = [] {
    std::array<std::uint16_t, 32> bits{};
    for (std::size_t word = 0; word < 32; ++word)
      bits[word] = static_cast<std::uint16_t>(word * kGroups / 32 << 4);
    return bits;
  }();
};

// kGroups: groups in 128 columns (1 also for larger ones). kHighFirst: the even column is the high nibble.
template <int kGroups, bool kHighFirst, bool kZeroPoints>
void unpack_nibbles(const LinearPart& part, const PanelRows& rows, std::byte* out, std::int64_t tile_step) {
  const __m512 levels = _mm512_load_ps(part.levels.data());
  const __m512i nibble = _mm512_set1_epi16(15);
  const __m512i group_index = _mm512_load_si512(GroupIndex<kGroups>::kBits.data());
  PanelGroups groups(part, rows.first_column, rows.columns);
  for (std::int64_t r = 0; r < rows.count; ++r) {
    groups.load(rows.row + r);
    const std::byte* in = part.row(rows.row + r) + rows.first_column / 2;
    std::byte* tile = out + r * kTileRowBytes;
    for (std::int64_t k = 0; k < rows.columns; k += 128, in += 64, tile += 4 * tile_step) {
      const auto values_of = [&](std::int64_t g) {
        const __m512 shifted =
            kZeroPoints ? _mm512_sub_ps(levels, _mm512_set1_ps(groups.zero_points[g])) : levels;
        return _mm512_mul_ps(shifted, _mm512_set1_ps(groups.scales[g]));
      };
      const std::int64_t group = kGroups == 1 ? groups.index() : k / 128 * kGroups;
      const __m512i words = mask_load(in, (rows.columns - k + 1) / 2);
      const __m512 first_values = values_of(group);
      const __m512i table = to_bf16(first_values, kGroups == 1 ? first_values : values_of(group + 1));
      __m512i second_table = table;
      if constexpr (kGroups == 4) second_table = to_bf16(values_of(group + 2), values_of(group + 3));
      const auto lookup = [&](__m512i codes) {
        if constexpr (kGroups == 1) return _mm512_permutexvar_epi16(codes, table);  // both halves are equal
        const __m512i index =
            _mm512_ternarylogic_epi32(codes, nibble, group_index, 0xea);  // codes & nibble | group
        return kGroups == 2 ? _mm512_permutexvar_epi16(index, table)
                            : _mm512_permutex2var_epi16(table, index, second_table);
      };
      _mm512_store_si512(tile + (kHighFirst ? 1 : 0) * tile_step, lookup(words));
      _mm512_store_si512(tile + (kHighFirst ? 0 : 1) * tile_step, lookup(_mm512_srli_epi16(words, 4)));
      _mm512_store_si512(tile + (kHighFirst ? 3 : 2) * tile_step, lookup(_mm512_srli_epi16(words, 8)));
      _mm512_store_si512(tile + (kHighFirst ? 2 : 3) * tile_step, lookup(_mm512_srli_epi16(words, 12)));
      if constexpr (kGroups == 1) groups.advance(128);
    }
  }
}

template <int kGroups>
void unpack_int4(const LinearPart& part, const PanelRows& rows, std::byte* out, std::int64_t tile_step) {
  if (part.stored.zero_point.empty())
    unpack_nibbles<kGroups, false, false>(part, rows, out, tile_step);
  else
    unpack_nibbles<kGroups, false, true>(part, rows, out, tile_step);
}

// Formats without scales, and any other, one row at a time.
void unpack_plain(const LinearPart& part, bool integer, std::int64_t row, std::int64_t first,
                  std::int64_t columns, std::byte* out, std::int64_t tile_step) {
  const std::byte* in = part.row(row);
  if (integer) return copy_bytes(in + first, columns, out, tile_step);
  switch (part.format) {
    case RowFormat::kBF16: return copy_bytes(in + first * 2, columns * 2, out, tile_step);
    case RowFormat::kF16: return unpack_f16(in + first * 2, columns, out, tile_step);
    case RowFormat::kF32: return unpack_f32(in + first * 4, columns, out, tile_step);
    default: return unpack_any(part, row, first, columns, out, tile_step);
  }
}

}  // namespace

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

void unpack_rows(const LinearPart& part, bool integer, bool nibbles, const PanelRows& rows, std::byte* out,
                 std::int64_t tile_step) {
  const bool whole = part.group_size == 0 && part.stored.zero_point.empty();
  if (!integer && part.format == RowFormat::kInt8 && whole)
    return unpack_whole_int8<false>(part, rows, out, tile_step);
  if (part.format == RowFormat::kInt8Packed && whole)
    return unpack_whole_int8<true>(part, rows, out, tile_step);
  if (!integer && part.format == RowFormat::kInt8) return unpack_int8<false>(part, rows, out, tile_step);
  if (part.format == RowFormat::kInt8Packed) return unpack_int8<true>(part, rows, out, tile_step);
  if (part.format == RowFormat::kE4M3) return unpack_e4m3(part, rows, out, tile_step);
  if (nibbles && part.format == RowFormat::kNf4)
    return unpack_nibbles<2, true, false>(part, rows, out, tile_step);
  if (nibbles && part.format == RowFormat::kInt4Packed) {
    if (part.group_size == 32) return unpack_int4<4>(part, rows, out, tile_step);
    if (part.group_size == 64) return unpack_int4<2>(part, rows, out, tile_step);
    return unpack_int4<1>(part, rows, out, tile_step);
  }
  for (std::int64_t r = 0; r < rows.count; ++r)
    unpack_plain(part, integer, rows.row + r, rows.first_column, rows.columns, out + r * kTileRowBytes,
                 tile_step);
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

void transpose_nibbles(const std::byte* in, std::int64_t stride, std::byte* out, std::int64_t tile_step) {
  // Row r of the tiles is made of columns 8 r .. 8 r + 7, which are four pairs.
  const __mmask32 odd = 0xaaaaaaaa;
  for (int r = 0; r < 16; ++r, out += kTileRowBytes) {
    __m512 columns[4];
    transpose_columns(in + r / 4 * kTileRowBytes, r % 4, columns, stride);
    __m512i pairs[4];
    for (int i = 0; i < 4; ++i) pairs[i] = _mm512_castps_si512(columns[i]);
    for (int i = 0; i < 2; ++i) {
      _mm512_store_si512(out + 2 * i * tile_step,
                         _mm512_mask_mov_epi16(pairs[i], odd, _mm512_slli_epi32(pairs[i + 2], 16)));
      _mm512_store_si512(out + (2 * i + 1) * tile_step,
                         _mm512_mask_mov_epi16(_mm512_srli_epi32(pairs[i], 16), odd, pairs[i + 2]));
    }
  }
}

void transpose_tile(const std::byte* in, std::int64_t stride, std::byte* out) {
  for (int c = 0; c < 4; ++c) {
    __m512 rows[4];
    transpose_columns(in, c, rows, stride);
    for (int r = 0; r < 4; ++r) _mm512_store_ps(out + (4 * c + r) * kTileRowBytes, rows[r]);
  }
}

}  // namespace bise
