// A run without updates says what it waits for: after ten seconds, and then every minute.
#include "control/stall.h"

#include "tests/control/world.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::control;
using namespace qanat::control::testing;

TEST_CASE("stall: it is said after ten seconds without an update, then every minute, and anew after the next one") {
  using std::chrono::seconds;
  StallWatch watch(seconds(100));
  CHECK_FALSE(watch.look(seconds(109), 0));
  CHECK(watch.look(seconds(110), 0));
  CHECK_FALSE(watch.look(seconds(169), 0));
  CHECK(watch.look(seconds(170), 0));
  CHECK(watch.lasting(seconds(171)) == seconds(71));
  CHECK_FALSE(watch.look(seconds(171), 1));
  CHECK_FALSE(watch.look(seconds(180), 1));
  CHECK(watch.look(seconds(181), 1));
}

TEST_CASE("stall: the supervisor is told who is missing, and for what those who are there wait") {
  HeadOptions options;
  options.expected_shards = 2;
  options.ledger.min_size = 1000;
  World world(options);
  auto& supervisor = world.join(wire::Role::supervisor);
  world.pass(Milliseconds(1000));
  CHECK(contains(supervisor.run_waits_for(), "the learner has not joined"));
  CHECK(contains(supervisor.run_waits_for(), "0 of 2 replay shards have joined"));
  auto& learner = world.join(wire::Role::learner);
  auto& shard = world.join(wire::Role::replay);
  world.join(wire::Role::replay);
  world.pass(Milliseconds(1000));
  CHECK(supervisor.run_waits_for() == "no actor has joined, which each does when its environments are made");
  auto& actor = world.join(wire::Role::actor);
  world.pass(Milliseconds(1000));
  CHECK(supervisor.run_waits_for() == "no env step has come yet from 1 actors");
  actor.set_waiting("no weights of the learner's yet");
  world.pass(Milliseconds(1000));
  CHECK(supervisor.run_waits_for() == "actor-0: no weights of the learner's yet");
  actor.set_waiting("");
  shard.use(300, 300, 290);
  learner.use(0, 64, 0);
  world.pass(Milliseconds(1000));
  CHECK(supervisor.run_waits_for() == "draws wait: 290 items are drawable, 1000 wanted");
  // Updates are done: there is nothing to be said.
  for (int update = 1; update < 40; ++update) {
    learner.set_metric("updates", update);
    world.pass(Milliseconds(100));
  }
  CHECK(supervisor.run_waits_for().empty());
}

TEST_CASE("stall: of many that wait some are named") {
  World world;
  auto& supervisor = world.join(wire::Role::supervisor);
  for (int i = 0; i < 5; ++i) world.join(wire::Role::actor).set_waiting("weights");
  world.pass(Milliseconds(1000));
  CHECK(contains(supervisor.run_waits_for(), "actor-2: weights; 2 more processes wait"));
  CHECK_FALSE(contains(supervisor.run_waits_for(), "actor-3"));
}
