#include "core/stats.h"

#include "core/rng.h"
#include "tests/support/catch.h"

using namespace qanat;

TEST_CASE("stats: mean, variance and standard error of a hand-worked case") {
  RunningStats stats;
  for (const double x : {2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0}) stats.add(x);
  // Mean 5, squared distances 9+1+1+1+0+0+4+16 = 32.
  CHECK(stats.count() == 8);
  CHECK(stats.mean() == 5.0);
  CHECK(stats.variance() == Approx(32.0 / 7).epsilon(1e-15));
  CHECK(stats.standard_error() == Approx(std::sqrt(32.0 / 7 / 8)).epsilon(1e-15));
}

TEST_CASE("stats: too few values give NaN, not 0") {
  RunningStats stats;
  CHECK(std::isnan(stats.mean()));
  stats.add(3);
  CHECK(stats.mean() == 3.0);
  CHECK(std::isnan(stats.variance()));
  CHECK(std::isnan(stats.standard_error()));
}

TEST_CASE("stats: a large offset does not eat the variance") {
  // The sum of squares would be 1e18 + 2/3, beyond the 53 bits of a double.
  RunningStats stats;
  for (const double x : {1e9 - 1, 1e9, 1e9 + 1}) stats.add(x);
  CHECK(stats.variance() == Approx(1.0).epsilon(1e-9));
}

TEST_CASE("stats: merging is adding") {
  Rng rng(4);
  RunningStats whole;
  RunningStats left;
  RunningStats right;
  RunningStats empty;
  for (int i = 0; i < 1000; ++i) {
    const double x = rng.normal() + i * 0.01;
    whole.add(x);
    (i < 300 ? left : right).add(x);
  }
  left.merge(right);
  left.merge(empty);
  empty.merge(left);
  for (const auto& stats : {left, empty}) {
    CHECK(stats.count() == whole.count());
    // 1000 additions of numbers of size 10: at most 1000 roundings of 1e-16 each.
    CHECK(stats.mean() == Approx(whole.mean()).epsilon(1e-13));
    CHECK(stats.variance() == Approx(whole.variance()).epsilon(1e-13));
  }
}

TEST_CASE("stats: the recent mean forgets what is older, a NaN too") {
  RecentMean recent(3);
  CHECK(std::isnan(recent.mean()));
  recent.add(1);
  CHECK(recent.mean() == 1.0);
  for (const double x : {std::nan(""), 2.0, 3.0}) recent.add(x);
  CHECK(std::isnan(recent.mean()));
  recent.add(7);
  CHECK(recent.mean() == 4.0);
  CHECK(recent.count() == 3);
}
