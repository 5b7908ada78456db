// Goodness of fit for tests of sampling.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

namespace qanat::test {

// Pearson's statistic of counts against probabilities that sum to 1. A category of probability 0 that was seen makes it
// infinite.
inline double chi_square(std::span<const std::uint64_t> counts, std::span<const double> probabilities) {
  double total = 0;
  for (const std::uint64_t count : counts) total += static_cast<double>(count);
  double statistic = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = total * probabilities[i];
    const double difference = static_cast<double>(counts[i]) - expected;
    if (difference != 0) statistic += difference * difference / expected;
  }
  return statistic;
}

// What the statistic exceeds with probability 1e-6 (Wilson and Hilferty, 1931; good to a percent for these degrees).
// Stratified draws vary less than independent ones, so the false-alarm rate is lower still.
inline double chi_square_limit(double degrees) {
  const double z = 4.7534;
  const double variance = 2 / (9 * degrees);
  return degrees * std::pow(1 - variance + z * std::sqrt(variance), 3);
}

}  // namespace qanat::test
