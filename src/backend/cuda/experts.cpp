#include "backend/cuda/experts.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace bise {
namespace {

template <class Buffer, class... Extra>
void fit(std::unique_ptr<Buffer>& buffer, std::int64_t rows, std::int64_t columns, Extra... extra) {
  if (!buffer || buffer->max_rows() < rows || buffer->columns() != columns)
    buffer = std::make_unique<Buffer>(rows, columns, extra...);
}

}  // namespace

// Every row's experts: those of the largest logits (the first of equals), weighted by the softmax over them.
void CudaExperts::choose(const ExpertWeights& weights, std::int64_t rows) {
  const std::int64_t experts = weights.router->rows();
  rows_of_expert_.assign(static_cast<std::size_t>(experts), {});
  weights_of_expert_.assign(static_cast<std::size_t>(experts), {});
  for (std::int64_t row = 0; row < rows; ++row) {
    float* logits = host_logits_.data() + row * experts;
    const float largest = *std::max_element(logits, logits + experts);
    float sum = 0;
    std::vector<std::size_t> chosen;
    for (std::int64_t i = 0; i < weights.experts_per_token; ++i) {
      const std::int64_t expert = std::max_element(logits, logits + experts) - logits;
      const float weight = std::exp(logits[expert] - largest);
      logits[expert] = -INFINITY;
      sum += weight;
      chosen.push_back(static_cast<std::size_t>(expert));
      rows_of_expert_[chosen.back()].push_back(static_cast<std::int32_t>(row));
      weights_of_expert_[chosen.back()].push_back(weight);
    }
    for (const std::size_t expert : chosen) weights_of_expert_[expert].back() /= sum;
  }
}

void CudaExperts::run(const CudaLinearInput& in, const ExpertWeights& weights, CudaMatrix& out) {
  check(in.type() == InputType::kNone, "experts take the input unquantized");
  const auto experts = static_cast<std::int64_t>(weights.gate_up.size());
  check(experts == weights.router->rows() && weights.gate_up.size() == weights.down.size() &&
            weights.experts_per_token > 0 && weights.experts_per_token <= experts,
        "the router has a row per expert");
  const std::int64_t most = in.max_rows(), rows = in.rows();
  fit(logits_, most, experts, cuda::Float::kF32);
  fit(result_, most, out.columns(), cuda::Float::kF32);
  fit(gathered_, most, in.columns());
  fit(middle_, most, weights.down.front()->columns());
  host_logits_.resize(static_cast<std::size_t>(rows * experts));
  operations_.linear(in, *weights.router, *logits_);
  operations_.read(*logits_, host_logits_);
  choose(weights, rows);
  out.resize(rows);
  // What several experts add to is float32, whatever the output is.
  const bool in_place = out.values().type == cuda::Float::kF32;
  if (!in_place) fit(sum_, most, out.columns(), cuda::Float::kF32);
  auto* sum = static_cast<float*>(in_place ? out.values().data : sum_->values().data);
  cuda_check(cudaMemsetAsync(sum, 0, static_cast<std::size_t>(rows * out.columns()) * sizeof(float), stream_),
             "cudaMemset");
  rows_.grow(static_cast<std::size_t>(most) * sizeof(std::int32_t));
  row_weights_.grow(static_cast<std::size_t>(most) * sizeof(float));
  for (std::size_t e = 0; e < rows_of_expert_.size(); ++e) {
    const auto count = static_cast<std::int64_t>(rows_of_expert_[e].size());
    if (count == 0) continue;
    // Pageable memory: the copies have left it when they return, and follow the kernels before them.
    cuda_check(cudaMemcpyAsync(rows_.as<void>(), rows_of_expert_[e].data(),
                               static_cast<std::size_t>(count) * sizeof(std::int32_t), cudaMemcpyHostToDevice,
                               stream_),
               "copying an expert's rows");
    cuda_check(
        cudaMemcpyAsync(row_weights_.as<void>(), weights_of_expert_[e].data(),
                        static_cast<std::size_t>(count) * sizeof(float), cudaMemcpyHostToDevice, stream_),
        "copying an expert's weights");
    const InputEncoding encoding = encoding_for(*weights.gate_up[e]);
    gathered_->resize(count, encoding.type);
    cuda::gather_rows(in.encoded(), rows_.as<std::int32_t>(), count, encoding.scale, gathered_->encoded(),
                      stream_);
    operations_.gated_linear(*gathered_, *weights.gate_up[e], encoding_for(*weights.down[e]), *middle_);
    operations_.linear(*middle_, *weights.down[e], *result_);
    cuda::add_scaled_rows(static_cast<const float*>(result_->values().data), rows_.as<std::int32_t>(),
                          row_weights_.as<float>(), count, out.columns(), sum, stream_);
  }
  if (!in_place) cuda::from_float(sum, rows * out.columns(), out.values(), stream_);
}

}  // namespace bise
