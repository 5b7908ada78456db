#include "actors/actor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "actors/exploration.h"
#include "core/error.h"
#include "envs/witness.h"
#include "replay/stack.h"
#include "tests/actors/small_run.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::actors;
namespace witness = qanat::envs::witness;

namespace {

constexpr std::int64_t slots = 6;  // three a group
constexpr std::size_t stack_depth = 3;

ActorOptions options_of(double epsilon) {
  ActorOptions options;
  options.member = member_options(wire::Role::actor, 77);
  options.actors.slots = slots;
  options.actors.chunk_steps = 5;
  options.actors.exploration.kind = "constant";
  options.actors.exploration.constant = epsilon;
  options.environment = {.id = "witness", .options = "actor=9,dtype=f32,episodes=scripted,columns=2,mask=true"};
  options.agent.n_step = 3;
  options.agent.gamma = 0.9;
  options.network.hidden = {16};
  options.network.input_scale = 0.05;
  options.stack = stack_depth;
  options.seed = 4;
  return options;
}

nn::NetworkSpec network_for(const ActorOptions& options) {
  return network_of(options.network, envs::make(options.environment, 1)->spec(), options.stack);
}

// Where a stored row was taken, read from the observation itself.
struct Place {
  std::int64_t actor, slot, episode, t;
};

Place place_of(const StoredRow& row) {
  const auto x = row.get<float>(0);
  return {std::int64_t(x[0]), std::int64_t(x[1]), std::int64_t(x[2]), std::int64_t(x[3])};
}

// Every row of a whole stream against the witness's pure functions. Returns the env steps in it.
std::size_t check_rows(const StoredStream& stream) {
  const witness::Rules rules{.scripted = true, .longest = 7};
  const auto slot = place_of(stream.rows.at(0)).slot;
  std::int64_t episode = 0;
  std::int64_t t = 0;
  std::size_t steps = 0;
  for (const auto& row : stream.rows) {
    const auto seen = place_of(row);
    REQUIRE(seen.actor == 9);
    REQUIRE(seen.slot == slot);
    REQUIRE(seen.episode == episode);
    REQUIRE(seen.t == t);
    const std::vector<std::uint8_t> low{9, std::uint8_t(slot), std::uint8_t(episode), std::uint8_t(t)};
    REQUIRE(row.get<std::uint8_t>(1) == low);
    std::vector<std::uint8_t> mask;
    for (std::int64_t a = 0; a < witness::actions; ++a) mask.push_back(witness::allowed(slot, episode, t, a));
    REQUIRE(row.get<std::uint8_t>(4) == mask);
    const auto length = witness::length(rules, 0, slot, episode);
    if (t == length) {
      REQUIRE(row.flags() == replay::flag_last_observation);
      ++episode;
      t = 0;
      continue;
    }
    const auto end = witness::ending(rules, 0, slot, episode);
    std::uint8_t flags = t == 0 ? replay::flag_first : 0;
    if (t + 1 == length && end.terminated) flags |= replay::flag_terminated;
    if (t + 1 == length && end.truncated) flags |= replay::flag_truncated;
    REQUIRE(row.flags() == flags);
    REQUIRE(row.get<float>(3)[0] == witness::reward(slot, episode, t));
    REQUIRE(mask[static_cast<std::size_t>(row.get<std::int32_t>(2)[0])] == 1);
    ++t;
    ++steps;
  }
  return steps;
}

// What the actors are given to normalise by in these tests: f(x) = (x - mean) / deviation, and one factor for rewards.
// Far from the witness's own moments, so that each of the numbers shows.
struct Statistics {
  std::array<double, 4> mean{8, 2, 5, 1}, deviation{2, 0.5, 4, 3};
  double return_deviation = 2.5;

  // Of two rows a deviation off the mean, either way.
  [[nodiscard]] std::vector<std::byte> bytes(const ActorOptions& options) const {
    nn::Normalization out(options.agent.normalization, network_for(options).input);
    std::array<std::array<float, 4>, 2> rows{};
    for (std::size_t e = 0; e < 4; ++e) {
      rows[0][e] = static_cast<float>(mean[e] - deviation[e]);
      rows[1][e] = static_cast<float>(mean[e] + deviation[e]);
    }
    const std::array<float, 2> returns{0, static_cast<float>(2 * return_deviation)};
    const std::array<std::uint32_t, 2> both{0, 1};
    out.add_observations(reinterpret_cast<const std::byte*>(rows.data()), both);
    out.add_returns(reinterpret_cast<const std::byte*>(returns.data()), both);
    return out.save();
  }
  void apply(std::vector<std::byte>& rows) const {
    for (std::size_t i = 0; i * sizeof(float) < rows.size(); ++i) {
      float x;
      std::memcpy(&x, rows.data() + i * sizeof x, sizeof x);
      const double scaled = (double{x} - mean[i % 4]) / std::sqrt(deviation[i % 4] * deviation[i % 4] + 1e-8);
      x = static_cast<float>(std::max(-10.0, std::min(10.0, scaled)));
      std::memcpy(rows.data() + i * sizeof x, &x, sizeof x);
    }
  }
};

// Q-values of every row of a stream, stacked by the rule of replay/stack.h.
std::vector<std::vector<float>> q_of(const StoredStream& stream, const nn::NetworkSpec& network, std::uint64_t seed,
                                     const Statistics* statistics = nullptr) {
  std::vector<float> parameters(nn::parameter_count(network));
  Rng rng(seed);
  nn::initialise(network, rng, parameters);
  const auto inference = nn::make_backend("cpu")->inference(network, 1);
  inference->set_parameters(parameters);
  std::vector<std::byte> data;
  for (const auto& row : stream.rows) data.insert(data.end(), row.columns[0].begin(), row.columns[0].end());
  if (statistics != nullptr) statistics->apply(data);
  std::vector<std::vector<float>> out;
  std::uint64_t first = 0;
  for (std::uint64_t t = 0; t < stream.rows.size(); ++t) {
    if (stream.rows[t].flags() & replay::flag_first) first = t;
    std::array<std::uint32_t, stack_depth> index{};
    for (std::uint32_t k = 0; k < stack_depth; ++k) {
      index[k] = static_cast<std::uint32_t>(replay::stack_row(t, first, stack_depth, k));
    }
    std::vector<float> q(witness::actions);
    inference->forward({data.data(), static_cast<std::int64_t>(stream.rows.size()), index.data()}, 1, q);
    out.push_back(q);
  }
  return out;
}

float best_of(const StoredRow& row, const std::vector<float>& q) {
  return q[static_cast<std::size_t>(nn::masked_argmax(q.data(), 1, row.get<std::uint8_t>(4).data(), witness::actions))];
}

// |TD| of the item at `start`, from the stored rows alone. Nothing when the stream does not complete it.
std::optional<double> priority_of(const StoredStream& stream, const std::vector<std::vector<float>>& q,
                                  const AgentView& agent, std::size_t start, double reward_factor = 1) {
  double sum = 0;
  double discount = 1;
  std::size_t t = start;
  bool terminated = false;
  while (t < stream.rows.size() && t < start + static_cast<std::size_t>(agent.n_step) &&
         !(stream.rows[t].flags() & replay::flag_last_observation)) {
    sum += discount * reward_factor * static_cast<double>(stream.rows[t].get<float>(3)[0]);
    discount *= agent.gamma;
    terminated = stream.rows[t].flags() & replay::flag_terminated;
    ++t;
  }
  if (t == stream.rows.size()) return std::nullopt;
  if (!terminated) sum += discount * static_cast<double>(best_of(stream.rows[t], q[t]));
  const auto action = static_cast<std::size_t>(stream.rows[start].get<std::int32_t>(2)[0]);
  return std::abs(sum - static_cast<double>(q[start][action])) + agent.priority_epsilon;
}

}  // namespace

TEST_CASE("actor: every step of every slot is stored once, as the witness made it, over both shards") {
  SmallRun run;
  const auto options = options_of(1.0);
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network_for(options), 1, 8);
  run.until(actor, [&] { return actor.steps() >= 3000; });
  run.head.request_stop("enough");
  run.until(actor, [&] { return actor.finished(); });
  std::size_t steps = 0;
  std::multiset<std::int64_t> seen;
  for (const auto& shard : run.shards) {
    CHECK(shard->store.streams.size() == slots / 2);
    for (const auto& [id, stream] : shard->store.streams) {
      steps += check_rows(stream);
      seen.insert(place_of(stream.rows[0]).slot);
    }
  }
  CHECK(steps == actor.steps());
  CHECK(seen == std::multiset<std::int64_t>{0, 0, 1, 1, 2, 2});  // slots count from 0 in each group
  CHECK(actor.writer().dropped_steps() == 0);
}

TEST_CASE("actor: first priorities are the learner's TD errors of the stored rows, and are not constant") {
  SmallRun run;
  const auto options = options_of(0.5);
  const auto network = network_for(options);
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network, 1, 8);
  run.until(actor, [&] { return actor.steps() >= 1200; });
  run.head.request_stop("enough");
  run.until(actor, [&] { return actor.finished(); });
  std::set<float> different;
  std::size_t items = 0;
  for (const auto& shard : run.shards) {
    for (const auto& [id, stream] : shard->store.streams) {
      const auto q = q_of(stream, network, 8);
      for (std::size_t start = 0; start < stream.rows.size(); ++start) {
        const bool step = !(stream.rows[start].flags() & replay::flag_last_observation);
        const auto wanted = step ? priority_of(stream, q, options.agent, start) : std::nullopt;
        const auto found = stream.priorities.find(start);
        REQUIRE((found != stream.priorities.end()) == wanted.has_value());
        if (!wanted) continue;
        // The same f32 Q-values (a sample does not depend on its batch); then a few roundings of numbers below 64.
        REQUIRE(std::abs(static_cast<double>(found->second) - *wanted) < 64 * 4 * 6e-8);
        different.insert(found->second);
        ++items;
      }
    }
  }
  CHECK(items > 1100);
  CHECK(different.size() > items / 2);
}

TEST_CASE("actor: with normalisation it acts and prices by the statistics that came with the weights, and stores raw") {
  SmallRun run;
  auto options = options_of(0);
  options.agent.normalization = {.observations = true, .rewards = true};
  options.network.input_scale = 1;
  const auto network = network_for(options);
  const Statistics statistics;
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network, 1, 8, statistics.bytes(options));
  run.until(actor, [&] { return actor.steps() >= 1200; });
  run.head.request_stop("enough");
  run.until(actor, [&] { return actor.finished(); });
  std::size_t items = 0, others = 0, returns = 0;
  for (const auto& shard : run.shards) {
    for (const auto& [id, stream] : shard->store.streams) {
      check_rows(stream);
      const auto q = q_of(stream, network, 8, &statistics);
      const auto raw = q_of(stream, network, 8);
      double discounted = 0;
      for (std::size_t t = 0; t < stream.rows.size(); ++t) {
        const auto& row = stream.rows[t];
        if (row.flags() & replay::flag_last_observation) continue;
        const auto action = row.get<std::int32_t>(2)[0];
        // The expression of the test and of nn::Normalization may round apart by an ulp of numbers up to 10.
        REQUIRE(q[t][static_cast<std::size_t>(action)] == Approx(best_of(row, q[t])).margin(1e-4));
        others += raw[t][static_cast<std::size_t>(action)] < best_of(row, raw[t]) - 1e-4F;
        if (row.flags() & replay::flag_first) discounted = 0;
        discounted = double{row.get<float>(3)[0]} + options.agent.gamma * discounted;
        REQUIRE(row.get<float>(5)[0] == static_cast<float>(discounted));
        ++returns;
        const auto wanted = priority_of(stream, q, options.agent, t, 1 / std::sqrt(2.5 * 2.5 + 1e-8));
        const auto found = stream.priorities.find(t);
        REQUIRE((found != stream.priorities.end()) == wanted.has_value());
        if (!wanted) continue;
        REQUIRE(double{found->second} == Approx(*wanted).margin(1e-4));
        ++items;
      }
    }
  }
  CHECK(items > 1100);
  CHECK(returns >= 1200);
  CHECK(others > 20);  // of raw observations these would not have been the best actions
}

TEST_CASE("actor: weights without the statistics that its settings want end it, with the setting's name") {
  SmallRun run(1);
  auto options = options_of(0.5);
  options.agent.normalization.observations = true;
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network_for(options), 1, 8);
  const auto go = [&] {
    for (int i = 0; i < 300; ++i) {
      run.step();
      (void)actor.step();
    }
  };
  CHECK_THROWS_WITH(go(), Catch::Matchers::Contains("agent.normalize_observations is true"));
}

TEST_CASE("actor: without exploration it takes the best allowed action of the stacked observation") {
  SmallRun run(1);
  const auto options = options_of(0);
  const auto network = network_for(options);
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network, 1, 8);
  run.until(actor, [&] { return actor.steps() >= 600; });
  run.head.request_stop("enough");
  run.until(actor, [&] { return actor.finished(); });
  std::set<std::int32_t> taken;
  for (const auto& [id, stream] : run.shards[0]->store.streams) {
    const auto q = q_of(stream, network, 8);
    for (std::size_t t = 0; t < stream.rows.size(); ++t) {
      if (stream.rows[t].flags() & replay::flag_last_observation) continue;
      const auto action = stream.rows[t].get<std::int32_t>(2)[0];
      REQUIRE(q[t][static_cast<std::size_t>(action)] == best_of(stream.rows[t], q[t]));
      taken.insert(action);
    }
  }
  CHECK(taken.size() > 1);
}

TEST_CASE("actor: it does not step before the first weights, and then always acts with the newest") {
  SmallRun run(1);
  const auto options = options_of(0.5);
  const auto network = network_for(options);
  Actor actor(run.context, run.clock, run.log, options);
  for (int i = 0; i < 300; ++i) {
    run.step();
    (void)actor.step();
  }
  CHECK(actor.steps() == 0);
  run.publish(network, 3, 8);
  run.until(actor, [&] { return actor.steps() >= 100; });
  CHECK(actor.weights_version() == 3);
  run.publish(network, 4, 9);
  run.publish(network, 11, 10);
  run.until(
      actor, [&] { return actor.weights_version() == 11; }, 50);
  run.until(actor, [&] { return actor.steps() >= 300; });
  run.head.request_stop("enough");
  run.until(actor, [&] { return actor.finished(); });
  for (const auto& [id, stream] : run.shards[0]->store.streams) {
    CHECK(stream.versions.front() == 3);
    CHECK(stream.versions.back() == 11);
    CHECK(std::is_sorted(stream.versions.begin(), stream.versions.end()));
  }
}

TEST_CASE("actor: weights of another network end it") {
  SmallRun run(1);
  auto options = options_of(0.5);
  Actor actor(run.context, run.clock, run.log, options);
  options.network.hidden = {17};
  run.publish(network_for(options), 1, 8);
  const auto go = [&] {
    for (int i = 0; i < 300; ++i) {
      run.step();
      (void)actor.step();
    }
  };
  CHECK_THROWS_AS(go(), InputError);
}

TEST_CASE("actor: held inserts stop it at its credits, and it says that it waits") {
  SmallRun run(1);
  const auto options = options_of(0.5);
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network_for(options), 1, 8);
  run.shards[0]->store.deaf = true;
  for (int i = 0; i < 1000; ++i) {
    run.step();
    (void)actor.step();
  }
  CHECK(actor.steps() == slots * 5 * 4);  // chunk_steps * max_chunks_in_flight
  const auto metric = [&](const std::string& name) {
    for (const auto& [known, value] : run.head.status().metrics) {
      if (known == name) return value;
    }
    return -1.0;
  };
  CHECK(metric("insert_wait_share") > 0.95);
  CHECK(metric("epsilon_mean") == 0.5);
  run.shards[0]->store.deaf = false;
  run.until(actor, [&] { return actor.steps() >= 2000; });
}

TEST_CASE("actor: finished episodes are reported with raw return and length") {
  SmallRun run(1);
  auto options = options_of(0.5);
  options.environment = {.id = "catch", .options = {}};
  options.network.input_scale = 0;
  options.agent.reward_clip = 0.1;
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network_for(options), 1, 8);
  run.until(actor, [&] { return actor.steps() >= 54 * 20; });
  for (int i = 0; i < 30; ++i) run.step();
  double length = 0;
  double mean = -9;
  for (const auto& [name, value] : run.head.status().metrics) {
    if (name == "episode_length_mean") length = value;
    if (name == "episode_return_mean") mean = value;
  }
  CHECK(length == 9);
  CHECK(std::abs(mean) <= 1);
  CHECK(std::abs(mean * 100 - std::round(mean * 100)) < 1e-9);  // the last 100 returns are 1 or -1 each
}

TEST_CASE("actor: a lost shard is left behind, and the run goes on with the other") {
  SmallRun run;
  const auto options = options_of(0.5);
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network_for(options), 1, 8);
  run.until(actor, [&] { return actor.steps() >= 500; });
  run.shards[0]->member.leave("killed");
  run.shards.erase(run.shards.begin());
  run.until(actor, [&] { return actor.steps() >= 2000; });
  CHECK(actor.writer().dropped_steps() > 0);
  CHECK(run.shards[0]->store.streams.size() == slots / 2 + slots / 2);
}

TEST_CASE("actor: told to stop, it sends what it has, waits for the acks and leaves") {
  SmallRun run(1);
  const auto options = options_of(0.5);
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network_for(options), 1, 8);
  run.until(actor, [&] { return actor.steps() >= 31 * slots; });
  const auto steps = actor.steps();
  actor.request_stop("terminated");
  run.until(
      actor, [&] { return actor.finished(); }, 100);
  std::size_t stored = 0;
  for (const auto& [id, stream] : run.shards[0]->store.streams) stored += check_rows(stream);
  CHECK(stored == steps);
  CHECK(actor.steps() == steps);
}

TEST_CASE("actor: one that hears no head for too long ends with an error") {
  SmallRun run(1);
  auto options = options_of(0.5);
  options.member.give_up = Seconds(5);
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network_for(options), 1, 8);
  run.until(actor, [&] { return actor.steps() >= 100; });
  hear_nobody(run.clock, actor, Milliseconds(4900));
  CHECK_THROWS_AS(hear_nobody(run.clock, actor, Milliseconds(1000)), RunError);
}

TEST_CASE("actor: a saved and loaded one goes on bit for bit") {
  const bool normalized = GENERATE(false, true);
  auto options = options_of(0.5);
  options.agent.normalization = {.observations = normalized, .rewards = normalized};
  const auto network = network_for(options);
  const auto statistics = normalized ? Statistics().bytes(options) : std::vector<std::byte>();
  ByteWriter bytes;
  std::map<std::uint32_t, StoredStream> at_save;
  std::map<std::uint32_t, StoredStream> straight;
  {
    SmallRun run(1);
    Actor actor(run.context, run.clock, run.log, options);
    run.publish(network, 1, 8, statistics);
    run.until(actor, [&] { return actor.steps() >= 303; });
    run.publish(network, 2, 9, statistics);
    run.until(actor, [&] { return actor.weights_version() == 2; });
    actor.quiesce();
    run.until(actor, [&] { return actor.quiet(); });
    const auto steps = actor.steps();
    actor.save(bytes);
    at_save = run.shards[0]->store.streams;
    actor.resume();
    run.until(actor, [&] { return actor.steps() >= steps + 600; });
    actor.request_stop("enough");
    run.until(actor, [&] { return actor.finished(); });
    straight = run.shards[0]->store.streams;
  }
  SmallRun run(1);
  run.shards[0]->store.streams = at_save;
  Actor actor(run.context, run.clock, run.log, options);
  ByteReader in(bytes.bytes(), "test");
  actor.load(in);
  in.expect_end();
  const auto steps = actor.steps();
  run.until(actor, [&] { return actor.steps() >= steps + 600; });
  actor.request_stop("enough");
  run.until(actor, [&] { return actor.finished(); });
  const auto& resumed = run.shards[0]->store.streams;
  REQUIRE(resumed.size() == straight.size());
  for (const auto& [id, stream] : straight) {
    CHECK(stream.rows.size() > at_save.at(id).rows.size() + 90);
    CHECK(resumed.at(id).rows == stream.rows);
    CHECK(resumed.at(id).priorities == stream.priorities);
    CHECK(resumed.at(id).next_sequence == stream.next_sequence);  // cut into the same chunks
    CHECK(resumed.at(id).versions == stream.versions);
  }
}

TEST_CASE("actor: a saved state that is cut short anywhere is refused") {
  const auto options = options_of(0.5);
  SmallRun run(1);
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network_for(options), 1, 8);
  run.until(actor, [&] { return actor.steps() >= 303; });
  actor.quiesce();
  run.until(actor, [&] { return actor.quiet(); });
  ByteWriter bytes;
  actor.save(bytes);
  for (std::size_t size = 0; size < bytes.bytes().size(); size += 37) {
    SmallRun other(1);
    Actor loaded(other.context, other.clock, other.log, options);
    ByteReader in(bytes.bytes().first(size), "cut");
    CHECK_THROWS_AS(loaded.load(in), InputError);
  }
}

TEST_CASE("actor: an odd number of slots and actions that are not Discrete are refused by name") {
  SmallRun run(1);
  auto options = options_of(0.5);
  options.actors.slots = 5;
  CHECK_THROWS_AS(Actor(run.context, run.clock, run.log, options), ConfigError);
  envs::EnvSpec spec;
  spec.id = "pendulum";
  spec.observations = {{{"x", DType::f32, {3}}, -1, 1}};
  spec.action.kind = envs::ActionSpace::Kind::box;
  CHECK_THROWS_WITH(schema_of(spec), Catch::Matchers::Contains("pendulum") && Catch::Matchers::Contains("Box"));
}
