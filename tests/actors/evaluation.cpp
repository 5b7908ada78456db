#include "actors/evaluation.h"

#include <cmath>
#include <numeric>

#include "core/error.h"
#include "envs/witness.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::actors;
namespace witness = qanat::envs::witness;

namespace {

EvaluationOptions options_of(std::int64_t episodes, const char* environment_options) {
  EvaluationOptions options;
  options.environment.id = "witness";
  options.environment.options = environment_options;
  options.network.hidden = {8};
  options.episodes = episodes;
  options.seed = 5;
  return options;
}

nn::Weights weights_for(const EvaluationOptions& options) {
  const EpisodePlayer player(options);
  nn::Weights weights;
  weights.parameters.resize(nn::parameter_count(player.network()));
  Rng rng(3);
  nn::initialise(player.network(), rng, weights.parameters);
  return weights;
}

// By one player: the witness knows its slots by their places in one environment.
EvaluationResult play(const EvaluationOptions& options, const nn::Weights& weights) {
  EpisodePlayer player(options);
  player.begin(weights.view(), SeedPurpose::final_evaluation, 0);
  while (!player.done()) player.step();
  return player.result();
}

double witness_return(std::int64_t slot, std::int64_t episode, std::int64_t steps) {
  double sum = 0;
  for (std::int64_t t = 0; t < steps; ++t) sum += static_cast<double>(witness::reward(slot, episode, t));
  return sum;
}

}  // namespace

TEST_CASE("evaluation: each slot plays the episodes assigned to it, short or long, and returns are raw sums") {
  // 250 episodes on 100 slots: three for the first fifty, two for the others.
  const auto options = options_of(250, "dtype=f32,episodes=scripted");
  const auto result = play(options, weights_for(options));
  const witness::Rules rules{.scripted = true, .longest = 7};
  std::vector<double> returns;
  std::vector<std::int64_t> lengths;
  for (std::int64_t slot = 0; slot < 100; ++slot) {
    for (std::int64_t episode = 0; episode < (slot < 50 ? 3 : 2); ++episode) {
      lengths.push_back(witness::length(rules, 0, slot, episode));
      returns.push_back(witness_return(slot, episode, lengths.back()));
    }
  }
  CHECK(result.episodes == 250);
  CHECK(result.returns == returns);
  CHECK(result.lengths == lengths);
  const double mean = std::accumulate(returns.begin(), returns.end(), 0.0) / 250;
  double squares = 0;
  for (const double value : returns) squares += (value - mean) * (value - mean);
  // Sums of 250 doubles below 200: far below 1e-9.
  CHECK(std::abs(result.mean - mean) < 1e-9);
  CHECK(std::abs(result.standard_error - std::sqrt(squares / 249 / 250)) < 1e-9);
}

TEST_CASE("evaluation: an episode longer than the limit counts with its return so far") {
  auto options = options_of(3, "dtype=f32,longest=1000,episodes=scripted");
  options.max_steps = 2;
  const auto result = play(options, weights_for(options));
  const witness::Rules rules{.scripted = true, .longest = 1000};
  for (std::int64_t slot = 0; slot < 3; ++slot) {
    const auto steps = std::min<std::int64_t>(2, witness::length(rules, 0, slot, 0));
    CHECK(result.lengths[static_cast<std::size_t>(slot)] == steps);
    CHECK(result.returns[static_cast<std::size_t>(slot)] == witness_return(slot, 0, steps));
  }
  CHECK(result.lengths == std::vector<std::int64_t>{1, 2, 2});
}

TEST_CASE("evaluation: an episode without end is cut after 10000 steps") {
  const auto options = options_of(1, "dtype=f32,longest=1000000,episodes=stochastic");
  const auto result = evaluate(options, weights_for(options).view());
  CHECK(result.lengths == std::vector<std::int64_t>{10'000});
}

TEST_CASE("evaluation: the same purpose and round repeats, other ones play other episodes") {
  auto options = options_of(20, "");
  options.environment = {.id = "CartPole-v1"};
  const auto weights = weights_for(options);
  EpisodePlayer player(options);
  const auto play = [&](SeedPurpose purpose, std::uint64_t round) {
    player.begin(weights.view(), purpose, round);
    while (!player.done()) player.step();
    return player.result().returns;
  };
  const auto first = play(SeedPurpose::evaluation, 1);
  CHECK(play(SeedPurpose::evaluation, 2) != first);
  CHECK(play(SeedPurpose::final_evaluation, 1) != first);
  CHECK(play(SeedPurpose::evaluation, 1) == first);
}

TEST_CASE("evaluation: side by side, players play what one alone plays, whatever is explored") {
  auto options = options_of(130, "");
  options.environment = {.id = "CartPole-v1"};
  options.epsilon = GENERATE(0.0, 0.3);
  options.max_steps = 30;  // some are cut, and begin again from a seed of ours
  const auto weights = weights_for(options);
  const auto alone = play(options, weights);
  const auto together = evaluate(options, weights.view());
  CHECK(together.returns == alone.returns);
  CHECK(together.lengths == alone.lengths);
  CHECK(together.mean == alone.mean);
  CHECK(together.standard_error == alone.standard_error);
  std::vector<double> parts;
  for (const SlotRange share : {SlotRange{0, 1}, SlotRange{1, 60}, SlotRange{61, 39}}) {
    EpisodePlayer player(options, share);
    player.begin(weights.view(), SeedPurpose::final_evaluation, 0);
    while (!player.done()) player.step();
    const auto returns = player.result().returns;
    parts.insert(parts.end(), returns.begin(), returns.end());
  }
  CHECK(parts == alone.returns);
}

TEST_CASE("evaluation: normalised observations change what is played, never how its return is counted") {
  auto options = options_of(4, "dtype=f32");
  options.normalization = {.observations = true, .rewards = true};
  const auto missing = weights_for(options);
  CHECK_THROWS_WITH(evaluate(options, missing.view()),
                    Catch::Matchers::Contains("agent.normalize_observations is true"));
  auto weights = missing;
  nn::Normalization normalization(options.normalization, EpisodePlayer(options).network().input);
  const std::vector<float> returns{0, 1000};
  normalization.add_returns(reinterpret_cast<const std::byte*>(returns.data()), std::vector<std::uint32_t>{0, 1});
  weights.statistics = normalization.save();
  const auto result = play(options, weights);
  REQUIRE(result.returns.size() == 4);
  for (std::size_t slot = 0; slot < 4; ++slot) {
    CHECK(result.returns[slot] == witness_return(static_cast<std::int64_t>(slot), 0, result.lengths[slot]));
  }
}

TEST_CASE("evaluation: parameters of another network are refused") {
  const auto options = options_of(2, "dtype=f32");
  auto weights = weights_for(options);
  weights.parameters.pop_back();
  CHECK_THROWS_AS(evaluate(options, weights.view()), InputError);
}
