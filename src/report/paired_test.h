// Whether two models answered the same questions differently by more than chance. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bise {

struct PairedTest {
  std::string method;  // "McNemar, exact", "paired t", "normal, paired differences"
  std::int64_t samples = 0;
  double difference = 0;      // mean of this minus original
  double standard_error = 0;  // of that mean
  double p = 1;               // two-sided
  // Where one of them is right and the other wrong; McNemar only.
  std::int64_t gained = 0, lost = 0;
};

// Values of the same samples in the same order. Where all are 0 or 1: McNemar's test in its exact form, the
// binomial test of gained against lost (McNemar 1947; Dietterich 1998); else the paired t test. `original` is
// not empty.
PairedTest paired_test(const std::vector<double>& original, const std::vector<double>& other);

// The mean of several tests' mean differences, each task counting the same: normal, their variances added.
PairedTest mean_test(const std::vector<PairedTest>& tests);

// P(|X - n/2| >= |k - n/2|) for X binomial with n trials of 1/2: as scipy.stats.binomtest(k, n).
double binomial_p(std::int64_t k, std::int64_t n);
// P(|T| >= |t|) for Student's T: as 2 * scipy.stats.t.sf(|t|, freedom).
double student_p(double t, double freedom);

}  // namespace bise
