#include "learner/agent.h"

#include <cmath>

#include "core/rng.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::learner;

namespace {

constexpr std::size_t n = 3;

// Items with windows of 1 to 3 steps, some terminal, over rows whose content does not matter here.
replay::SampledBatch random_batch(Rng& rng, std::size_t size, std::int64_t actions) {
  replay::SampledBatch batch;
  batch.rows = 10;
  batch.columns = {std::vector<std::byte>(10 * 4), std::vector<std::byte>(10 * static_cast<std::size_t>(actions))};
  for (auto& byte : batch.columns[1]) byte = static_cast<std::byte>(rng.below(2));
  batch.table.stack = 2;
  batch.table.n_step = n;
  batch.table.resize(size);
  batch.items = 1000;
  for (std::size_t i = 0; i < size; ++i) {
    batch.table.steps[i] = static_cast<std::uint8_t>(1 + rng.below(n));
    batch.table.terminal[i] = static_cast<std::uint8_t>(rng.below(2));
    for (std::size_t k = 0; k < batch.table.steps[i]; ++k)
      batch.table.rewards[i * n + k] = static_cast<float>(rng.normal() * 3);
    for (std::size_t k = 0; k < 2; ++k) {
      batch.table.state[i * 2 + k] = static_cast<std::uint32_t>(rng.below(10));
      batch.table.next_state[i * 2 + k] = static_cast<std::uint32_t>(rng.below(10));
    }
    batch.probability.push_back(rng.uniform(1e-5, 1e-2));
    batch.shard.push_back(0);
    batch.incarnations.push_back(1);
  }
  return batch;
}

}  // namespace

TEST_CASE("agent: returns, bootstraps and weights are those of the formulas, written out") {
  const bool clip = GENERATE(false, true);
  Rng rng(11);
  AgentConfig config;
  config.gamma = 0.9;
  config.reward_clip = clip ? 1.0 : 0.0;
  DqnAgent agent(config, 1e-3, 4, false);
  auto batch = random_batch(rng, 64, 4);
  const double beta = 0.55;
  const auto made = agent.prepare(batch, beta);
  REQUIRE(made.size == 64);
  double largest = 0;
  for (const double p : batch.probability) largest = std::max(largest, std::pow(1.0 / (1000 * p), beta));
  for (std::size_t i = 0; i < 64; ++i) {
    const auto reward = [&](std::size_t k) {
      const double r = batch.table.rewards[i * n + k];
      return clip ? std::min(1.0, std::max(-1.0, r)) : r;
    };
    const auto m = batch.table.steps[i];
    double expected = reward(0);
    if (m > 1) expected += 0.9 * reward(1);
    if (m > 2) expected += 0.81 * reward(2);
    // One rounding to f32 at the end.
    CHECK(std::abs(made.returns[i] - expected) <= 1e-6 * std::max(1.0, std::abs(expected)));
    const double bootstrap = batch.table.terminal[i] ? 0.0 : m == 1 ? 0.9 : m == 2 ? 0.81 : 0.729;
    CHECK(std::abs(made.bootstrap[i] - bootstrap) <= 1e-7);
    const double weight = std::pow(1.0 / (1000 * batch.probability[i]), beta) / largest;
    CHECK(std::abs(made.weight[i] - weight) <= 1e-6);
  }
}

TEST_CASE("agent: the rarest item of the batch has weight 1, and beta 0 gives every item weight 1") {
  Rng rng(12);
  DqnAgent agent(AgentConfig{}, 1e-3, 4, false);
  auto batch = random_batch(rng, 32, 4);
  const auto rarest = static_cast<std::size_t>(std::min_element(batch.probability.begin(), batch.probability.end()) -
                                               batch.probability.begin());
  CHECK(agent.prepare(batch, 0.7).weight[rarest] == 1.0F);
  const auto flat = agent.prepare(batch, 0);
  CHECK(std::all_of(flat.weight, flat.weight + 32, [](float w) { return w == 1.0F; }));
}

TEST_CASE("agent: the mask of the next state is that of the newest row of its stack") {
  Rng rng(13);
  DqnAgent agent(AgentConfig{}, 1e-3, 4, true);
  auto batch = random_batch(rng, 16, 4);
  const auto made = agent.prepare(batch, 0.5);
  REQUIRE(made.next_mask != nullptr);
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t a = 0; a < 4; ++a) {
      CHECK(made.next_mask[i * 4 + a] ==
            static_cast<std::uint8_t>(batch.columns[1][batch.table.next_state[i * 2 + 1] * 4 + a]));
    }
  }
}

TEST_CASE("agent: a priority is |td| and epsilon; the exponent is left to the shard") {
  DqnAgent agent(AgentConfig{}, 0.25, 4, false);
  const std::vector<float> td{0, 1, 4};
  const auto made = agent.priorities(td);
  CHECK(std::vector<float>(made.begin(), made.end()) == std::vector<float>{0.25F, 1.25F, 4.25F});
}
