// The maths of one sample, against values worked by hand.
#include "nn/td.h"

#include <limits>

#include "tests/support/catch.h"

namespace qanat::nn {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

TEST_CASE("td: rescaling and its inverse undo each other at every size, sign and epsilon") {
  for (const double epsilon : {0.0, 1e-3, 1e-2, 1.0}) {
    for (const double x : {0.0, 1e-9, 1e-3, 0.5, 1.0, 100.0, 1e6}) {
      CAPTURE(epsilon, x);
      // A handful of double operations, none of which cancels.
      CHECK(unrescale_value(rescale_value(x, epsilon), epsilon) == Approx(x).epsilon(1e-13).margin(0));
      CHECK(unrescale_value(rescale_value(-x, epsilon), epsilon) == Approx(-x).epsilon(1e-13).margin(0));
    }
  }
}

TEST_CASE("td: rescaling gives the paper's values") {
  CHECK(rescale_value(3.0, 0.0) == Approx(1.0));      // sqrt(4) - 1
  CHECK(rescale_value(-8.0, 0.01) == Approx(-2.08));  // -(sqrt(9) - 1) - 0.08
  CHECK(unrescale_value(1.0, 0.0) == Approx(3.0));    // 2^2 - 1
  CHECK(unrescale_value(-2.08, 0.01) == Approx(-8.0));
  // In f32 small values keep their digits; the textbook form loses four of seven here.
  CHECK(unrescale_value(rescale_value(1e-3f, 1e-3f), 1e-3f) == Approx(1e-3f).epsilon(1e-6).margin(0));
}

TEST_CASE("td: the target is the return plus the discounted next value") {
  CHECK(td_target(1.5, 0.5, 4.0, {.rescale = false}) == Approx(3.5));
  // With epsilon 0: h^-1(1) = 3, 6.5 + 0.5 * 3 = 8, h(8) = 2.
  CHECK(td_target(6.5, 0.5, 1.0, {.rescale = true, .rescale_epsilon = 0}) == Approx(2.0));
}

TEST_CASE("td: a zero bootstrap selects, so that NaN in the next value never leaks") {
  CHECK(td_target(1.5, 0.0, nan, {}) == 1.5);
  CHECK(td_target(3.0, 0.0, nan, {.rescale = true, .rescale_epsilon = 0}) == Approx(1.0));
  CHECK(std::isnan(td_target(1.5, 0.9, nan, {})));
}

TEST_CASE("td: Huber's loss is a parabola within delta and a line outside, with a continuous gradient") {
  const TdOptions options{.huber = true, .huber_delta = 2};
  CHECK(td_terms(1.0, 2.5, options).td == 1.5);
  CHECK(td_terms(1.0, 2.5, options).loss == Approx(1.125));
  CHECK(td_terms(1.0, 2.5, options).gradient == Approx(-1.5));
  CHECK(td_terms(1.0, 6.0, options).loss == Approx(2 * (5 - 1)));
  CHECK(td_terms(1.0, 6.0, options).gradient == -2);
  CHECK(td_terms(1.0, -4.0, options).loss == Approx(2 * (5 - 1)));
  CHECK(td_terms(1.0, -4.0, options).gradient == 2);
  CHECK(td_terms(1.0, 6.0, {.huber = false}).loss == Approx(12.5));
  CHECK(td_terms(1.0, 6.0, {.huber = false}).gradient == -5);
  CHECK(std::isnan(td_terms(nan, 6.0, options).loss));
  CHECK(std::isnan(td_terms(nan, 6.0, options).gradient));
}

TEST_CASE("td: the argmax takes the first of equals, among allowed actions only") {
  const double q[] = {1, 5, 3, 5};
  const std::uint8_t odd[] = {1, 0, 1, 0};
  const std::uint8_t none[] = {0, 0, 0, 0};
  CHECK(masked_argmax(q, 1, nullptr, 4) == 1);
  CHECK(masked_argmax(q, 1, odd, 4) == 2);
  CHECK(masked_argmax(q, 2, nullptr, 2) == 1);  // reads q[0] and q[2]
  CHECK(masked_argmax(q, 1, none, 4) == 0);
}

}  // namespace
}  // namespace qanat::nn
