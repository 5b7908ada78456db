#include "learner/agent.h"

#include <cmath>
#include <cstring>

#include "core/rng.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::learner;

namespace {

constexpr std::size_t n = 3;

wire::EnvironmentSchema environment(bool has_action_mask) {
  wire::EnvironmentSchema schema;
  schema.observations = {{{"x", DType::f32, {1}}, 0, 1}};
  schema.actions = 4;
  schema.has_action_mask = has_action_mask;
  return schema;
}

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
  DqnAgent agent(config, 1e-3, environment(false));
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
  DqnAgent agent(AgentConfig{}, 1e-3, environment(false));
  auto batch = random_batch(rng, 32, 4);
  const auto rarest = static_cast<std::size_t>(std::min_element(batch.probability.begin(), batch.probability.end()) -
                                               batch.probability.begin());
  CHECK(agent.prepare(batch, 0.7).weight[rarest] == 1.0F);
  const auto flat = agent.prepare(batch, 0);
  CHECK(std::all_of(flat.weight, flat.weight + 32, [](float w) { return w == 1.0F; }));
}

TEST_CASE("agent: the mask of the next state is that of the newest row of its stack") {
  Rng rng(13);
  DqnAgent agent(AgentConfig{}, 1e-3, environment(true));
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
  DqnAgent agent(AgentConfig{}, 0.25, environment(false));
  const std::vector<float> td{0, 1, 4};
  const auto made = agent.priorities(td);
  CHECK(std::vector<float>(made.begin(), made.end()) == std::vector<float>{0.25F, 1.25F, 4.25F});
}

namespace {

// Rows whose number is their content: f32 observations, then the mask, then the discounted return.
replay::SampledBatch numbered_batch(Rng& rng, std::size_t size, bool mask, bool with_return) {
  auto batch = random_batch(rng, size, 4);
  std::vector<float> observations, returns;
  for (int row = 0; row < 10; ++row) {
    observations.push_back(1e6F + static_cast<float>(row * row));
    returns.push_back(static_cast<float>(row) * 2.5F);
  }
  const auto bytes = [](const std::vector<float>& values) {
    const auto raw = std::as_bytes(std::span(values));
    return std::vector<std::byte>(raw.begin(), raw.end());
  };
  batch.columns[0] = bytes(observations);
  if (!mask) batch.columns.pop_back();
  if (with_return) batch.columns.push_back(bytes(returns));
  return batch;
}

struct Moments {
  double mean = 0, deviation = 0;
};

Moments moments_of(const std::vector<double>& values) {
  Moments out;
  for (const double value : values) out.mean += value / static_cast<double>(values.size());
  for (const double value : values)
    out.deviation += (value - out.mean) * (value - out.mean) / static_cast<double>(values.size());
  out.deviation = std::sqrt(out.deviation);
  return out;
}

float f32_at(const std::byte* rows, std::size_t row) {
  float value;
  std::memcpy(&value, rows + row * sizeof value, sizeof value);
  return value;
}

}  // namespace

TEST_CASE("agent: statistics are those of the drawn steps' newest observations and returns, over all batches") {
  Rng rng(21);
  AgentConfig config;
  config.gamma = 0.9;
  config.normalize_observations = config.normalize_rewards = true;
  DqnAgent agent(config, 1e-3, environment(true));
  std::vector<double> observations, returns;
  for (int k = 0; k < 3; ++k) {
    auto batch = numbered_batch(rng, 32, true, true);
    for (std::size_t i = 0; i < 32; ++i) {
      const auto row = batch.table.state[i * 2 + 1];
      observations.push_back(double{f32_at(batch.columns[0].data(), row)});
      returns.push_back(double{f32_at(batch.columns[2].data(), row)});
    }
    agent.add_to_statistics(batch);
    const auto seen = moments_of(observations);
    const auto scale = moments_of(returns).deviation;
    const auto raw = batch.columns[0];
    agent.normalize_rows(batch);
    const auto made = agent.prepare(batch, 0.5);
    REQUIRE(made.state.data == batch.columns[0].data());
    for (std::size_t row = 0; row < 10; ++row) {
      const double wanted = (double{f32_at(raw.data(), row)} - seen.mean) / seen.deviation;
      CHECK(double{f32_at(made.state.data, row)} == Approx(wanted).epsilon(1e-6).margin(1e-6));
    }
    for (std::size_t i = 0; i < 32; ++i) {
      double wanted = 0;
      for (std::size_t j = 0; j < batch.table.steps[i]; ++j)
        wanted += std::pow(0.9, j) * double{batch.table.rewards[i * n + j]} / scale;
      CHECK(double{made.returns[i]} == Approx(wanted).epsilon(1e-6).margin(1e-6));
      // The mask is still found beside the returns.
      const auto next = batch.table.next_state[i * 2 + 1];
      CHECK(made.next_mask[i * 4] == static_cast<std::uint8_t>(batch.columns[1][next * 4]));
    }
  }
  CHECK(agent.normalization().observation_moments().count() == 96);
  CHECK(agent.normalization().return_moments().count() == 96);
}

TEST_CASE("agent: normalised rows go where the trainer wants them, and stay in the batch when it has no wish") {
  Rng rng(22);
  AgentConfig config;
  config.normalize_observations = true;
  DqnAgent agent(config, 1e-3, environment(false));
  auto batch = numbered_batch(rng, 16, false, false);
  auto other = batch;
  agent.add_to_statistics(batch);
  std::vector<std::byte> memory(40);
  agent.normalize_rows(batch, [&](std::size_t bytes) {
    REQUIRE(bytes == memory.size());
    return std::span(memory);
  });
  CHECK(agent.prepare(batch, 0).state.data == memory.data());
  CHECK(agent.prepare(batch, 0).next_state.data == memory.data());
  agent.normalize_rows(other, [](std::size_t) { return std::span<std::byte>(); });
  CHECK(agent.prepare(other, 0).state.data == other.columns[0].data());
  CHECK(other.columns[0] == memory);
}

TEST_CASE("agent: without normalisation rows stay as they are, and nothing is gathered") {
  Rng rng(23);
  DqnAgent agent(AgentConfig{}, 1e-3, environment(false));
  auto batch = numbered_batch(rng, 16, false, false);
  const auto raw = batch.columns[0];
  agent.add_to_statistics(batch);
  agent.normalize_rows(batch);
  CHECK(batch.columns[0] == raw);
  CHECK(agent.normalization().save().empty());
}
