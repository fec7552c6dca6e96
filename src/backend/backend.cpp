// What a backend need not have.
#include "backend/backend.h"

#include <algorithm>

#include "backend/gptq_solver.h"
#include "base/check.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

class HostRowStore final : public RowStore {
 public:
  HostRowStore(Backend& backend, std::int64_t rows, std::int64_t columns)
      : backend_(backend), columns_(columns), stored_(static_cast<std::size_t>(rows * columns)) {}

  void save(const Matrix& matrix, std::int64_t first) override {
    const std::span<bf16> rows = part(first, matrix.rows());
    values_.resize(rows.size());
    backend_.read(matrix, values_);
    std::transform(values_.begin(), values_.end(), rows.begin(), float_to_bf16);
  }
  void load(std::int64_t first, std::int64_t count, Matrix& matrix) override {
    const std::span<bf16> rows = part(first, count);
    values_.resize(rows.size());
    std::transform(rows.begin(), rows.end(), values_.begin(), bf16_to_float);
    backend_.write(values_, count, matrix);
  }

 private:
  std::span<bf16> part(std::int64_t first, std::int64_t count) {
    check(first >= 0 && count >= 0 && (first + count) * columns_ <= static_cast<std::int64_t>(stored_.size()),
          "the rows are in the store");
    return std::span(stored_).subspan(static_cast<std::size_t>(first * columns_),
                                      static_cast<std::size_t>(count * columns_));
  }

  Backend& backend_;
  std::int64_t columns_;
  std::vector<bf16> stored_;
  std::vector<float> values_;  // of one call
};

}  // namespace

std::unique_ptr<RowStore> Backend::make_row_store(std::int64_t rows, std::int64_t columns) {
  return std::make_unique<HostRowStore>(*this, rows, columns);
}

std::unique_ptr<GptqSolver> Backend::make_gptq_solver() {
  return nullptr;
}

void Backend::draw(const Matrix&, std::int64_t) {
  check(false, "this backend draws tokens");
}

void Backend::draw_edited(const Matrix&, std::span<const EditedDraw>) {
  check(false, "this backend draws tokens");
}

void Backend::read_drawn(std::span<std::int32_t>) {
  check(false, "this backend draws tokens");
}

void Backend::read_rows(const Matrix&, std::span<const std::int32_t>, std::span<float>) {
  check(false, "this backend draws tokens");
}

}  // namespace bise
