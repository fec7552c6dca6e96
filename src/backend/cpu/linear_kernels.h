// The linear layers of each instruction set; linear.cpp chooses. Internal to the linear layers.
#pragma once

#include "backend/cpu/linear.h"
#include "backend/cpu/linear_weight.h"

namespace bise {

// Shapes, types and out.begin() are done by the caller.
void amx_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                const CpuLinearWeight& weight, CpuMatrix& out);
void amx_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                      const CpuLinearWeight& gate_up, CpuLinearInput& out);

void avx512_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                   const CpuLinearWeight& weight, CpuMatrix& out);
void avx512_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                         const CpuLinearWeight& gate_up, CpuLinearInput& out);

void avx2_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                 const CpuLinearWeight& weight, CpuMatrix& out);
void avx2_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                       const CpuLinearWeight& gate_up, CpuLinearInput& out);

void scalar_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                   const CpuLinearWeight& weight, CpuMatrix& out);
void scalar_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                         const CpuLinearWeight& gate_up, CpuLinearInput& out);

}  // namespace bise
