// What a backend need not have.
#include "backend/backend.h"

#include "base/check.h"

namespace bise {

void Backend::draw(const Matrix&, std::int64_t) {
  check(false, "this backend draws tokens");
}

void Backend::read_drawn(std::span<std::int32_t>) {
  check(false, "this backend draws tokens");
}

void Backend::read_rows(const Matrix&, std::span<const std::int32_t>, std::span<float>) {
  check(false, "this backend draws tokens");
}

}  // namespace bise
