// Who may have a place, a role and an index: the living are not pushed out, the dead are not waited for.
#include "core/process.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"
#include "tests/support/message_of.h"
#include "world.h"

using namespace qanat;
using namespace qanat::control;
using namespace qanat::control::testing;

namespace {

// A run of `train`: two actors, two shards, a learner and an evaluator are started by process 77 of host "here".
const Supervisor trainer{
    "here", 77, {{wire::Role::learner, 1}, {wire::Role::replay, 2}, {wire::Role::actor, 2}, {wire::Role::evaluate, 1}}};

wire::Join join_of(wire::Role role, std::int64_t index, std::uint64_t incarnation) {
  wire::Join join;
  join.role = role;
  join.index = index;
  join.incarnation = incarnation;
  join.pid = static_cast<std::int64_t>(incarnation);
  join.host = "here";
  join.parent = 5;  // a shell
  return join;
}

wire::Join child_of(const Supervisor& supervisor, wire::Role role, std::int64_t index, std::uint64_t incarnation) {
  auto join = join_of(role, index, incarnation);
  join.parent = supervisor.pid;
  join.host = supervisor.host;
  return join;
}

wire::JoinReply answer(World& world, const wire::Join& join) {
  const auto replies = world.tell_head(wire::encode(join));
  REQUIRE(replies.size() == 1);
  return wire::decode<wire::JoinReply>(replies.front());
}

// Steps `member` beside the others until it is in or refused; returns the refusal.
std::string outcome(World& world, Member& member, Milliseconds within) {
  const auto end = world.clock.now() + within;
  while (!member.joined() && world.clock.now() < end) {
    try {
      world.pass(Milliseconds(50));
    } catch (const ConfigError& error) {
      world.kill(member);
      return error.what();
    }
  }
  return {};
}

std::size_t holders(const World& world, wire::Role role) {
  const auto members = world.head->status().members;
  return static_cast<std::size_t>(
      std::count_if(members.begin(), members.end(), [&](const MemberSummary& one) { return one.role == role; }));
}

}  // namespace

TEST_CASE("place: whoever comes for a living one's is refused within a second, and told which index is free") {
  for (const auto role : {wire::Role::actor, wire::Role::replay, wire::Role::evaluate}) {
    World world;
    auto& first = world.join(role);
    world.join(role, {.index = 2});
    world.pass(Milliseconds(1000));
    auto& second = world.add(role, {.index = 0});
    const auto why = outcome(world, second, Milliseconds(1000));
    INFO(why);
    CHECK(
        contains(why, text(wire::name_of(role), "-0 is pid ", getpid(), " on ", host_name(), ", which was heard 0.")));
    CHECK(contains(why, "index 1 is free"));
    world.pass(Milliseconds(3000));
    CHECK(first.joined());
    CHECK(world.head->status().members.front().starts == 1);
    CHECK(holders(world, role) == 2);
  }
}

TEST_CASE("place: a second learner is refused while the first lives, whatever index it asks for") {
  World world({.epoch = 5});
  auto& first = world.join(wire::Role::learner);
  CHECK(first.welcome().index == 0);
  for (const std::int64_t index : {-1, 0, 1, 7}) {
    auto& second = world.add(wire::Role::learner, {.index = index});
    const auto why = outcome(world, second, Milliseconds(1000));
    INFO(why);
    CHECK(contains(why, "a run has one learner"));
  }
  CHECK(world.head->epoch() == 5);
  CHECK(holders(world, wire::Role::learner) == 1);
  world.kill(first);
  world.pass(dead_after);
  CHECK(world.join(wire::Role::learner).epoch() == 6);  // one that asks for no index takes the dead one's place
}

TEST_CASE(
    "place: a process that died is replaced two seconds after its last word, by one that says what it waits for") {
  const qanat::test::TemporaryDirectory directory;
  const auto file = directory.path() / "log";
  World world;
  auto& first = world.join(wire::Role::actor);
  world.pass(Milliseconds(1000));
  world.kill(first);
  Logger log({"actor-0", file, false, LogLevel::info});
  auto& second = world.add(wire::Role::actor, {.index = 0, .log = &log});
  CHECK(outcome(world, second, Milliseconds(1700)).empty());
  CHECK_FALSE(second.joined());
  const auto said = read_text_file(file);
  INFO(said);
  CHECK(contains(said, "waiting to join: actor-0 is pid "));
  CHECK(contains(said, "must be silent for 2.0 s"));
  CHECK(std::count(said.begin(), said.end(), '\n') == 1);  // once, not at each question
  CHECK(outcome(world, second, Milliseconds(600)).empty());
  CHECK(second.joined());
  CHECK(second.welcome().start_count == 1);
  // When it was silent for long before somebody comes, nobody waits.
  world.kill(second);
  world.pass(Milliseconds(5000));
  CHECK(world.join(wire::Role::actor, {.index = 0}).welcome().start_count == 2);
}

TEST_CASE("place: after a pause of the head nobody counts as silent who only could not be heard") {
  World world;
  world.join(wire::Role::actor);
  world.pass(Milliseconds(500));
  world.clock.advance(std::chrono::seconds(30));
  // The newcomer's question may be read before the holder's word.
  CHECK(answer(world, join_of(wire::Role::actor, 0, 9)).again);
  world.pass(Milliseconds(1000));
  const auto reply = answer(world, join_of(wire::Role::actor, 0, 9));
  CHECK_FALSE(reply.accepted);
  CHECK_FALSE(reply.again);
  CHECK(world.head->status().members.front().starts == 1);
}

TEST_CASE("place: a supervisor's places are its own, also while nobody holds them") {
  World world({.supervisor = trainer});
  CHECK(answer(world, child_of(trainer, wire::Role::actor, 0, 10)).accepted);
  for (const auto& [role, index, free] : {std::tuple{wire::Role::actor, 0, "index 2 is free"},
                                          {wire::Role::actor, 1, "index 2 is free"},
                                          {wire::Role::replay, 1, "index 2 is free"},
                                          {wire::Role::evaluate, 0, "index 1 is free"},
                                          {wire::Role::learner, 0, "a run has one learner"},
                                          {wire::Role::learner, -1, "a run has one learner"}}) {
    const auto reply = answer(world, join_of(role, index, 99));
    INFO(reply.reason);
    CHECK_FALSE(reply.accepted);
    CHECK_FALSE(reply.again);
    CHECK(contains(reply.reason, "a place of the run's supervisor, pid 77 on here"));
    CHECK(contains(reply.reason, free));
  }
  auto elsewhere = child_of(trainer, wire::Role::actor, 0, 98);
  elsewhere.host = "there";  // the same number names another process there
  CHECK_FALSE(answer(world, elsewhere).accepted);
  CHECK(answer(world, join_of(wire::Role::actor, -1, 20)).index == 2);  // beside the supervisor's own
  CHECK(answer(world, join_of(wire::Role::actor, 5, 21)).index == 5);
}

TEST_CASE("place: a supervisor's new child takes the place of the one before at once") {
  World world({.supervisor = trainer});
  REQUIRE(answer(world, child_of(trainer, wire::Role::replay, 1, 10)).accepted);
  const auto reply = answer(world, child_of(trainer, wire::Role::replay, 1, 11));
  CHECK(reply.accepted);
  CHECK(reply.start_count == 1);
  CHECK_FALSE(answer(world, child_of(trainer, wire::Role::replay, 1, 10)).accepted);  // what it replaced stays out
}

TEST_CASE("place: a run has one supervisor") {
  World world({.supervisor = trainer});
  auto stranger = join_of(wire::Role::supervisor, -1, 9);
  CHECK(contains(answer(world, stranger).reason, "the run's supervisor is pid 77"));
  stranger.pid = trainer.pid;
  CHECK(answer(world, stranger).accepted);
}

TEST_CASE("place: children that a supervisor has seen end are lost at once, and nobody else's") {
  Supervisor self{host_name(), getppid(), {}};
  World world({.supervisor = self});
  auto& actor = world.join(wire::Role::actor);  // a child of the same parent as ours
  auto foreign = join_of(wire::Role::actor, 5, 50);
  foreign.pid = 1234;
  REQUIRE(answer(world, foreign).accepted);
  auto join = join_of(wire::Role::supervisor, -1, 60);
  join.pid = self.pid;
  join.host = self.host;
  REQUIRE(answer(world, join).accepted);
  CHECK(world.metric("actors") == 2);
  wire::Heartbeat beat;
  beat.incarnation = 60;
  beat.ended = {getpid(), 1234};
  world.kill(actor);
  (void)world.tell_head(wire::encode(beat));
  CHECK(world.metric("actors") == 1);
  beat.incarnation = 50;  // an actor's word about others does not count
  beat.ended = {1234};
  (void)world.tell_head(wire::encode(beat));
  CHECK(world.metric("actors") == 1);
}
