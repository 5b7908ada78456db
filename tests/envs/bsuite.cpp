// bsuite's deep sea and memory chain against hand-worked episodes.
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "envs/games/deep_sea.h"
#include "envs/games/memory_chain.h"
#include "envs/vector_env.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::envs;

namespace {

std::int32_t action_for(const DeepSea& game, bool rightwards) {
  const auto& s = game.state();
  return game.is_right(1, s.row, s.column) == rightwards ? 1 : 0;
}

struct Voyage {
  std::vector<int> columns;
  std::vector<float> rewards;
};

Voyage sail(DeepSea& game, const std::vector<bool>& rightwards, env::Rng& rng) {
  game.reset(rng);
  Voyage out;
  for (std::size_t i = 0; i < rightwards.size(); ++i) {
    const env::Outcome outcome = game.step(action_for(game, rightwards[i]), rng);
    CHECK(outcome.terminated == (i + 1 == rightwards.size()));
    out.columns.push_back(game.state().column);
    out.rewards.push_back(outcome.reward);
  }
  return out;
}

template <class Game, class T>
std::vector<T> observation(const Game& game) {
  std::size_t elements = 1;
  const env::Spec spec = game.spec();
  for (const std::int64_t extent : spec.observations[0].shape) elements *= static_cast<std::size_t>(extent);
  std::vector<T> out(elements, T{9});
  void* base = out.data();
  const env::Row::Column column{env::DTypeOf<T>::value, elements};
  game.observe(env::Row(&base, &column, 0));
  return out;
}

}  // namespace

TEST_CASE("deep_sea: right all the way pays 0.99, other ways their costs") {
  for (const char* options : {"size=4", "size=4, mapping_seed=7", "size=4, randomize_actions=false"}) {
    DeepSea game{env::Options(options)};
    env::Rng rng(1);
    const Voyage best = sail(game, {true, true, true, true}, rng);
    CHECK(best.columns == std::vector<int>{1, 2, 3, 3});
    CHECK(best.rewards == std::vector<float>{-0.0025f, -0.0025f, -0.0025f, 0.9975f});
    const Voyage mixed = sail(game, {false, true, true, false}, rng);
    CHECK(mixed.columns == std::vector<int>{0, 1, 2, 1});
    CHECK(mixed.rewards == std::vector<float>{0, -0.0025f, -0.0025f, 0});
    // In the right corner, but turned away from the chest.
    CHECK(sail(game, {true, true, true, false}, rng).rewards.back() == 0);
    CHECK(sail(game, {false, false, false, false}, rng).rewards == std::vector<float>(4, 0));
  }
}

TEST_CASE("deep_sea: the board shows the diver, and nothing after the end") {
  DeepSea game{env::Options("size=3")};
  env::Rng rng(1);
  game.reset(rng);
  CHECK(observation<DeepSea, std::uint8_t>(game) == std::vector<std::uint8_t>{1, 0, 0, 0, 0, 0, 0, 0, 0});
  static_cast<void>(game.step(action_for(game, true), rng));
  CHECK(observation<DeepSea, std::uint8_t>(game) == std::vector<std::uint8_t>{0, 0, 0, 0, 1, 0, 0, 0, 0});
  static_cast<void>(sail(game, {true, true, true}, rng));
  CHECK(observation<DeepSea, std::uint8_t>(game) == std::vector<std::uint8_t>(9, 0));
  const env::Image picture = game.render();
  CHECK((picture.height == 24 && picture.width == 24));
  CHECK(picture.rgb.size() == 3 * 24 * 24);
}

TEST_CASE("deep_sea: which action is right is drawn once from the mapping seed, about half each") {
  const DeepSea a{env::Options("size=30")}, b{env::Options("size=30, mapping_seed=42")},
      c{env::Options("size=30, mapping_seed=1")};
  int ones = 0, different = 0;
  for (int row = 0; row < 30; ++row) {
    for (int column = 0; column < 30; ++column) {
      REQUIRE(a.is_right(1, row, column) == b.is_right(1, row, column));
      REQUIRE(a.is_right(0, row, column) != a.is_right(1, row, column));
      ones += a.is_right(1, row, column);
      different += a.is_right(1, row, column) != c.is_right(1, row, column);
    }
  }
  CHECK(std::abs(ones - 450) < 75);  // binomial of 900: 5 standard errors of 15
  CHECK(std::abs(different - 450) < 75);
}

TEST_CASE("deep_sea: stochastic: steps to the right fail one time in size, corners get noise") {
  DeepSea game{env::Options("size=4, stochastic=true")};
  env::Rng rng(3);
  constexpr int voyages = 20'000;
  int straight = 0;
  double sum = 0, squares = 0;
  for (int i = 0; i < voyages; ++i) {
    game.reset(rng);
    env::Outcome outcome;
    int column = 0;
    for (int row = 0; row < 4; ++row) {
      column = game.state().column;
      outcome = game.step(action_for(game, true), rng);
      if (row < 3) REQUIRE(outcome.reward == -0.0025f);
    }
    if (column == 3) {
      ++straight;
      sum += static_cast<double>(outcome.reward) - 0.9975;
      squares += std::pow(static_cast<double>(outcome.reward) - 0.9975, 2);
    } else if (column != 0) {
      REQUIRE(outcome.reward == -0.0025f);
    }
  }
  const double p = 27.0 / 64;  // three steps, each with 3/4
  CHECK(std::abs(straight - voyages * p) < 5 * std::sqrt(voyages * p * (1 - p)));
  CHECK(std::abs(sum / straight) < 5 / std::sqrt(straight));
  CHECK(std::abs(squares / straight - 1) < 5 * std::sqrt(2.0 / straight));  // the variance of a normal's square is 2
}

TEST_CASE("memory_chain: the bit is shown once and wanted in the last step") {
  MemoryChain game{env::Options("memory_length=3")};
  for (const bool bit : {false, true}) {
    for (const std::int32_t answer : {0, 1}) {
      game.set_state({.bits = bit});
      using Shown = std::vector<float>;
      CHECK(observation<MemoryChain, float>(game) == Shown{1, 0, bit ? 1.0f : -1.0f});
      env::Outcome outcome = game.step(1 - answer);
      CHECK((outcome.reward == 0 && !outcome.terminated));
      CHECK(observation<MemoryChain, float>(game) == Shown{1 - 1.0f / 3, 0, 0});
      outcome = game.step(1 - answer);
      CHECK((outcome.reward == 0 && !outcome.terminated));
      CHECK(observation<MemoryChain, float>(game) == Shown{1 - 2.0f / 3, 0, 0});
      outcome = game.step(answer);
      CHECK(outcome.terminated);
      CHECK(outcome.reward == ((answer == 1) == bit ? 1 : -1));
      CHECK(observation<MemoryChain, float>(game) == Shown{0, 0, 0});
    }
  }
}

TEST_CASE("memory_chain: of several bits the last observation names the one that is wanted") {
  MemoryChain game{env::Options("memory_length=2, num_bits=3")};
  CHECK(game.spec().observations[0].shape == std::vector<std::int64_t>{5});
  for (std::uint64_t bits = 0; bits < 8; ++bits) {
    for (std::int32_t query = 0; query < 3; ++query) {
      game.set_state({.bits = bits, .query = query});
      const auto sign = [&](int i) { return (bits >> i & 1) != 0 ? 1.0f : -1.0f; };
      CHECK(observation<MemoryChain, float>(game) == std::vector<float>{1, 0, sign(0), sign(1), sign(2)});
      static_cast<void>(game.step(0));
      CHECK(observation<MemoryChain, float>(game) == std::vector<float>{0.5f, static_cast<float>(query), 0, 0, 0});
      CHECK(game.step(1).reward == sign(query));
    }
  }
}

TEST_CASE("memory_chain: bits and wanted numbers are drawn evenly, episodes have memory_length steps") {
  constexpr std::size_t slots = 2'000;
  const auto env = make({.id = "bsuite/memory_chain", .options = "memory_length=7, num_bits=4"}, slots);
  std::vector<std::uint64_t> seeds(slots);
  std::iota(seeds.begin(), seeds.end(), 5);
  env->reset(seeds);
  std::vector<float> first(slots * 6), last(slots * 6);
  std::memcpy(first.data(), env->observation(0).data(), first.size() * sizeof(float));
  const std::vector<std::int32_t> actions(slots, 1);
  for (int step = 0; step < 6; ++step) {
    env->step(actions);
    CHECK(std::accumulate(env->terminated().begin(), env->terminated().end(), 0) == 0);
  }
  std::memcpy(last.data(), env->observation(0).data(), last.size() * sizeof(float));
  env->step(actions);
  std::vector<int> ones(4), wanted(4);
  for (std::size_t slot = 0; slot < slots; ++slot) {
    CHECK(env->terminated()[slot] == 1);
    CHECK(env->episode_lengths()[slot] == 7);
    const auto query = static_cast<std::size_t>(last[slot * 6 + 1]);
    CHECK(env->episode_returns()[slot] == static_cast<double>(first[slot * 6 + 2 + query]));
    ++wanted[query];
    for (std::size_t i = 0; i < 4; ++i) ones[i] += first[slot * 6 + 2 + i] > 0;
  }
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(std::abs(ones[i] - 1000) < 5 * std::sqrt(2000 * 0.25));
    CHECK(std::abs(wanted[i] - 500) < 5 * std::sqrt(2000 * 0.25 * 0.75));
  }
}
