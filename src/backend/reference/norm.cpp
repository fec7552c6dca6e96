#include <cmath>
#include <numeric>

#include "backend/reference/reference_backend.h"
#include "base/check.h"
#include "tensor/float_types.h"

namespace bise {

void ReferenceBackend::add_rms_norm(const Matrix* delta, Matrix& residual, const DeviceTensor& weight,
                                    float eps, InputEncoding encoding, LinearInput& out,
                                    std::span<const std::int32_t> rows) {
  auto& stream = dynamic_cast<ReferenceMatrix&>(residual);
  auto& encoded = dynamic_cast<ReferenceLinearInput&>(out);
  check(out.columns() == stream.columns(), "a norm keeps the number of columns");
  if (delta) {
    const auto& addend = dynamic_cast<const ReferenceMatrix&>(*delta);
    check(addend.rows() == stream.rows() && addend.columns() == stream.columns(),
          "the delta has the residual's shape");
    for (std::int64_t i = 0; i < stream.rows() * stream.columns(); ++i)
      stream.values[static_cast<std::size_t>(i)] += addend.values[static_cast<std::size_t>(i)];
  }
  const auto columns = static_cast<std::size_t>(stream.columns());
  std::vector<float> gain(columns), normed(columns);
  to_float(dynamic_cast<const ReferenceTensor&>(weight).tensor, gain);
  std::vector<std::int32_t> all;
  if (rows.empty()) {
    all.resize(static_cast<std::size_t>(stream.rows()));
    std::iota(all.begin(), all.end(), 0);
    rows = all;
  }
  encoded.resize(static_cast<std::int64_t>(rows.size()), encoding.type);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    check(rows[r] >= 0 && rows[r] < stream.rows(), "a normed row is in the residual");
    const std::span<const float> x = stream.row(rows[r]);
    double squares = 0;
    for (const float value : x) squares += static_cast<double>(value) * static_cast<double>(value);
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(columns) + static_cast<double>(eps));
    for (std::size_t c = 0; c < columns; ++c)
      normed[c] = static_cast<float>(static_cast<double>(x[c]) * inverse * static_cast<double>(gain[c]));
    encoded.encode_row(static_cast<std::int64_t>(r), normed, encoding);
  }
}

}  // namespace bise
