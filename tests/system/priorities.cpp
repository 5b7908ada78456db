// First priorities: what actors send with their chunks is what the learner computes of the same items with the same
// weights.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "learner/agent.h"
#include "nn/backend.h"
#include "tests/support/catch.h"
#include "tests/system/world.h"

namespace qanat::system_test {
namespace {

constexpr double epsilon = 1e-3;

struct Switches {
  std::string environment;
  bool rescale = false;
  bool clip = false;
  bool normalize = false;
};

cli::RunConfig config_of(const Switches& switches) {
  cli::RunConfig config;
  config.seed = 21;
  config.env.id = switches.environment;
  // Masks too: the largest Q is that of the allowed actions.
  if (switches.environment == "witness") config.env.options = "dtype=f32,mask=true";
  config.network.hidden = {24, 24};
  config.network.dueling = true;
  config.agent.stack = 2;
  config.agent.n_step = 3;
  config.agent.gamma = 0.95;
  config.agent.value_rescale = switches.rescale;
  config.agent.reward_clip = switches.clip ? 0.75 : 0;  // below the rewards of both environments
  config.agent.normalize_observations = config.agent.normalize_rewards = switches.normalize;
  config.replay.shards = 2;
  config.replay.capacity_steps = 20'000;
  config.replay.min_size = 1;
  config.replay.ratio = 0;
  config.replay.priority_epsilon = epsilon;
  config.actors.count = 2;
  config.actors.slots = 8;
  config.actors.chunk_steps = 8;
  config.actors.exploration.kind = "constant";
  config.actors.exploration.constant = 0.3;
  config.learner.batch = 64;
  return config;
}

// |TD error| + epsilon by the learner's own means, target := online.
class Learner {
 public:
  // `config`: the world's, or a wrong one.
  Learner(const World& world, const learner::AgentConfig& config)
      : agent_(config, epsilon, world.schema), world_(world), backend_(nn::make_backend("reference")) {
    options_.batch = world.config.learner.batch;
    options_.td = config.td();
    if (config.normalize_observations) agent_.load_statistics(world.statistics, "the world's");
  }

  std::vector<float> priorities(replay::SampledBatch batch) {
    for (auto& action : batch.table.actions) action = without_mark(action);
    const auto trainer = backend_->trainer(world_.network, options_);  // a new one: the update is not wanted
    trainer->set_parameters(world_.parameters, world_.parameters);
    std::vector<float> td_abs(batch.size());
    agent_.normalize_rows(batch);
    trainer->submit(agent_.prepare(batch, 0.4), {.learning_rate = 1e-4});
    REQUIRE(trainer->collect(td_abs).finite);
    const auto out = agent_.priorities(td_abs);
    return {out.begin(), out.end()};
  }

 private:
  learner::DqnAgent agent_;
  const World& world_;
  std::unique_ptr<nn::Backend> backend_;
  nn::TrainerOptions options_;
};

// Statistics of some rows around the witness's numbers and of returns around its rewards.
std::vector<std::byte> some_statistics(const World& world) {
  nn::Normalization out(world.config.agent.normalization(), world.network.input);
  Rng rng(31);
  std::vector<float> numbers(64 * world.network.input.elements());
  for (auto& number : numbers) number = static_cast<float>(2 + 3 * rng.normal());
  std::vector<std::uint32_t> all(64);
  std::iota(all.begin(), all.end(), 0U);
  out.add_observations(reinterpret_cast<const std::byte*>(numbers.data()), all);
  out.add_returns(reinterpret_cast<const std::byte*>(numbers.data()), all);
  return out.save();
}

}  // namespace

TEST_CASE("priorities: an actor's first priorities are the learner's own for equal weights, and not constant",
          "[priorities]") {
  const auto environment = GENERATE(as<std::string>{}, "CartPole-v1", "witness");
  const auto rescale = GENERATE(false, true);
  const auto [clip, normalize] = GENERATE(std::pair{false, false}, std::pair{true, false}, std::pair{false, true});
  World world(config_of({environment, rescale, clip, normalize}), "ipc");
  if (normalize) {
    world.statistics = some_statistics(world);
    world.publish(2);
  }
  for (std::size_t i = 0; i < world.actors.size(); ++i) world.start_actor(i, static_cast<std::int64_t>(i) + 1);
  world.until([&] { return world.stored_rows() >= 2000; });

  Learner learner(world, world.config.agent);
  // What a learner with one switch the other way would want: the comparison must tell them apart.
  auto other_rescale = world.config.agent;
  other_rescale.value_rescale = !rescale;
  auto other_clip = world.config.agent;
  other_clip.reward_clip = clip ? 0 : 0.75;
  if (normalize) other_clip.normalize_observations = other_clip.normalize_rewards = false;
  std::array<Learner, 2> wrong = {Learner(world, other_rescale), Learner(world, other_clip)};
  std::array<double, 2> differences{};
  std::vector<float> actors_own;
  double largest_difference = 0;
  bool ends = false;
  world.draw(
      20,
      [&](const replay::SampledBatch& batch) {
        const auto wanted = learner.priorities(batch);
        for (std::size_t w = 0; w < wrong.size(); ++w) {
          const auto other = wrong[w].priorities(batch);
          for (std::size_t i = 0; i < batch.size(); ++i) {
            differences[w] = std::max(differences[w], double{std::abs(other[i] - wanted[i])});
          }
        }
        for (std::size_t i = 0; i < batch.size(); ++i) {
          const auto handle = batch.handle(i);
          const auto& place = world.logs[handle.shard].at(handle.generation);
          const auto sent = world.tape->priority(place.stream, place.row);
          REQUIRE(sent.has_value());  // no item is left to the shard's guess
          const auto held = world.shard(handle.shard).item(place.stream, place.row);
          REQUIRE(held.has_value());
          REQUIRE(held->priority == *sent);
          // Q-values of two backends: f32 sums of up to 24 products in another order, a few ulp of values below 100.
          const double scale = 1 + std::abs(wanted[i]);
          largest_difference = std::max(largest_difference, std::abs(*sent - wanted[i]) / scale);
          REQUIRE(*sent == Approx(wanted[i]).epsilon(2e-5).margin(2e-5));
          actors_own.push_back(*sent);
          ends |= batch.table.steps[i] < 3;
        }
      },
      0);
  CHECK(ends);
  for (const auto difference : differences) CHECK(difference > 0.01);
  // Far apart, compared with the tolerance above: equal by accident is out of the question.
  const auto [least, most] = std::minmax_element(actors_own.begin(), actors_own.end());
  CHECK(*most - *least > 0.05);
  std::sort(actors_own.begin(), actors_own.end());
  CHECK(std::unique(actors_own.begin(), actors_own.end()) - actors_own.begin() > 200);
  INFO("largest relative difference " << largest_difference);
  CHECK(largest_difference < 2e-5);
}

}  // namespace qanat::system_test
