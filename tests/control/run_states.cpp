// A run's life: starting, running, draining, closing, ended; what moves it on and what cannot hold it up.
#include "core/files.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"
#include "world.h"

using namespace qanat;
using namespace qanat::control;
using namespace qanat::control::testing;
using wire::RunState;

namespace {

RunState state_of(const World& world) { return world.head->status().state; }

// A learner, a shard and an actor, running.
struct Running : World {
  explicit Running(HeadOptions head_options = {})
      : World(std::move(head_options)),
        learner(join(wire::Role::learner)),
        shard(join(wire::Role::replay)),
        actor(join(wire::Role::actor)) {
    pass(Milliseconds(200));
  }
  Member& learner;
  Member& shard;
  Member& actor;
};

}  // namespace

TEST_CASE("run: it runs when a learner and all expected shards are in, whoever comes first") {
  World world({.expected_shards = 2});
  world.join(wire::Role::replay);
  world.join(wire::Role::actor);
  world.join(wire::Role::replay);
  CHECK(state_of(world) == RunState::starting);
  auto& learner = world.join(wire::Role::learner);
  CHECK(state_of(world) == RunState::running);
  world.pass(Milliseconds(100));
  CHECK(learner.state() == RunState::running);
}

TEST_CASE("run: its end does not wait for an actor and an evaluator that died just before") {
  for (const bool seen : {true, false}) {  // by their supervisor, or they are only silent
    Running world({.supervisor = Supervisor{"here", 77, {}}});
    const auto tell = [&](wire::Role role, std::int64_t pid, std::int64_t parent) {
      wire::Join join;
      join.role = role;
      join.incarnation = static_cast<std::uint64_t>(pid);
      join.pid = pid;
      join.parent = parent;
      join.host = "here";
      REQUIRE(world.tell_head(wire::encode(join)).size() == 1);
    };
    tell(wire::Role::supervisor, 77, 1);
    tell(wire::Role::actor, 1000, 77);
    tell(wire::Role::evaluate, 1001, 77);
    wire::Heartbeat beat;
    beat.incarnation = 77;
    beat.stop_cause = "terminated";
    if (seen) beat.ended = {1000, 1001};
    (void)world.tell_head(wire::encode(beat));
    const auto begin = world.clock.now();
    while (!world.head->finished() && world.clock.now() - begin < Seconds(60)) {
      world.pass(Milliseconds(50));
      if (world.actor.state() == RunState::draining) world.actor.leave("drained");
      if (world.learner.state() == RunState::closing) world.learner.leave("saved");
      if (world.shard.state() == RunState::ended) world.shard.leave("done");
    }
    // A silent actor may only be paused, for as long as a run must survive.
    CHECK(seconds(world.clock.now() - begin) < (seen ? 1 : 7));
  }
}

TEST_CASE("run: it ends in order: actors, then the learner, then the shards, and the supervisor is not waited for") {
  Running world({.stop_env_steps = 100});
  auto& supervisor = world.join(wire::Role::supervisor);
  CHECK(state_of(world) == RunState::running);
  world.shard.use(99, 99, 0);
  world.pass(Milliseconds(200));
  CHECK(state_of(world) == RunState::running);
  world.shard.use(100, 100, 0);
  world.pass(Milliseconds(200));
  CHECK(world.actor.state() == RunState::draining);
  CHECK(world.learner.stop_cause() == "env_steps");

  world.pass(Milliseconds(3000));
  CHECK(state_of(world) == RunState::draining);  // an actor is still there
  world.actor.leave("drained");
  world.pass(Milliseconds(200));
  CHECK(world.learner.state() == RunState::closing);
  world.pass(Milliseconds(30'000));
  CHECK(state_of(world) == RunState::closing);  // saving takes as long as it takes
  world.learner.leave("saved");
  world.pass(Milliseconds(200));
  CHECK(world.shard.state() == RunState::ended);
  CHECK_FALSE(world.head->finished());
  world.shard.leave("ended");
  world.pass(Milliseconds(200));
  CHECK(world.head->finished());
  CHECK(supervisor.state() == RunState::ended);
  CHECK(supervisor.stop_cause() == "env_steps");
}

TEST_CASE("run: wall time is counted from the first env step on, and the time before a resume with it") {
  Running world({.stop_wall_seconds = 100, .wall_before = 90});
  world.pass(Milliseconds(60'000));  // environments are still being made
  CHECK(state_of(world) == RunState::running);
  CHECK(world.head->status().wall_seconds == 90);
  world.shard.use(1, 0, 0);
  world.pass(Milliseconds(200));
  world.pass(Milliseconds(9000));
  CHECK(state_of(world) == RunState::running);
  world.pass(Milliseconds(1000));
  CHECK(state_of(world) == RunState::draining);
  CHECK(world.head->status().stop_cause == "wall_seconds");
}

TEST_CASE("run: the learner's cause stops it, and the first cause holds") {
  Running world;
  world.learner.stop_run("updates");
  world.learner.stop_run("another");
  world.settle();
  CHECK(state_of(world) == RunState::draining);
  world.head->request_stop("terminated");
  world.pass(Milliseconds(200));
  CHECK(world.head->status().stop_cause == "updates");
  CHECK(world.actor.stop_cause() == "updates");
}

TEST_CASE("run: with nobody in, a request to stop ends it at once") {
  World world;
  world.head->request_stop("terminated");
  for (int i = 0; i < 4; ++i) world.head->step();
  CHECK(world.head->finished());
}

TEST_CASE("run: actors that do not leave hold the end up for no longer than the limit") {
  Running world({.drain_limit = Seconds(8)});
  world.head->request_stop("terminated");
  world.pass(Milliseconds(7900));
  CHECK(state_of(world) == RunState::draining);
  world.pass(Milliseconds(300));
  CHECK(state_of(world) == RunState::closing);
}

TEST_CASE("run: an actor that has been silent for a while is not waited for when draining") {
  Running world({.drain_limit = Seconds(60)});
  world.kill(world.actor);
  world.head->request_stop("terminated");
  world.pass(Milliseconds(5000));
  CHECK(state_of(world) == RunState::draining);
  world.pass(Milliseconds(1500));
  CHECK(state_of(world) == RunState::closing);
}

TEST_CASE("run: only the loss of the learner ends the wait for its last save") {
  Running world({.lost_after = Seconds(30)});
  world.head->request_stop("terminated");
  world.actor.leave("drained");
  world.pass(Milliseconds(1000));
  REQUIRE(state_of(world) == RunState::closing);
  world.kill(world.learner);
  world.pass(Milliseconds(29'000));
  CHECK(state_of(world) == RunState::closing);
  world.pass(Milliseconds(2000));
  CHECK(state_of(world) == RunState::ended);
}

TEST_CASE("run: shards that do not leave hold the head up for no longer than the limit") {
  Running world({.drain_limit = Seconds(8)});
  world.head->request_stop("terminated");
  world.actor.leave("");
  world.learner.leave("");
  world.pass(Milliseconds(300));
  REQUIRE(state_of(world) == RunState::ended);
  CHECK_FALSE(world.head->finished());
  world.pass(Milliseconds(8500));
  CHECK(world.head->finished());
}

TEST_CASE("run: who comes when it is closing is refused with the reason, a supervisor is not") {
  Running world;
  world.head->request_stop("terminated");
  auto& late = world.join(wire::Role::actor);  // while draining it is let in, and told to go
  world.pass(Milliseconds(200));
  CHECK(late.state() == RunState::draining);
  late.leave("");
  world.actor.leave("");
  world.pass(Milliseconds(200));
  REQUIRE(state_of(world) == RunState::closing);
  auto& later = world.add(wire::Role::actor);
  later.step();
  world.head->step();
  try {
    later.step();
    FAIL("it should have been refused");
  } catch (const ConfigError& error) {
    INFO(error.what());
    CHECK(contains(error.what(), "closing"));
    CHECK(contains(error.what(), "terminated"));
  }
  world.kill(later);
  CHECK(world.join(wire::Role::supervisor).joined());
}

TEST_CASE("run: draining releases whoever waits for credits") {
  Running world({.ledger = {.ratio = 1, .min_size = 1, .window = 10}});
  world.shard.use(0, 0, 1);
  world.pass(Milliseconds(100));
  world.shard.use(0, 1000, 1);
  world.learner.use(0, 1000, 0);
  world.pass(Milliseconds(100));
  CHECK(world.shard.granted() == 5);
  CHECK(world.learner.granted() == 5);
  world.head->request_stop("terminated");
  world.pass(Milliseconds(200));
  CHECK(world.shard.granted() == 5);  // the actors must first hear that they are to stop
  world.pass(Milliseconds(200));
  CHECK(world.shard.granted() == 1000);
  CHECK(world.learner.granted() == 1000);
}

TEST_CASE("saving: who asks the head again gets the same answer, and a complete checkpoint is not written once more") {
  const qanat::test::TemporaryDirectory directory;
  HeadOptions options;
  options.run_dir = directory.path().string();
  World world(options);
  auto& learner = world.join(wire::Role::learner);
  const auto ask = [&] {
    learner.save_head((directory / "step").string());
    world.settle();
    return learner.take_save();
  };
  CHECK(!ask()->error.empty());  // there is no such folder, and the head makes none
  CHECK(!std::filesystem::exists(directory / "step"));
  make_directories(directory / "step");
  const auto first = ask();
  REQUIRE(first->error.empty());
  world.join(wire::Role::actor);  // the head's state is another now
  const auto again = ask();
  CHECK(again->files == first->files);
  CHECK_NOTHROW(verify_file(directory / "step", first->files.at(0)));
  std::filesystem::remove(directory / "step" / "head.bin");  // a save that failed, and another in its place
  const auto anew = ask();
  CHECK(anew->files != first->files);
  CHECK_NOTHROW(verify_file(directory / "step", anew->files.at(0)));
  write_file_atomically(directory / "step" / "manifest.json", "{}");
  CHECK(ask()->error.empty());
  World restarted(options);
  auto& other = restarted.join(wire::Role::learner);
  other.save_head((directory / "step").string());
  restarted.settle();
  CHECK(contains(other.take_save()->error, "is complete"));
}

TEST_CASE("saving: why the learner's last save failed stands in the status, and the supervisor is told") {
  World world;
  auto& learner = world.join(wire::Role::learner);
  auto& supervisor = world.join(wire::Role::supervisor);
  auto& actor = world.join(wire::Role::actor);
  learner.set_save_error("no space left");
  world.pass(Milliseconds(300));
  CHECK(world.head->status().save_error == "no space left");
  CHECK(supervisor.save_error() == "no space left");
  CHECK(actor.save_error().empty());
  learner.set_save_error({});
  world.pass(Milliseconds(300));
  CHECK(world.head->status().save_error.empty());
  CHECK(supervisor.save_error().empty());
}
