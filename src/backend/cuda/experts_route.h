// Which rows each expert computes, made on the device, and the rows brought into that order and back. The
// order is that of the rows within an expert, so it is the same however the kernels are scheduled.
#pragma once

#include "backend/cuda/cuda_kernels.h"

namespace bise::cuda {

constexpr std::int64_t kMostExperts = 16;

// Device memory. A row has `per_token` choices, in ascending order of their experts; choice i of row r is a
// pair, and pairs lie expert after expert, each expert's from a multiple of `alignment`. Pairs are counted in
// slices of 1 or 32 rows.
struct Routing {
  std::int32_t experts = 0, per_token = 0, alignment = 1, slice_rows = 1;
  std::int32_t* choices = nullptr;  // [rows, per_token] experts
  float* weights = nullptr;         // [rows, per_token] softmax over the chosen logits
  std::int32_t* ranks = nullptr;    // [rows, per_token] among the slice's pairs of that expert
  std::int32_t* places = nullptr;   // [rows, per_token] where the pair lies
  std::int32_t* slices = nullptr;   // [slices, experts] pairs of that expert in the slices before
  std::int32_t* counts = nullptr;   // [experts] pairs
  std::int32_t* starts = nullptr;   // [experts] where an expert's pairs begin
  std::int32_t* ticket = nullptr;   // zero at first; a launch leaves it zero
};

// All but `places`. Every row's experts: those of the largest logits, the first of equals.
// choose_by_product() makes the logits too, of bf16 rows `in` and a bf16 router [experts, in.stride]; it
// suits few rows and takes slices of 1 row. choose_by_logits() takes slices of 32.
void choose_by_product(Encoded in, std::int64_t rows, const void* router, const Routing& routing,
                       cudaStream_t stream);
void choose_by_logits(const float* logits, std::int64_t rows, const Routing& routing, cudaStream_t stream);

// What kFp8Tensor divides an expert's rows by.
struct ExpertScales {
  float of[kMostExperts] = {};
};
// Makes `places`, and brings the bf16 rows `in`, encoded, to the places of their pairs in `out`. The kernel
// that is started next may read counts and starts before it waits for this one.
void place_rows(Encoded in, std::int64_t rows, const Routing& routing, ExpertScales scales, Encoded out,
                cudaStream_t stream);
// Encodes each of `pairs` bf16 rows, which lie without gaps, `stride` apart.
void encode_pairs(const void* in, std::int64_t stride, std::int64_t pairs, const Routing& routing,
                  ExpertScales scales, Encoded out, cudaStream_t stream);
// out[r] = sum over i of weights[r, i] * in[places[r, i]], in ascending order of i.
void combine_pairs(Values in, std::int64_t rows, std::int64_t columns, const Routing& routing, Values out,
                   cudaStream_t stream);

}  // namespace bise::cuda
