// What holds for all five MinAtar games: their frozen ends, action sets and sticky actions, and a random policy against
// its published mean return and length.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "core/rng.h"
#include "envs/games/asterix.h"
#include "envs/games/breakout.h"
#include "envs/games/freeway.h"
#include "envs/games/seaquest.h"
#include "envs/games/space_invaders.h"
#include "envs/vector_env.h"
#include "tests/envs/trial.h"

using namespace qanat;
using namespace qanat::envs;

TEMPLATE_TEST_CASE("MinAtar: after its end a game is frozen until reset", "", Asterix, Breakout, Freeway, Seaquest,
                   SpaceInvaders) {
  Trial<TestType> game("sticky=0");
  for (int step = 0; !game.ended(); ++step) game.step(step % 6);
  const auto ended = game.state();
  const float total = game.total();
  for (std::int32_t action = 0; action < 6; ++action) game.step(action);
  CHECK(game.ended());
  CHECK(game.total() == total);
  auto now = game.state();
  now.last_action = ended.last_action;
  CHECK(now == ended);
  game.game().reset(game.rng());
  CHECK(game.state().ended == 0);
}

TEMPLATE_TEST_CASE("MinAtar: the sticky probability is the share of repeats, over resets but not over seeds", "",
                   Asterix, Breakout, Freeway, Seaquest, SpaceInvaders) {
  TestType game{env::Options("sticky=0.25")};
  env::Rng rng(1);
  game.reset(rng);
  CHECK(game.state().last_action == 0);
  int repeats = 0;
  constexpr int steps = 100'000;
  for (int i = 0; i < steps; ++i) {
    const std::int32_t before = game.state().last_action;
    const bool ended = game.step((before + 1) % 6, rng).terminated;
    const std::int32_t last = game.state().last_action;
    repeats += last == before;
    if (!ended) continue;
    game.reset(rng);
    REQUIRE(game.state().last_action == last);
  }
  // Binomial, 5 standard errors.
  CHECK(std::abs(static_cast<double>(repeats) / steps - 0.25) < 5 * std::sqrt(0.25 * 0.75 / steps));
  game.seed(9);
  CHECK(game.state().last_action == 0);
}

TEMPLATE_TEST_CASE("MinAtar: minimal actions are the ones used, in their order", "", Asterix, Breakout, Freeway,
                   Seaquest, SpaceInvaders) {
  const std::string id = TestType::id;
  const std::vector<std::int32_t> used = id == "MinAtar/asterix"    ? std::vector<std::int32_t>{0, 1, 2, 3, 4}
                                         : id == "MinAtar/breakout" ? std::vector<std::int32_t>{0, 1, 3}
                                         : id == "MinAtar/freeway"  ? std::vector<std::int32_t>{0, 2, 4}
                                         : id == "MinAtar/seaquest" ? std::vector<std::int32_t>{0, 1, 2, 3, 4, 5}
                                                                    : std::vector<std::int32_t>{0, 1, 3, 5};
  CHECK(TestType{env::Options("")}.spec().action.n == 6);
  Trial<TestType> minimal("sticky=0, minimal_actions=true");
  REQUIRE(minimal.game().spec().action.n == static_cast<std::int64_t>(used.size()));
  for (std::size_t i = 0; i < used.size(); ++i) {
    minimal.step(static_cast<std::int32_t>(i));
    CHECK(minimal.state().last_action == used[i]);
  }
}

TEST_CASE("MinAtar: only games with a ramp have the option") {
  for (const char* id : {"MinAtar/asterix", "MinAtar/seaquest", "MinAtar/space_invaders"}) {
    CHECK(make({.id = id, .options = "ramping=false"}, 1)->slots() == 1);
  }
  for (const char* id : {"MinAtar/breakout", "MinAtar/freeway"}) {
    CHECK_THROWS_WITH(make({.id = id, .options = "ramping=false"}, 1),
                      Catch::Matchers::Contains("unknown option ramping"));
  }
}

namespace {

struct Mean {
  double value = 0, error = 0;
};

Mean mean_of(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, std::sqrt(squares / (n - 1) / n)};
}

// 10,000 episodes of a uniformly random policy: the first 100 of each of 100 slots, so that short ones do not crowd
// out long ones. Return and length.
std::pair<Mean, Mean> random_policy(const EnvConfig& config) {
  constexpr std::size_t slots = 100;
  constexpr std::size_t each = 100;
  const auto env = make(config, slots);
  std::vector<std::uint64_t> seeds(slots);
  std::iota(seeds.begin(), seeds.end(), 1000);
  env->reset(seeds);
  Rng rng(42);
  std::vector<std::int32_t> actions(slots);
  std::vector<std::size_t> done(slots);
  std::vector<double> returns, lengths;
  while (returns.size() < slots * each) {
    for (auto& action : actions) {
      action = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(env->spec().action.n)));
    }
    env->step(actions);
    for (std::size_t slot = 0; slot < slots; ++slot) {
      if (env->terminated()[slot] == 0 || done[slot] == each) continue;
      ++done[slot];
      returns.push_back(env->episode_returns()[slot]);
      lengths.push_back(static_cast<double>(env->episode_lengths()[slot]));
    }
  }
  return {mean_of(returns), mean_of(lengths)};
}

struct Published {
  const char* game;
  const char* options;
  double mean, error;            // of the return
  double length, length_digits;  // digits: one unit in the last place of the length
  double episodes;
};

}  // namespace

TEST_CASE("MinAtar: a random policy's mean return and length are the published ones") {
  const char* minimal = "minimal_actions=true";
  for (const Published& published : {
           Published{"asterix", "", 0.4840, 0.0084, 69.5, 0.1, 10'000},
           Published{"asterix", minimal, 0.5139, 0.0087, 67.0, 0.1, 10'000},
           Published{"breakout", "", 0.5085, 0.0074, 11.19, 0.01, 10'000},
           Published{"breakout", minimal, 0.3757, 0.0064, 9.83, 0.01, 10'000},
           Published{"freeway", "", 0.1350, 0.0081, 2501, 0, 2'000},
           Published{"freeway", minimal, 0.4025, 0.0142, 2501, 0, 2'000},
           Published{"seaquest", "", 0.0988, 0.0038, 30.4, 0.1, 10'000},
           Published{"space_invaders", "", 2.8705, 0.0234, 51.5, 0.1, 10'000},
           Published{"space_invaders", minimal, 4.1107, 0.0323, 59.6, 0.1, 10'000},
       }) {
    const auto [total, length] =
        random_policy({.id = std::string("MinAtar/") + published.game, .options = published.options});
    INFO(published.game << " " << published.options << ": return " << total.value << " +- " << total.error
                        << ", length " << length.value << " +- " << length.error);
    CHECK(std::abs(total.value - published.mean) < 4 * std::hypot(total.error, published.error));
    // The length's own error is not published; it is taken to be ours, scaled to the number of episodes. Half a unit
    // in the last place is its rounding.
    const double published_error = length.error * std::sqrt(10'000 / published.episodes);
    CHECK(std::abs(length.value - published.length) <=
          4 * std::hypot(length.error, published_error) + published.length_digits / 2);
  }
}
