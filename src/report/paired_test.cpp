#include "report/paired_test.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace bise {
namespace {

// The continued fraction of the incomplete beta function by Lentz's method (Abramowitz and Stegun 26.5.8).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300, kEnough = 1e-15;
  constexpr int kMostSteps = 10000;
  const auto away_from_zero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), result = d;
  for (int m = 1; m < kMostSteps; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    result *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    result *= d * c;
    if (std::abs(d * c - 1) < kEnough) break;
  }
  return result;
}

// I_x(a, b), regularized.
double incomplete_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  // The fraction converges fast on this side of the mean.
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

bool is_right_or_wrong(double value) {
  return value == 0 || value == 1;
}

}  // namespace

double binomial_p(std::int64_t k, std::int64_t n) {
  const std::int64_t low = std::min(k, n - k);
  if (2 * low == n) return 1;
  double tail = 0;
  const auto count = static_cast<double>(n);
  for (std::int64_t i = 0; i <= low; ++i) {
    const auto hits = static_cast<double>(i);
    tail += std::exp(std::lgamma(count + 1) - std::lgamma(hits + 1) - std::lgamma(count - hits + 1) -
                     count * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

double student_p(double t, double freedom) {
  if (std::isinf(t)) return 0;
  return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t));
}

PairedTest paired_test(const std::vector<double>& original, const std::vector<double>& other) {
  check(!original.empty() && original.size() == other.size(), "a paired test has pairs");
  PairedTest test;
  const auto count = static_cast<double>(original.size());
  test.samples = static_cast<std::int64_t>(original.size());
  for (std::size_t i = 0; i < original.size(); ++i) test.difference += (other[i] - original[i]) / count;
  double squares = 0;
  for (std::size_t i = 0; i < original.size(); ++i) {
    const double rest = other[i] - original[i] - test.difference;
    squares += rest * rest;
    test.gained += other[i] > original[i];
    test.lost += other[i] < original[i];
  }
  test.standard_error = count > 1 ? std::sqrt(squares / (count - 1) / count) : 0;
  if (std::ranges::all_of(original, is_right_or_wrong) && std::ranges::all_of(other, is_right_or_wrong)) {
    test.method = "McNemar, exact";
    test.p = binomial_p(test.gained, test.gained + test.lost);
    return test;
  }
  test.method = "paired t";
  test.gained = test.lost = 0;
  if (test.standard_error > 0) {
    test.p = student_p(test.difference / test.standard_error, count - 1);
  } else {
    test.p = test.difference == 0 || count < 2 ? 1 : 0;
  }
  return test;
}

PairedTest mean_test(const std::vector<PairedTest>& tests) {
  check(!tests.empty(), "a mean is over something");
  PairedTest mean;
  mean.method = "normal, paired differences";
  const auto count = static_cast<double>(tests.size());
  double variance = 0;
  for (const PairedTest& test : tests) {
    mean.samples += test.samples;
    mean.difference += test.difference / count;
    variance += test.standard_error * test.standard_error;
  }
  mean.standard_error = std::sqrt(variance) / count;
  if (mean.standard_error > 0) {
    mean.p = std::erfc(std::abs(mean.difference / mean.standard_error) / std::sqrt(2.0));
  } else {
    mean.p = mean.difference == 0 ? 1 : 0;
  }
  return mean;
}

}  // namespace bise
