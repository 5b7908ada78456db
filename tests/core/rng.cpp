#include "core/rng.h"

#include "tests/support/catch.h"

using namespace qanat;

TEST_CASE("rng: the first draws of a seed are the published generator's") {
  // xoshiro256++ with state {1, 2, 3, 4}: first outputs from the authors' reference implementation.
  Rng rng;
  rng.set_state({1, 2, 3, 4});
  CHECK(rng.next() == 41943041ULL);
  CHECK(rng.next() == 58720359ULL);
  CHECK(rng.next() == 3588806011781223ULL);
  CHECK(rng.next() == 3591011842654386ULL);
}

TEST_CASE("rng: below(n) is uniform") {
  Rng rng(7);
  std::array<int, 6> counts{};
  const int draws = 600'000;
  for (int i = 0; i < draws; ++i) ++counts[rng.below(6)];
  double chi2 = 0;
  for (const int count : counts) chi2 += (count - 1e5) * (count - 1e5) / 1e5;
  CHECK(chi2 < 36.0);  // 5 degrees of freedom: p < 1e-6
}

TEST_CASE("rng: normal has mean 0 and variance 1") {
  Rng rng(8);
  double sum = 0;
  double squares = 0;
  const int draws = 1'000'000;
  for (int i = 0; i < draws; ++i) {
    const double x = rng.normal();
    sum += x;
    squares += x * x;
  }
  CHECK(std::abs(sum / draws) < 5e-3);            // five standard errors
  CHECK(std::abs(squares / draws - 1) < 7.1e-3);  // five standard errors of a chi-square mean
}

TEST_CASE("rng: derived seeds depend on each number and on their order") {
  CHECK(derive_seed(1, 2, 3) != derive_seed(1, 3, 2));
  CHECK(derive_seed(1, 2) != derive_seed(2, 2));
  CHECK(derive_seed(1, 2, 3) == derive_seed(1, 2, 3));
}
