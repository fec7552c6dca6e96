// How int4 weights lie on the device: blocks of 64 rows by 128 columns, all blocks of 64 rows one after
// another, each holding its codes, its scales and its zero points, so that one copy brings all of them.
//
// Codes (offset by 8): [2 halves of 64 columns][128 threads][4 steps of 16 columns] words, where the word of
// thread (warp w, g = lane / 4, t = lane % 4) has in nibble i of its low and high 16 bits the columns 2 t and
// 2 t + 1, plus 8 where i >= 2, of row 16 w + g, plus 8 where i is odd: operand A of a warpgroup product.
// Scales [groups of the block][64 rows], zero points int8 of the same shape.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace bise::cuda {

struct Weight;

// How scales are stored: the smallest type that holds them exactly. kNone: one scale a row, kept elsewhere.
enum class PanelScale { kNone, kBf16, kF16, kF32 };

constexpr int kPanelCodeBytes = 64 * 128 / 2;

struct Int4Panels {
  const void* data = nullptr;
  int block_bytes = 0;
  PanelScale scale = PanelScale::kNone;
  int group_columns = 128;  // of a block that share a scale and a zero point
  int zero_offset = 0;      // in a block
  bool has_zeros = false;
};

// Weights of WeightFormat::kInt4 with groups of 32, 64 or a multiple of 128 columns, or one to a row.
bool supports_panels(const Weight& weight);
// Waits for `stream`. `scratch` is 4 bytes of device memory.
PanelScale exact_panel_scale(const Weight& weight, void* scratch, cudaStream_t stream);
// Without data.
Int4Panels panels_of(const Weight& weight, PanelScale scale);
std::size_t panel_bytes(const Weight& weight, const Int4Panels& panels);
// From the rows of a weight of WeightFormat::kInt4.
void make_panels(const Weight& weight, const Int4Panels& panels, void* out, cudaStream_t stream);
// The weight's values as bf16 [rows, stride], of a weight of WeightFormat::kInt4Panels.
void dequantize_panels(const Weight& weight, void* out, cudaStream_t stream);

}  // namespace bise::cuda
