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

TEST_CASE("evaluation: episodes are queued over the slots, short or long, and returns are raw sums") {
  // 7 episodes on 3 slots. A reset from a seed begins the witness's count of episodes anew, so each is its slot's
  // episode 0, of 1, 2 and 3 steps: slot 0 plays 0, 3, 5 and 6, for it is the first to be free; in the end slots that
  // are free at the same time take what is left in their order.
  auto options = options_of(7, "dtype=f32,episodes=scripted");
  options.slots = 3;
  const auto result = play(options, weights_for(options));
  const std::vector<std::int64_t> slot_of = {0, 1, 2, 0, 0, 1, 0};
  std::vector<double> returns;
  std::vector<std::int64_t> lengths;
  for (const auto slot : slot_of) {
    lengths.push_back(slot + 1);
    returns.push_back(witness_return(slot, 0, slot + 1));
  }
  CHECK(result.episodes == 7);
  CHECK(result.returns == returns);
  CHECK(result.lengths == lengths);
  CHECK(result.cut == 0);
  CHECK(result.left_out == 0);
  const double mean = std::accumulate(returns.begin(), returns.end(), 0.0) / 7;
  double squares = 0;
  for (const double value : returns) squares += (value - mean) * (value - mean);
  // Sums of 7 doubles below 50: far below 1e-9.
  CHECK(std::abs(result.mean - mean) < 1e-9);
  CHECK(std::abs(result.standard_error - std::sqrt(squares / 6 / 7)) < 1e-9);
}

TEST_CASE("evaluation: there are as many slots as allowed, at most one an episode, and never more than a hundred") {
  const auto slots = [](std::int64_t episodes, std::size_t most) {
    auto options = options_of(episodes, "dtype=f32");
    options.slots = most;
    return EpisodePlayer(options).environment().slots();
  };
  CHECK(slots(250, 16) == 16);
  CHECK(slots(5, 16) == 5);
  CHECK(slots(250, 0) == 100);
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
  CHECK(result.cut == 0);  // by the time
}

TEST_CASE("evaluation: when its time is over, what goes on is cut and counts, what was not begun is left out") {
  auto options = options_of(200, "dtype=f32,longest=1000000,episodes=stochastic");
  options.slots = 4;
  options.players = 2;
  options.max_steps = 1'000'000'000;
  options.max_seconds = 0.2;
  // Episodes that have ended before count whole. All of them are some hundred million steps: no machine makes so many
  // in the time.
  std::vector<EvaluationProgress> seen;
  const auto result =
      evaluate(options, weights_for(options).view(), [&](const EvaluationProgress& now) { seen.push_back(now); });
  CHECK(result.cut >= 1);
  CHECK(result.left_out >= 1);
  CHECK(result.episodes + result.left_out == 200);
  CHECK(result.returns.size() == static_cast<std::size_t>(result.episodes));
  REQUIRE(!seen.empty());
  CHECK(seen.back().steps > 0);
  CHECK(seen.back().steps <= std::accumulate(result.lengths.begin(), result.lengths.end(), std::int64_t{0}));
}

TEST_CASE("evaluation: of episodes cut by the time, one without a step yet is left out") {
  auto options = options_of(6, "dtype=f32,longest=5,episodes=scripted");
  options.slots = 2;
  EpisodePlayer player(options);
  const auto weights = weights_for(options);
  player.begin(weights.view(), SeedPurpose::final_evaluation, 0);
  player.step();  // slot 0's episode has one step: its second is begun
  CHECK(player.episodes_ended() == 1);
  player.cut();
  CHECK(player.done());
  const auto result = player.result();
  CHECK(result.lengths == std::vector<std::int64_t>{1, 1});
  CHECK(result.cut == 1);
  CHECK(result.left_out == 4);
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

TEST_CASE("evaluation: however many slots and players, the episodes are the same, whatever is explored") {
  auto options = options_of(130, "");
  options.environment = {.id = "CartPole-v1"};
  options.epsilon = GENERATE(0.0, 0.3);
  options.max_steps = 30;  // some are cut
  const auto weights = weights_for(options);
  const auto alone = play(options, weights);
  for (const auto& [slots, players] : {std::pair<std::size_t, std::size_t>{0, 0}, {1, 1}, {7, 3}, {130, 60}}) {
    INFO(slots << " slots, " << players << " players");
    options.slots = slots;
    options.players = players;
    const auto together = evaluate(options, weights.view());
    CHECK(together.returns == alone.returns);
    CHECK(together.lengths == alone.lengths);
    CHECK(together.mean == alone.mean);
    CHECK(together.standard_error == alone.standard_error);
  }
  std::vector<double> parts;
  for (const Share share : {Share{0, 1, 1}, Share{1, 60, 9}, Share{61, 69, 69}}) {
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
