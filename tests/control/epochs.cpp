// Epochs and restarts: who takes what from a checkpoint, and how everybody learns that a new age began.
#include "tests/support/catch.h"
#include "world.h"

using namespace qanat;
using namespace qanat::control;
using namespace qanat::control::testing;

TEST_CASE("epoch: a member that joined in an earlier epoch adopts the head's when it joins again") {
  World world({.bind = {"inproc://one"}, .epoch = 1});
  auto& actor = world.join(wire::Role::actor, {.head = {"inproc://one", "inproc://two"}});
  CHECK(actor.epoch() == 1);
  world.head.reset();
  auto options = world.options;
  options.bind = {"inproc://two"};
  options.epoch = 2;
  world.head = world.make_head(options);
  world.pass(Milliseconds(8000));
  CHECK(actor.epoch() == 2);
  CHECK(world.metric("actors") == 1);
}

TEST_CASE("epoch: a replaced learner raises it, and all hear of it; one that comes back does not") {
  World world({.epoch = 5, .lost_after = Seconds(5)});
  auto& shard = world.join(wire::Role::replay);
  auto& first = world.join(wire::Role::learner, {.index = 0});
  CHECK(first.epoch() == 5);
  auto asleep = std::move(world.members.back());
  world.members.pop_back();
  world.pass(Milliseconds(6000));
  world.members.push_back(std::move(asleep));
  world.pass(Milliseconds(1000));
  CHECK(first.epoch() == 5);
  world.kill(first);
  world.pass(dead_after);
  auto& second = world.join(wire::Role::learner, {.index = 0});
  CHECK(second.epoch() == 6);
  world.pass(Milliseconds(200));
  CHECK(shard.epoch() == 6);
  CHECK(world.head->status().epoch == 6);
}

TEST_CASE("epoch: a saved head does not fall back to an older epoch than it had, nor than it is told") {
  World world({.epoch = 5});
  ByteWriter saved;
  world.head->save(saved);
  for (const std::uint64_t told : {1, 9}) {
    auto options = world.options;
    options.bind = {text("inproc://told-", told)};
    options.epoch = told;
    auto head = world.make_head(options);
    ByteReader in(saved.bytes(), "head");
    head->load(in);
    CHECK(head->epoch() == std::max<std::uint64_t>(5, told));
  }
}

TEST_CASE("resume: those who start with the run take their part of its checkpoint, later ones do not") {
  World world({.resume_from = "runs/x/checkpoints/3"});
  auto& shard = world.join(wire::Role::replay, {.index = 0});
  CHECK(shard.welcome().resume_from == "runs/x/checkpoints/3");
  CHECK(world.join(wire::Role::learner, {.index = 0}).welcome().resume_from == "runs/x/checkpoints/3");
  world.kill(shard);
  world.pass(dead_after);
  CHECK(world.join(wire::Role::replay, {.index = 0}).welcome().resume_from.empty());
}

TEST_CASE("resume: a learner that replaces another goes on from the newest checkpoint, not from nothing") {
  World world({.resume_from = "old"});
  auto& first = world.join(wire::Role::learner, {.index = 0});
  world.pass(Milliseconds(100));
  world.kill(first);
  world.pass(dead_after);
  auto& second = world.join(wire::Role::learner, {.index = 0});
  CHECK(second.welcome().resume_from == "old");  // none was written since
  second.set_checkpoint("new");
  world.pass(Milliseconds(200));
  CHECK(world.head->status().checkpoint == "new");
  world.kill(second);
  world.pass(dead_after);
  CHECK(world.join(wire::Role::learner, {.index = 0}).welcome().resume_from == "new");
}

TEST_CASE("resume: a loaded head still hands the checkpoint to those who start with it") {
  World world({.resume_from = "old"});
  world.join(wire::Role::learner, {.index = 0});
  ByteWriter saved;
  world.head->save(saved);
  auto options = world.options;
  options.bind = {"inproc://again"};
  world.head = world.make_head(options);
  ByteReader in(saved.bytes(), "head");
  world.head->load(in);
  auto& learner = world.join(wire::Role::learner, {.index = 0, .head = options.bind});
  CHECK(learner.welcome().resume_from == "old");
  CHECK(learner.welcome().start_count == 1);  // its seed is not the first one's
}

TEST_CASE("head file: cut short or damaged it is refused, never believed") {
  World world;
  world.join(wire::Role::learner);
  auto& shard = world.join(wire::Role::replay);
  shard.use(10, 10, 10);
  shard.add_episode(1, 5);
  world.pass(Milliseconds(200));
  ByteWriter saved;
  world.head->save(saved);
  for (std::size_t size = 0; size < saved.bytes().size(); ++size) {
    auto options = world.options;
    options.bind = {text("inproc://cut-", size)};
    const auto head = world.make_head(options);
    ByteReader in(saved.bytes().first(size), "cut");
    CHECK_THROWS_AS(head->load(in), InputError);
  }
}
