#include "actors/exploration.h"

#include <array>
#include <cmath>

#include "actors/seeds.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::actors;

TEST_CASE("ladder: the first, a middle and the last slot have Ape-X's epsilons") {
  const ExplorationConfig config;  // 0.4^(1 + i / (N - 1) * 7)
  CHECK(epsilon_of(config, 0, 8, 0) == Approx(0.4).epsilon(1e-12));
  CHECK(epsilon_of(config, 1, 8, 0) == Approx(0.16).epsilon(1e-12));
  CHECK(epsilon_of(config, 7, 8, 0) == Approx(0.00065536).epsilon(1e-12));
  CHECK(epsilon_of(config, 3, 8, 123'456) == epsilon_of(config, 3, 8, 0));
}

TEST_CASE("ladder: one slot alone explores with the base, and slots beyond the ladder start again") {
  const ExplorationConfig config;
  CHECK(epsilon_of(config, 0, 1, 0) == Approx(0.4).epsilon(1e-12));
  CHECK(epsilon_of(config, 9, 8, 0) == epsilon_of(config, 1, 8, 0));
}

TEST_CASE("linear: epsilon falls with the whole run's env steps and then stays") {
  ExplorationConfig config;
  config.kind = "linear";
  config.linear_steps = 1000;
  CHECK(epsilon_of(config, 5, 8, 0) == 1.0);
  CHECK(epsilon_of(config, 5, 8, 500) == Approx(0.525).epsilon(1e-12));
  CHECK(epsilon_of(config, 5, 8, 1000) == Approx(0.05).epsilon(1e-12));
  CHECK(epsilon_of(config, 5, 8, 9999) == epsilon_of(config, 0, 8, 1000));
}

TEST_CASE("choose: greedy takes the largest allowed value, ties to the lowest index") {
  Rng rng(1);
  const std::array<float, 4> q{1, 3, 3, 2};
  CHECK(choose(q, nullptr, 0, rng).action == 1);
  const std::array<std::uint8_t, 4> mask{1, 0, 0, 1};
  const auto choice = choose(q, mask.data(), 0, rng);
  CHECK(choice.action == 3);
  CHECK(choice.best_q == 2.0f);
  CHECK(choice.taken_q == 2.0f);
}

TEST_CASE("choose: exploring is uniform over the allowed actions and keeps the greedy value") {
  Rng rng(7);
  const std::array<float, 4> q{1, 9, 3, 2};
  const std::array<std::uint8_t, 4> mask{1, 0, 1, 1};
  std::array<int, 4> counts{};
  constexpr int draws = 30'000;
  for (int i = 0; i < draws; ++i) {
    const auto choice = choose(q, mask.data(), 1, rng);
    ++counts[static_cast<std::size_t>(choice.action)];
    REQUIRE(choice.best_q == 3.0f);
    REQUIRE(choice.taken_q == q[static_cast<std::size_t>(choice.action)]);
  }
  CHECK(counts[1] == 0);
  // Binomial with p = 1/3: 5 standard deviations of sqrt(draws * 2/9) = 82.
  for (const int a : {0, 2, 3}) CHECK(std::abs(counts[static_cast<std::size_t>(a)] - draws / 3) < 410);
}

TEST_CASE("choose: an epsilon of 0.25 explores in a quarter of the steps") {
  Rng rng(11);
  const std::array<float, 2> q{0, 1};
  int other = 0;
  constexpr int draws = 40'000;
  for (int i = 0; i < draws; ++i) other += choose(q, nullptr, 0.25, rng).action == 0;
  // Half of the random actions are the greedy one: p = 1/8, 5 standard deviations of sqrt(draws * 7/64) = 66.
  CHECK(std::abs(other - draws / 8) < 331);
}

TEST_CASE("seeds: purposes never share one, whatever the other numbers are") {
  for (std::uint64_t i = 0; i < 1000; ++i) {
    CHECK(environment_seed(SeedPurpose::training, i, i) >> 62 == 0);
    CHECK(environment_seed(SeedPurpose::evaluation, i, i) >> 62 == 1);
    CHECK(environment_seed(SeedPurpose::final_evaluation, i, i) >> 62 == 2);
  }
  CHECK(environment_seed(SeedPurpose::training, 1, 2, 3) != environment_seed(SeedPurpose::training, 1, 3, 2));
}
