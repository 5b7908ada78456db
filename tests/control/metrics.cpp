// How the values of many members become the run's.
#include <cmath>
#include <limits>

#include "tests/support/catch.h"
#include "world.h"

using namespace qanat;
using namespace qanat::control;
using namespace qanat::control::testing;

TEST_CASE("metrics: values are added up over members, shares and means are averaged") {
  World world;
  auto& one = world.join(wire::Role::actor);
  auto& two = world.join(wire::Role::actor);
  one.set_metric("frames_per_second", 10);
  two.set_metric("frames_per_second", 30);
  one.set_metric("wait_share", 0.25);
  two.set_metric("wait_share", 0.75);
  one.set_metric("epsilon_mean", 1);
  two.set_metric("epsilon_mean", 2);
  one.set_metric("only_here", 3);
  world.pass(Milliseconds(200));
  CHECK(world.metric("frames_per_second") == 40);
  CHECK(world.metric("wait_share") == 0.5);
  CHECK(world.metric("epsilon_mean") == 1.5);
  CHECK(world.metric("only_here") == 3);
  one.set_metric("only_here", 4);  // the newest value counts, not the sum of all
  world.pass(Milliseconds(200));
  CHECK(world.metric("only_here") == 4);
  two.leave("done");
  world.pass(Milliseconds(200));
  CHECK(world.metric("frames_per_second") == 10);
}

TEST_CASE("metrics: returns and lengths are means over the last hundred episodes of all actors") {
  World world;
  auto& one = world.join(wire::Role::actor);
  auto& two = world.join(wire::Role::actor);
  for (int i = 0; i < 60; ++i) one.add_episode(-1000, 1);
  world.pass(Milliseconds(200));
  for (int i = 0; i < 50; ++i) one.add_episode(1, 10);
  for (int i = 0; i < 50; ++i) two.add_episode(3, 30);
  world.pass(Milliseconds(300));
  CHECK(world.metric("episodes") == 160);
  CHECK(world.metric("episode_return_mean") == 2);
  CHECK(world.metric("episode_length_mean") == 20);
}

TEST_CASE("metrics: the supervisor is told the run's newest values, others only progress") {
  World world;
  auto& supervisor = world.join(wire::Role::supervisor);
  auto& learner = world.join(wire::Role::learner);
  learner.set_metric("loss", 0.5);
  learner.set_metric("updates", 12);
  world.pass(Milliseconds(300));
  bool seen = false;
  for (const auto& [name, value] : supervisor.run_metrics()) seen |= name == "loss" && value == 0.5;
  CHECK(seen);
  CHECK(learner.run_metrics().empty());
  CHECK(learner.updates() == 12);
  CHECK(supervisor.updates() == 12);
}

TEST_CASE("metrics: updates outlive a lost learner, and its replacement's count takes their place") {
  World world({.lost_after = Seconds(5)});
  auto& first = world.join(wire::Role::learner, {.index = 0});
  first.set_metric("updates", 1000);
  world.pass(Milliseconds(200));
  world.kill(first);
  world.pass(Milliseconds(6000));
  CHECK(world.head->status().updates == 1000);
  auto& second = world.join(wire::Role::learner, {.index = 0});
  CHECK(world.head->status().updates == 1000);
  second.set_metric("updates", 900);  // from its checkpoint
  world.pass(Milliseconds(200));
  CHECK(world.head->status().updates == 900);
}

TEST_CASE("metrics: restarts of environments add up over all who took part, gone or replaced") {
  World world({.lost_after = Seconds(5)});
  auto& first = world.join(wire::Role::actor, {.index = 0});
  auto& second = world.join(wire::Role::actor, {.index = 1});
  first.set_metric("env_restarts", 2);
  second.set_metric("env_restarts", 3);
  world.pass(Milliseconds(200));
  CHECK(world.head->status().env_restarts == 5);
  world.kill(first);
  second.leave("done");
  world.pass(Milliseconds(6000));
  CHECK(world.head->status().env_restarts == 5);
  auto& third = world.join(wire::Role::actor, {.index = 0});
  third.set_metric("env_restarts", 1);
  world.pass(Milliseconds(200));
  CHECK(world.head->status().env_restarts == 6);
  third.set_metric("env_restarts", std::nan(""));
  world.pass(Milliseconds(200));
  CHECK(world.head->status().env_restarts == 5);
}

TEST_CASE("metrics: rates are per second between two reports, and the first count heard is not a rate") {
  World world;
  auto& learner = world.join(wire::Role::learner);
  auto& shard = world.join(wire::Role::replay);
  world.pass(Milliseconds(1500));
  learner.set_metric("updates", 1'000'000);  // where a resumed learner stands
  world.pass(Milliseconds(2000));
  CHECK(world.metric("updates_per_second") == 0);
  // 100 updates and 1000 steps each second.
  double most = 0;
  for (int i = 1; i <= 40; ++i) {
    learner.set_metric("updates", 1'000'000 + i * 10);
    shard.use(static_cast<std::uint64_t>(i) * 100, static_cast<std::uint64_t>(i) * 100 + 100, 0);
    world.pass(Milliseconds(100));
    most = std::max(most, world.metric("updates_per_second"));
  }
  CHECK(most <= 120);  // 100, and what two heartbeats may add at the edges of a second
  CHECK(world.metric("updates_per_second") == Approx(100).margin(20));
  CHECK(world.metric("env_steps_per_second") == Approx(1000).margin(200));
}

TEST_CASE("metrics: policy lag is the learner's updates less the actors' mean weight version") {
  World world;
  world.join(wire::Role::learner).set_metric("updates", 100);
  world.join(wire::Role::actor).set_metric("weights_version_mean", 90);
  world.join(wire::Role::actor).set_metric("weights_version_mean", 70);
  world.pass(Milliseconds(200));
  CHECK(world.metric("policy_lag_updates") == 20);
}

TEST_CASE("metrics: values that are no numbers do no harm beyond their own name") {
  World world;
  auto& learner = world.join(wire::Role::learner);
  for (const double value : {std::nan(""), -5.0, std::numeric_limits<double>::infinity(), 1e300}) {
    learner.set_metric("updates", value);
    world.pass(Milliseconds(1200));
    CHECK(world.head->status().updates <= std::uint64_t{1} << 53);
  }
  learner.set_metric("updates", std::nan(""));
  world.pass(Milliseconds(200));
  CHECK(world.head->status().updates == 0);
}

TEST_CASE("metrics: they are handed over at their interval, and every process that took part is listed") {
  World world({.metrics_every = Seconds(2)});
  auto& actor = world.join(wire::Role::actor);
  wire::Traffic traffic;
  traffic.messages_out = 7;
  actor.set_traffic(traffic);
  world.reported.clear();
  world.pass(Milliseconds(10'000));
  CHECK(world.reported.size() == 5);
  const auto incarnation = actor.incarnation();
  actor.leave("done");
  world.pass(Milliseconds(100));
  world.join(wire::Role::actor, {.index = 0, .incarnation = incarnation + 1000});
  const auto members = world.head->status().members;
  REQUIRE(members.size() == 1);
  CHECK(members[0].starts == 2);
  CHECK(members[0].traffic[1] == 7);
}
