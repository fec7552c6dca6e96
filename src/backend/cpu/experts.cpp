#include "backend/cpu/experts.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace bise {
namespace {

// A new `buffer` when it holds fewer rows or has other columns.
template <class Buffer, class... Extra>
void fit(std::unique_ptr<Buffer>& buffer, std::int64_t rows, std::int64_t columns, Extra... extra) {
  if (!buffer || buffer->max_rows() < rows || buffer->columns() != columns)
    buffer = std::make_unique<Buffer>(rows, columns, extra...);
}

}  // namespace

void Experts::reserve(const CpuLinearInput& in, const ExpertWeights& weights, std::int64_t columns) {
  // Sized for any step of this input, not for this one.
  const std::int64_t rows = in.max_rows();
  fit(logits_, rows, weights.router->rows());
  fit(result_, rows, columns);
  fit(gathered_, rows, in.columns(), isa_, float_inputs_);
  fit(middle_, rows, weights.down.front()->columns(), isa_, float_inputs_);
  row_.resize(static_cast<std::size_t>(in.columns()));
  rows_of_expert_.resize(weights.gate_up.size());
  for (std::vector<Choice>& rows_of_one : rows_of_expert_) {
    rows_of_one.clear();
    rows_of_one.reserve(static_cast<std::size_t>(rows));
  }
}

// Every row's experts: those of the largest logits (the first of equals), weighted by the softmax over them.
void Experts::choose(const ExpertWeights& weights) {
  const std::int64_t experts = weights.router->rows();
  for (std::int64_t row = 0; row < logits_->rows(); ++row) {
    float* logits = logits_->row(row);
    const float largest = *std::max_element(logits, logits + experts);
    float sum = 0;
    std::int64_t chosen = 0;
    for (; chosen < weights.experts_per_token; ++chosen) {
      const std::int64_t expert = std::max_element(logits, logits + experts) - logits;
      const float weight = std::exp(logits[expert] - largest);
      logits[expert] = -INFINITY;
      sum += weight;
      rows_of_expert_[static_cast<std::size_t>(expert)].push_back({row, weight});
    }
    for (std::vector<Choice>& rows : rows_of_expert_)
      if (!rows.empty() && rows.back().row == row) rows.back().weight /= sum;
  }
}

void Experts::gather(const CpuLinearInput& in, const std::vector<Choice>& rows, InputEncoding encoding) {
  gathered_->begin(static_cast<std::int64_t>(rows.size()), encoding);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto to = static_cast<std::int64_t>(i);
    if (encoding.type == InputType::kNone) {
      gathered_->copy_row(to, in, rows[i].row);
    } else {
      in.decode_row(rows[i].row, row_.data());
      gathered_->encode_row(to, row_.data());
    }
  }
}

void Experts::run(const CpuLinearInput& in, const ExpertWeights& weights, CpuMatrix& out) {
  check(in.type() == InputType::kNone, "experts take the input unquantized");
  const auto experts = static_cast<std::int64_t>(weights.gate_up.size());
  check(experts == weights.router->rows() && weights.gate_up.size() == weights.down.size() &&
            weights.experts_per_token > 0 && weights.experts_per_token <= experts,
        "the router has a row per expert");
  reserve(in, weights, out.columns());
  linear(pool_, scratch_, in, *weights.router, *logits_);
  choose(weights);
  out.set_rows(in.rows());
  std::fill_n(out.data(), out.rows() * out.columns(), 0.0f);
  for (std::size_t e = 0; e < rows_of_expert_.size(); ++e) {
    const std::vector<Choice>& rows = rows_of_expert_[e];
    if (rows.empty()) continue;
    gather(in, rows, encoding_for(*weights.gate_up[e]));
    gated_linear(pool_, scratch_, *gathered_, *weights.gate_up[e], encoding_for(*weights.down[e]), *middle_);
    linear(pool_, scratch_, *middle_, *weights.down[e], *result_);
    for (std::size_t i = 0; i < rows.size(); ++i)
      kernels_.add_scaled(result_->row(static_cast<std::int64_t>(i)), rows[i].weight, out.row(rows[i].row),
                          out.columns());
  }
}

}  // namespace bise
