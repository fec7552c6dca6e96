#include "backend/cuda/experts.h"

#include <algorithm>

#include "backend/cuda/grouped_linear.h"
#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace {

// cuBLASLt takes operands and scales from addresses that are multiples of 16.
constexpr std::int64_t kPairAlignment = 16;
// Rows of one expert that pass through gate, up and down together.
constexpr std::int64_t kPieceRows = 4096;

template <class Buffer, class... Extra>
void fit(std::unique_ptr<Buffer>& buffer, std::int64_t rows, std::int64_t columns, Extra... extra) {
  if (!buffer || buffer->max_rows() < rows || buffer->columns() != columns)
    buffer = std::make_unique<Buffer>(rows, columns, extra...);
}

std::int64_t aligned(std::int64_t count, std::int64_t alignment) {
  return (count + alignment - 1) / alignment * alignment;
}

cuda::Encoded rows_from(cuda::Encoded encoded, std::int64_t first) {
  const std::int64_t value_bytes = encoded.encoding == cuda::Encoding::kBf16 ? 2 : 1;
  encoded.codes = static_cast<char*>(encoded.codes) + first * encoded.stride * value_bytes;
  if (encoded.scales) encoded.scales += first;
  return encoded;
}

cuda::Values rows_from(cuda::Values values, std::int64_t first, std::int64_t columns) {
  const std::int64_t value_bytes = values.type == cuda::Float::kBf16 ? 2 : 4;
  return {static_cast<char*>(values.data) + first * columns * value_bytes, values.type};
}

bool has_grouped_operands(const CudaLinearWeight& weight) {
  const cuda::WeightFormat format = weight.weight().format;
  return !weight.bias() && !weight.permutation() &&
         (weight.multiplies_codes() ||
          ((format == cuda::WeightFormat::kBf16 || format == cuda::WeightFormat::kInt4Panels) &&
           weight.input_type() == InputType::kNone));
}

}  // namespace

CudaExperts::Family CudaExperts::family_of(const std::vector<std::unique_ptr<LinearWeight>>& weights,
                                           bool gated) {
  Family family;
  family.input_type = weights.front()->input_type();
  family.is_grouped = family.one_encoding = true;
  for (std::size_t e = 0; e < weights.size(); ++e) {
    const auto& weight = dynamic_cast<const CudaLinearWeight&>(*weights[e]);
    family.weights.push_back(&weight);
    family.scales.of[e] = weight.input_scale();
    const cuda::Weight &own = weight.weight(), &first = family.weights.front()->weight();
    check(own.rows == first.rows && own.columns == first.columns, "experts have one shape");
    family.one_encoding &= weight.input_type() == family.input_type;
    family.is_grouped &=
        own.format == first.format && has_grouped_operands(weight) && cuda::supports_grouped(own, gated);
  }
  family.is_grouped &= family.one_encoding;
  return family;
}

cuda::Routing CudaExperts::route(const CudaLinearInput& in, const ExpertWeights& weights,
                                 std::int64_t alignment) {
  const auto experts = static_cast<std::int64_t>(weights.gate_up.size());
  const std::int64_t most = in.max_rows(), rows = in.rows(), pairs = most * weights.experts_per_token;
  const std::int64_t slices = std::max(std::min(most, cuda::kGroupedRows), (most + 31) / 32);
  routing_.grow(static_cast<std::size_t>(4 * pairs + (slices + 2) * experts) * sizeof(std::int32_t));
  if (ticket_.size() == 0) {
    ticket_.grow(sizeof(std::int32_t));
    cuda_check(cudaMemsetAsync(ticket_.as<void>(), 0, ticket_.size(), stream_), "cudaMemset");
  }
  auto* memory = routing_.as<std::int32_t>();
  const auto take = [&](std::int64_t count) {
    memory += count;
    return memory - count;
  };
  cuda::Routing routing;
  routing.experts = static_cast<std::int32_t>(experts);
  routing.per_token = static_cast<std::int32_t>(weights.experts_per_token);
  routing.alignment = static_cast<std::int32_t>(alignment);
  routing.choices = take(pairs);
  routing.weights = reinterpret_cast<float*>(take(pairs));
  routing.ranks = take(pairs);
  routing.places = take(pairs);
  routing.slices = take(slices * experts);
  routing.counts = take(experts);
  routing.starts = take(experts);
  routing.ticket = ticket_.as<std::int32_t>();
  const auto& router = dynamic_cast<const CudaLinearWeight&>(*weights.router);
  if (rows <= cuda::kGroupedRows && has_grouped_operands(router) &&
      router.weight().format == cuda::WeightFormat::kBf16) {
    routing.slice_rows = 1;
    cuda::choose_by_product(in.encoded(), rows, router.weight().codes, routing, stream_);
  } else {
    routing.slice_rows = 32;
    fit(logits_, most, experts, cuda::Float::kF32);
    operations_.linear(in, router, *logits_);
    cuda::choose_by_logits(static_cast<const float*>(logits_->values().data), rows, routing, stream_);
  }
  return routing;
}

void CudaExperts::run(const CudaLinearInput& in, const ExpertWeights& weights, CudaMatrix& out) {
  check(in.type() == InputType::kNone, "experts take the input unquantized");
  const auto experts = static_cast<std::int64_t>(weights.gate_up.size());
  check(experts == weights.router->rows() && weights.gate_up.size() == weights.down.size() &&
            weights.experts_per_token > 0 && weights.experts_per_token <= experts,
        "the router has a row per expert");
  if (experts > cuda::kMostExperts)
    throw Error("too many experts for the CUDA backend")
        .expected("at most " + std::to_string(cuda::kMostExperts))
        .got(std::to_string(experts));
  const std::int64_t rows = in.rows(), pairs = in.max_rows() * weights.experts_per_token;
  out.resize(rows);
  if (rows == 0) return;
  const Family gate_up = family_of(weights.gate_up, true), down = family_of(weights.down, false);
  const bool few = rows <= cuda::kGroupedRows;
  const bool is_grouped = few && gate_up.is_grouped && down.is_grouped;
  fit(placed_, pairs + experts * kPairAlignment, in.columns());
  fit(middle_,
      std::max(std::min(in.max_rows(), kPieceRows),
               std::min(in.max_rows(), cuda::kGroupedRows) * weights.experts_per_token),
      weights.down.front()->columns());
  // Of few rows in float32; many are bound by the memory that the results pass through.
  const cuda::Float type = few ? cuda::Float::kF32 : out.values().type;
  const std::int64_t few_pairs =
      std::min(in.max_rows(), cuda::kGroupedRows) * weights.experts_per_token + experts * kPairAlignment;
  results_.grow(static_cast<std::size_t>(
      out.columns() * std::max(4 * few_pairs, (type == cuda::Float::kBf16 ? 2 : 4) * placed_->max_rows())));
  const cuda::Routing routing = route(in, weights, is_grouped ? 1 : kPairAlignment);
  placed_->resize(is_grouped ? rows * weights.experts_per_token : placed_->max_rows(),
                  gate_up.one_encoding ? gate_up.input_type : InputType::kNone);
  cuda::place_rows(in.encoded(), rows, routing, gate_up.scales, placed_->encoded(), stream_);
  const cuda::Values results{results_.as<void>(), type};
  if (is_grouped)
    run_grouped(rows, gate_up, down, routing);
  else
    run_each(gate_up, down, routing, results);
  cuda::combine_pairs(results, rows, out.columns(), routing, out.values(), stream_);
}

void CudaExperts::run_grouped(std::int64_t rows, const Family& gate_up, const Family& down,
                              const cuda::Routing& routing) {
  const std::int64_t pairs = rows * routing.per_token;
  const auto launch = [&](const Family& family, const cuda::Encoded& in, bool gated, void* out,
                          std::int64_t out_stride) {
    cuda::GroupedLinear linear{.weights = {},
                               .in = in,
                               .rows = rows,
                               .pairs = pairs,
                               .gated = gated,
                               .out = out,
                               .out_stride = out_stride};
    for (std::size_t e = 0; e < family.weights.size(); ++e) linear.weights[e] = &family.weights[e]->weight();
    cuda::grouped_linear(linear, routing, stream_);
  };
  middle_->resize(pairs, down.input_type);
  const cuda::Encoded middle = middle_->encoded();
  if (down.input_type == InputType::kNone && middle.stride == middle.columns) {
    launch(gate_up, placed_->encoded(), true, middle.codes, middle.stride);
  } else {
    gate_up_.grow(static_cast<std::size_t>(middle_->max_rows() * middle.columns) * 2);
    launch(gate_up, placed_->encoded(), true, gate_up_.as<void>(), middle.columns);
    cuda::encode_pairs(gate_up_.as<void>(), middle.columns, pairs, routing, down.scales, middle, stream_);
  }
  launch(down, middle, false, results_.as<void>(), down.weights.front()->rows());
}

void CudaExperts::run_each(const Family& gate_up, const Family& down, const cuda::Routing& routing,
                           cuda::Values out) {
  std::array<std::int32_t, cuda::kMostExperts> counts = {};
  operations_.copy_to_host(routing.counts, counts.data(),
                           static_cast<std::size_t>(routing.experts) * sizeof(std::int32_t));
  // Few rows in float32, many in bf16, as in gated_linear().
  constexpr std::int64_t kFloatRows = 64;
  const std::int64_t most = middle_->max_rows();
  gate_up_.grow(static_cast<std::size_t>(std::max(4 * std::min(most, kFloatRows), 2 * most) *
                                         gate_up.weights.front()->rows()));
  if (!gate_up.one_encoding) fit(encoded_, middle_->max_rows(), placed_->columns());
  std::int64_t start = 0;
  for (std::size_t e = 0; e < gate_up.weights.size(); start += aligned(counts[e], routing.alignment), ++e) {
    for (std::int64_t first = 0; first < counts[e]; first += kPieceRows) {
      const std::int64_t rows = std::min(counts[e] - first, kPieceRows);
      cuda::Encoded in = rows_from(placed_->encoded(), start + first);
      if (!gate_up.one_encoding) {
        encoded_->resize(rows, gate_up.weights[e]->input_type());
        cuda::ExpertScales scales;
        std::fill(std::begin(scales.of), std::end(scales.of), gate_up.scales.of[e]);
        cuda::encode_pairs(in.codes, in.stride, rows, routing, scales, encoded_->encoded(), stream_);
        in = encoded_->encoded();
      }
      const cuda::Values both{gate_up_.as<void>(),
                              rows > kFloatRows ? cuda::Float::kBf16 : cuda::Float::kF32};
      operations_.multiply(in, rows, *gate_up.weights[e], both);
      middle_->resize(rows, down.weights[e]->input_type());
      cuda::gate_and_encode(both, rows, down.scales.of[e], middle_->encoded(), stream_);
      operations_.multiply(middle_->encoded(), rows, *down.weights[e],
                           rows_from(out, start + first, down.weights[e]->rows()));
    }
  }
}

}  // namespace bise
