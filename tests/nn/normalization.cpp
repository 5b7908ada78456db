// Running statistics against two passes over everything, and what is made of them against the formulas by hand.
#include "nn/normalization.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "tests/support/catch.h"
#include "tests/support/message_of.h"

namespace qanat::nn {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
const TensorSpec two_numbers{"x", DType::f32, {2}};

using Rows = std::vector<std::array<float, 2>>;

const std::byte* bytes_of(const Rows& rows) { return reinterpret_cast<const std::byte*>(rows.data()); }

std::vector<std::uint32_t> numbers(std::size_t first, std::size_t end) {
  std::vector<std::uint32_t> out(end - first);
  std::iota(out.begin(), out.end(), static_cast<std::uint32_t>(first));
  return out;
}

Rows random_rows(std::size_t count, std::array<double, 2> mean, std::array<double, 2> deviation) {
  Rng rng(5);
  Rows rows(count);
  for (auto& row : rows) {
    for (std::size_t e = 0; e < 2; ++e) row[e] = static_cast<float>(mean[e] + deviation[e] * rng.normal());
  }
  return rows;
}

struct TwoPasses {
  std::array<double, 2> mean{}, variance{};
};

TwoPasses two_passes(const Rows& rows) {
  TwoPasses out;
  for (std::size_t e = 0; e < 2; ++e) {
    long double sum = 0;
    for (const auto& row : rows) sum += row[e];
    const auto mean = sum / static_cast<long double>(rows.size());
    long double squares = 0;
    for (const auto& row : rows) squares += (row[e] - mean) * (row[e] - mean);
    out.mean[e] = static_cast<double>(mean);
    out.variance[e] = static_cast<double>(squares / static_cast<long double>(rows.size()));
  }
  return out;
}

std::vector<float> normalized(const Normalization& normalization, const Rows& rows) {
  std::vector<float> out(2 * rows.size());
  normalization.normalize(std::as_bytes(std::span(rows)), reinterpret_cast<std::byte*>(out.data()));
  return out;
}

Normalization of_rows(const Rows& rows, const NormalizationOptions& options = {.observations = true}) {
  Normalization out(options, two_numbers);
  out.add_observations(bytes_of(rows), numbers(0, rows.size()));
  return out;
}

// Of doubles whose errors do not add up in one direction: a few dozen roundings of 1e-16, and of the mean's own
// rounding 1e6 * 1e-16 beside a deviation of 1, squared away in the variance.
constexpr double tolerance = 1e-9;

TEST_CASE("normalisation: moments of batches of any size are those of two passes, far from 0 too") {
  const std::size_t batch = GENERATE(1, 7, 64, 5000);
  const auto rows = random_rows(5000, {1e6, -3}, {1, 1e-3});
  const auto wanted = two_passes(rows);
  RunningMoments moments(2);
  for (std::size_t first = 0; first < rows.size(); first += batch) {
    moments.add(bytes_of(rows), numbers(first, std::min(first + batch, rows.size())));
  }
  CHECK(moments.count() == rows.size());
  for (std::size_t e = 0; e < 2; ++e) {
    CHECK(moments.mean(e) == Approx(wanted.mean[e]).epsilon(1e-14).margin(0));
    CHECK(moments.variance(e) == Approx(wanted.variance[e]).epsilon(tolerance).margin(0));
  }
  // The tolerance tells the textbook's difference of sums apart.
  double sum = 0, squares = 0;
  for (const auto& row : rows) {
    sum += double{row[0]};
    squares += double{row[0]} * double{row[0]};
  }
  const auto count = static_cast<double>(rows.size());
  CHECK(std::abs(squares / count - sum / count * sum / count - wanted.variance[0]) > tolerance * wanted.variance[0]);
}

TEST_CASE("normalisation: merged moments are those of all rows together") {
  const auto rows = random_rows(3000, {1e6, 0.5}, {1, 20});
  const auto wanted = two_passes(rows);
  const std::size_t cut = GENERATE(0, 1, 1000, 3000);
  RunningMoments left(2), right(2);
  left.add(bytes_of(rows), numbers(0, cut));
  right.add(bytes_of(rows), numbers(cut, rows.size()));
  left.merge(right);
  CHECK(left.count() == rows.size());
  for (std::size_t e = 0; e < 2; ++e) {
    CHECK(left.mean(e) == Approx(wanted.mean[e]).epsilon(1e-14).margin(1e-14));
    CHECK(left.variance(e) == Approx(wanted.variance[e]).epsilon(tolerance).margin(0));
  }
}

TEST_CASE("normalisation: the rows named are added, as often as they are named, and no row that is not finite") {
  const Rows rows{{1, 10}, {nan, 2}, {3, 10}, {100, 100}, {5, infinity}};
  RunningMoments moments(2);
  moments.add(bytes_of(rows), std::vector<std::uint32_t>{0, 1, 2, 2, 4});
  CHECK(moments.count() == 3);
  CHECK(moments.mean(0) == Approx(7.0 / 3));
  CHECK(moments.variance(0) == Approx(8.0 / 9));  // of 1, 3, 3
  CHECK(moments.mean(1) == 10);
  CHECK(moments.variance(1) == 0);
}

TEST_CASE("normalisation: a number is centred, divided by its deviation and clipped, element by element") {
  const auto normalization = of_rows({{1, -100}, {3, 100}});  // means 2 and 0, deviations 1 and 100
  const auto out = normalized(normalization, {{2, 50}, {7, -3000}, {-20, 0}});
  const std::vector<float> wanted{0, 0.5F, 5, -10, -10, 0};
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == Approx(wanted[i]).epsilon(1e-6).margin(0));
  CHECK(normalized(of_rows({{1, 0}, {3, 0}}, {.observations = true, .clip = 0}), {{5002, 0}})[0] == Approx(5000));
}

TEST_CASE("normalisation: an element that never moved is 0, and its first change is clipped rather than huge") {
  const auto out = normalized(of_rows({{4, 1}, {4, 1}, {4, 1}}), {{4, 1}, {4.5F, 1}});
  CHECK(out == std::vector<float>{0, 0, 10, 0});
}

TEST_CASE("normalisation: before there are statistics numbers are only clipped") {
  const auto out = normalized(Normalization({.observations = true}, two_numbers), {{0.25F, -70}});
  CHECK(out[0] == Approx(0.25));
  CHECK(out[1] == -10);
}

TEST_CASE("normalisation: what is not finite becomes NaN and does not pass as a clipped number") {
  const auto out = normalized(of_rows({{1, 1}, {3, 3}}), {{infinity, -infinity}, {nan, 2}});
  CHECK(std::isnan(out[0]));
  CHECK(std::isnan(out[1]));
  CHECK(std::isnan(out[2]));
  CHECK(out[3] == 0);
}

TEST_CASE("normalisation: rows may be normalised in place") {
  const auto normalization = of_rows(random_rows(100, {5, 6}, {7, 8}));
  auto rows = random_rows(10, {5, 6}, {7, 8});
  const auto apart = normalized(normalization, rows);
  normalization.normalize(std::as_bytes(std::span(rows)), reinterpret_cast<std::byte*>(rows.data()));
  CHECK(std::memcmp(rows.data(), apart.data(), apart.size() * sizeof(float)) == 0);
}

TEST_CASE("normalisation: rewards are divided by the returns' deviation, without a mean, and clipped") {
  Normalization normalization({.rewards = true}, {"picture", DType::u8, {84, 84}});
  CHECK(normalization.reward_scale(0)(3) == Approx(3));  // nothing is known yet
  const std::vector<float> returns{10, 14, 10, 14};      // deviation 2
  normalization.add_returns(reinterpret_cast<const std::byte*>(returns.data()), numbers(0, 4));
  const auto counted = normalization.reward_scale(0);
  CHECK(counted(3) == Approx(1.5));
  CHECK(counted(-3) == Approx(-1.5));
  CHECK(counted(0) == 0);
  CHECK(counted(1000) == 10);
  CHECK(counted(-1000) == -10);
  CHECK(std::isnan(counted(std::numeric_limits<double>::quiet_NaN())));
}

TEST_CASE("normalisation: rewards that are not normalised are clipped as configured, and otherwise left as they are") {
  const Normalization none;
  CHECK(none.reward_scale(0)(1.0 / 3) == 1.0 / 3);
  CHECK(none.reward_scale(0.5)(-0.75) == -0.5);
  CHECK(none.reward_scale(0.5)(0.1) == 0.1);
}

TEST_CASE("normalisation: statistics come back bit for bit and go on alike") {
  const auto rows = random_rows(300, {1e6, 3}, {1, 2});
  const NormalizationOptions both{.observations = true, .rewards = true};
  auto saved = of_rows(rows, both);
  const std::vector<float> returns{1, 2, 4};
  saved.add_returns(reinterpret_cast<const std::byte*>(returns.data()), numbers(0, 3));
  Normalization loaded(both, two_numbers);
  loaded.load(saved.save(), "test");
  CHECK(loaded.save() == saved.save());
  CHECK(normalized(loaded, rows) == normalized(saved, rows));
  CHECK(loaded.reward_scale(0)(5) == saved.reward_scale(0)(5));
  loaded.add_observations(bytes_of(rows), numbers(0, 50));
  saved.add_observations(bytes_of(rows), numbers(0, 50));
  CHECK(loaded.save() == saved.save());
  CHECK(Normalization().save().empty());
}

TEST_CASE("normalisation: statistics of another setting are refused with the setting's name") {
  const Normalization observations({.observations = true}, two_numbers);
  const Normalization rewards({.rewards = true}, two_numbers);
  const auto refusal = [](const Normalization& from, NormalizationOptions options) {
    Normalization to(options, two_numbers);
    return message_of([&] { to.load(from.save(), "old.bin"); });
  };
  CHECK(refusal({}, {.observations = true}) ==
        "old.bin: the statistics of normalised observations are missing, wanted because agent.normalize_observations "
        "is true");
  CHECK(refusal(observations, {.observations = true, .rewards = true}) ==
        "old.bin: the statistics of normalised rewards are missing, wanted because agent.normalize_rewards is true");
  CHECK(refusal(observations, {}) ==
        "old.bin: it was trained on normalised observations, but agent.normalize_observations is false");
  CHECK(refusal(rewards, {}) == "old.bin: it was trained on normalised rewards, but agent.normalize_rewards is false");
  CHECK(refusal({}, {}) == "nothing was thrown");
}

TEST_CASE("normalisation: damaged statistics are refused, and those there stay") {
  const auto rows = random_rows(20, {1, 2}, {3, 4});
  auto normalization = of_rows(rows);
  const auto good = normalization.save();
  for (std::size_t size = 1; size < good.size(); ++size) {
    CHECK_THROWS_AS(normalization.load(std::span(good).first(size), "test"), InputError);
  }
  for (const double wrong : {-1.0, std::numeric_limits<double>::quiet_NaN(), double{infinity}}) {
    auto bad = good;
    std::memcpy(bad.data() + bad.size() - sizeof wrong, &wrong, sizeof wrong);
    CHECK_THROWS_AS(normalization.load(bad, "test"), InputError);
  }
  auto longer = good;
  longer.push_back(std::byte{0});
  CHECK_THROWS_AS(normalization.load(longer, "test"), InputError);
  Normalization wider({.observations = true}, {"x", DType::f32, {3}});
  CHECK_THROWS_AS(wider.load(good, "test"), InputError);
  CHECK(normalization.save() == good);
}

TEST_CASE("normalisation: u8 observations are refused by name, type and what is wanted") {
  const auto refusal = message_of([] {
    (void)Normalization({.observations = true}, {"picture", DType::u8, {84, 84}});
  });
  CHECK(refusal ==
        "agent.normalize_observations is true and the network reads picture u8 [84, 84], wanted f32 observations; u8 "
        "ones are scaled by network.input_scale");
}

}  // namespace
}  // namespace qanat::nn
