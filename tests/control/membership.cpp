// Who is in the run: joining, refusals, replacement, silence, leaving, and what members learn of each other.
#include "tests/support/catch.h"
#include "world.h"

using namespace qanat;
using namespace qanat::control;
using namespace qanat::control::testing;
using wire::MemberState;

TEST_CASE("membership: a member is welcomed with its index, the epoch and the run's directory") {
  World world({.run_dir = "runs/x", .epoch = 7});
  auto& actor = world.join(wire::Role::actor);
  CHECK(actor.welcome().accepted);
  CHECK(actor.welcome().index == 0);
  CHECK(actor.welcome().start_count == 0);
  CHECK(actor.welcome().run_dir == "runs/x");
  CHECK(actor.epoch() == 7);
  CHECK(actor.state() == wire::RunState::starting);
}

TEST_CASE("membership: indices are the lowest free ones of a role, or those asked for") {
  World world;
  CHECK(world.join(wire::Role::actor).welcome().index == 0);
  auto& second = world.join(wire::Role::actor);
  CHECK(second.welcome().index == 1);
  CHECK(world.join(wire::Role::replay).welcome().index == 0);  // each role counts for itself
  CHECK(world.join(wire::Role::actor, {.index = 7}).welcome().index == 7);
  CHECK(world.join(wire::Role::actor).welcome().index == 2);
  second.leave("done");
  world.settle();
  auto& again = world.join(wire::Role::actor);
  CHECK(again.welcome().index == 1);
  CHECK(again.welcome().start_count == 1);  // so that its seed is another than its predecessor's
}

TEST_CASE("membership: many members join in one moment, and each gets an index of its own") {
  World world;
  for (int i = 0; i < 100; ++i) world.add(wire::Role::actor);  // more than one vector's growth
  world.settle();
  std::vector<bool> seen(100);
  for (const auto& member : world.members) {
    REQUIRE(member->joined());
    seen.at(static_cast<std::size_t>(member->welcome().index)) = true;
  }
  CHECK(std::count(seen.begin(), seen.end(), true) == 100);
}

TEST_CASE(
    "membership: actors beyond what the descriptors suffice for are refused by name, others and the old are not") {
  World world({.most_actors = 2});
  world.join(wire::Role::evaluate);
  auto& second = world.join(wire::Role::actor);
  auto& third = world.add(wire::Role::actor);
  third.step();
  world.head->step();
  try {
    third.step();
    FAIL("it should have been refused");
  } catch (const ConfigError& error) {
    INFO(error.what());
    CHECK(contains(error.what(), "has 2 actors and evaluators"));
    CHECK(contains(error.what(), "ulimit -n"));
  }
  world.kill(third);
  world.join(wire::Role::replay);
  second.leave("done");
  world.settle();
  world.join(wire::Role::actor);
}

TEST_CASE("membership: another environment than the run's is refused, and both are named") {
  World world;
  world.join(wire::Role::actor, {.schema = {catch_schema()}});
  auto other = catch_schema();
  other.actions = 4;
  auto& stranger = world.add(wire::Role::actor, {.schema = {other}});
  stranger.step();
  world.head->step();
  try {
    stranger.step();
    FAIL("it should have been refused");
  } catch (const ConfigError& error) {
    INFO(error.what());
    CHECK(contains(error.what(), "4 actions"));
    CHECK(contains(error.what(), "3 actions"));
  }
  CHECK(world.head->status().members.size() == 1);
}

TEST_CASE("membership: schemas that cannot be are refused and do not become the run's") {
  World world;
  const auto refused = [&](auto change) {
    wire::Join join;
    join.role = wire::Role::actor;
    join.incarnation = 5;
    join.schema = {catch_schema()};
    change(join.schema.front());
    const auto replies = world.tell_head(wire::encode(join));
    return replies.size() == 1 && !wire::decode<wire::JoinReply>(replies.front()).accepted;
  };
  CHECK(refused([](auto& s) { s.actions = 0; }));
  CHECK(refused([](auto& s) { s.actions = std::int64_t{1} << 40; }));
  CHECK(refused([](auto& s) { s.observations.clear(); }));
  CHECK(refused([](auto& s) { s.observations.resize(9, s.observations.front()); }));
  CHECK(refused([](auto& s) { s.observations[0].tensor.shape = {0}; }));
  CHECK(refused([](auto& s) { s.observations[0].tensor.shape = {-1}; }));
  CHECK(refused([](auto& s) { s.observations[0].tensor.shape = {1 << 20, 1 << 20}; }));
  CHECK(refused([](auto& s) { s.observations[0].tensor.shape.assign(9, 1); }));
  CHECK(refused([](auto& s) { s.observations[0].low = std::nan(""); }));
  CHECK(refused([](auto& s) { s.observations[0].low = 2; }));
  CHECK(refused([](auto& s) { s.max_episode_steps = -1; }));
  CHECK_FALSE(world.join(wire::Role::learner).schema());
  CHECK_FALSE(refused([](auto&) {}));
}

TEST_CASE("membership: the first actor's environment reaches those who never load one") {
  World world;
  auto& learner = world.join(wire::Role::learner);
  CHECK_FALSE(learner.schema());
  world.join(wire::Role::actor, {.schema = {catch_schema()}});
  world.pass(Milliseconds(100));
  REQUIRE(learner.schema());
  CHECK(*learner.schema() == catch_schema());
}

TEST_CASE("membership: a head, a zero incarnation and an incarnation of another role cannot join") {
  World world;
  auto& actor = world.join(wire::Role::actor);
  const auto accepted = [&](wire::Role role, std::uint64_t incarnation) {
    wire::Join join;
    join.role = role;
    join.incarnation = incarnation;
    const auto replies = world.tell_head(wire::encode(join));
    return wire::decode<wire::JoinReply>(replies.at(0)).accepted;
  };
  CHECK_FALSE(accepted(wire::Role::head, 5));
  CHECK_FALSE(accepted(wire::Role::actor, 0));
  CHECK_FALSE(accepted(wire::Role::learner, actor.incarnation()));
  CHECK(accepted(wire::Role::learner, 6));
}

TEST_CASE("membership: a new process replaces a silent one of its role and index, which is refused when it wakes") {
  World world;
  auto& watcher = world.join(wire::Role::learner);
  auto& old = world.join(wire::Role::replay, {.index = 3});
  auto asleep = std::move(world.members.back());
  world.members.pop_back();
  world.pass(dead_after);
  auto& fresh = world.add(wire::Role::replay, {.index = 3});
  fresh.step();
  world.head->step();
  fresh.step();
  REQUIRE(fresh.joined());
  CHECK(fresh.welcome().start_count == 1);
  world.clock.advance(Milliseconds(100));
  watcher.step();
  world.head->step();
  watcher.step();
  REQUIRE(listed(watcher.directory(), old.incarnation()));
  CHECK(listed(watcher.directory(), old.incarnation())->state == MemberState::lost);
  CHECK(listed(watcher.directory(), fresh.incarnation())->state == MemberState::alive);
  REQUIRE(watcher.alive(wire::Role::replay).size() == 1);
  CHECK(watcher.alive(wire::Role::replay).front()->incarnation == fresh.incarnation());
  // The old one hears that it is not known, asks again, and is told why not.
  CHECK_THROWS_AS(
      [&] {
        for (int i = 0; i < 20; ++i) {
          world.clock.advance(Milliseconds(100));
          old.step();
          world.head->step();
        }
      }(),
      ConfigError);
}

TEST_CASE("membership: the directory tells of endpoints, of leaving and of loss") {
  World world({.lost_after = Seconds(10)});
  auto& learner = world.join(wire::Role::learner);
  auto& one = world.join(wire::Role::replay, {.endpoints = {{"insert", {"inproc://one"}}}});
  auto& two = world.join(wire::Role::replay, {.endpoints = {{"insert", {"inproc://two"}}}});
  const auto first = one.incarnation();
  const auto second = two.incarnation();
  world.pass(Milliseconds(100));
  REQUIRE(learner.alive(wire::Role::replay).size() == 2);
  CHECK(learner.address_of(*learner.alive(wire::Role::replay)[0], "insert") == "inproc://one");
  CHECK(learner.address_of(*learner.alive(wire::Role::replay)[1], "insert") == "inproc://two");
  const auto version = learner.directory().version;
  world.pass(Milliseconds(500));
  CHECK(learner.directory().version == version);  // nothing new, nothing sent

  one.leave("done");
  world.kill(two);
  world.pass(Milliseconds(200));
  REQUIRE(listed(learner.directory(), first));
  CHECK(listed(learner.directory(), first)->state == MemberState::left);
  CHECK(listed(learner.directory(), second)->state == MemberState::alive);
  world.pass(Milliseconds(10'500));
  CHECK(listed(learner.directory(), second)->state == MemberState::lost);
  CHECK(learner.directory().version > version);
  CHECK(learner.alive(wire::Role::replay).empty());
}

TEST_CASE("membership: silence up to the limit is forgiven, beyond it a member is lost") {
  World world({.lost_after = Seconds(60)});
  auto& learner = world.join(wire::Role::learner);
  auto& actor = world.join(wire::Role::actor);
  const auto incarnation = actor.incarnation();
  world.pass(Milliseconds(1000));
  world.kill(actor);
  world.pass(Milliseconds(59'800));
  CHECK(listed(learner.directory(), incarnation)->state == MemberState::alive);
  world.pass(Milliseconds(500));
  CHECK(listed(learner.directory(), incarnation)->state == MemberState::lost);
}

TEST_CASE("membership: one that was lost and speaks again is back under the same incarnation and index") {
  World world({.lost_after = Seconds(5)});
  auto& learner = world.join(wire::Role::learner);
  world.join(wire::Role::actor);
  auto& actor = world.join(wire::Role::actor);
  auto asleep = std::move(world.members.back());
  world.members.pop_back();
  world.pass(Milliseconds(6000));
  CHECK(listed(learner.directory(), actor.incarnation())->state == MemberState::lost);
  world.members.push_back(std::move(asleep));
  world.pass(Milliseconds(1500));
  CHECK(listed(learner.directory(), actor.incarnation())->state == MemberState::alive);
  CHECK(actor.welcome().index == 1);
  CHECK(learner.alive(wire::Role::actor).size() == 2);
  for (const auto& summary : world.head->status().members) CHECK(summary.starts == 1);
}

TEST_CASE("membership: one that cannot take anything in but keeps itself alive is not lost") {
  World world({.lost_after = Seconds(5)});
  auto& learner = world.join(wire::Role::learner);
  auto& actor = world.join(wire::Role::actor);
  auto busy = std::move(world.members.back());
  world.members.pop_back();
  for (int i = 0; i < 200; ++i) {
    world.pass(Milliseconds(100));
    busy->keep_alive();
    REQUIRE(listed(learner.directory(), actor.incarnation())->state == MemberState::alive);
  }
  busy->leave("done");
  const auto told = world.head->traffic().messages_in;
  busy->keep_alive();
  world.settle();
  CHECK(world.head->traffic().messages_in == told + 2);  // the last heartbeat and the leaving, nothing after it
}

TEST_CASE("membership: while the head pauses nobody is lost, and afterwards members catch up") {
  World world({.lost_after = Seconds(10)});
  auto& learner = world.join(wire::Role::learner);
  auto& shard = world.join(wire::Role::replay);
  world.pass(Milliseconds(200));
  const auto version = learner.directory().version;
  // 5 s, and then longer than the limit: what waits in the inbox is heard before anybody is judged.
  for (const auto pause : {Milliseconds(5000), Milliseconds(20'000)}) {
    world.pass_without_head(pause);
    CHECK_FALSE(learner.abandoned());
    world.pass(Milliseconds(1500));
    CHECK(learner.directory().version == version);
    CHECK(learner.alive(wire::Role::replay).size() == 1);
  }
  shard.set_metric("x", 5);
  world.pass(Milliseconds(200));
  CHECK(world.metric("x") == 5);
}

TEST_CASE("membership: a head that a slow disk holds up at each step still notices who is gone") {
  World world({.lost_after = Seconds(10)});
  world.join(wire::Role::learner);
  auto& actor = world.join(wire::Role::actor);
  for (int i = 0; i < 20; ++i) world.pass(Milliseconds(2000), Milliseconds(2000));
  CHECK(world.metric("actors") == 1);
  world.kill(actor);
  for (int i = 0; i < 30; ++i) world.pass(Milliseconds(2000), Milliseconds(2000));
  CHECK(world.metric("actors") == 0);
}

TEST_CASE("membership: a silent head is spoken to seldom, so that it does not come back to a flood") {
  World world;
  auto& shard = world.join(wire::Role::replay);
  shard.use(0, 100, 0);
  world.settle();
  const auto before = shard.socket().traffic().messages_out;
  shard.use(0, 100'000'000'000, 0);
  world.pass_without_head(Milliseconds(60'000));
  // A second as usual, a heartbeat each 100 ms and a report each 50 ms of the test's time; then one of each a second.
  CHECK(shard.socket().traffic().messages_out - before < 200);
  CHECK(shard.socket().traffic().messages_out - before > 100);
}

TEST_CASE("membership: after its last word a member says nothing more") {
  World world;
  auto& learner = world.join(wire::Role::learner);
  auto& actor = world.join(wire::Role::actor);
  actor.add_episode(1.5, 10);
  actor.leave("done");
  actor.leave("twice");
  world.pass(Milliseconds(3000));
  CHECK(listed(learner.directory(), actor.incarnation())->state == MemberState::left);
  CHECK(world.metric("episodes") == 1);  // what it had to tell came along
}

TEST_CASE("membership: the last word arrives even when the process ends right after it") {
  World world({.bind = {"tcp://127.0.0.1:*"}});
  const auto address = world.head->addresses().front();
  const SteadyClock real;
  for (int i = 0; i < 5; ++i) {
    {
      wire::Context own;
      Member member(own, world.clock, {.role = wire::Role::actor, .incarnation = 50, .head = {address}});
      const auto end = real.now() + std::chrono::seconds(20);
      while (!member.joined() && real.now() < end) {
        member.step();
        world.head->step();
        wire::Socket* const sockets[] = {&member.socket()};
        wire::wait(sockets, Milliseconds(1));
        world.clock.advance(Milliseconds(1));
      }
      REQUIRE(member.joined());
      REQUIRE(world.metric("actors") == 1);
      member.leave("done");
    }
    const auto end = real.now() + std::chrono::seconds(20);
    while (world.metric("actors") > 0 && real.now() < end) {
      const auto sockets = world.head->sockets();
      wire::wait(sockets, Milliseconds(10));
      world.head->step();
    }
    CHECK(world.metric("actors") == 0);
  }
}

TEST_CASE("membership: a member without a head says so in the end, with several addresses as well") {
  for (const auto& heads : {std::vector<std::string>{"inproc://none"}, {"inproc://none", "inproc://nowhere"}}) {
    World world;
    auto& actor = world.add(wire::Role::actor, {.head = heads, .give_up = Seconds(30)});
    world.pass(Milliseconds(29'900));
    CHECK_FALSE(actor.abandoned());
    world.pass(Milliseconds(200));
    CHECK(actor.abandoned());
  }
}

TEST_CASE("membership: one that was stopped for longer than it waits for a head asks before it gives up") {
  World world({.lost_after = Seconds(20)});
  world.join(wire::Role::learner);
  auto& actor = world.join(wire::Role::actor, {.give_up = Seconds(60)});
  auto asleep = std::move(world.members.back());
  world.members.pop_back();
  world.pass(Milliseconds(300'000));
  CHECK(world.metric("actors") == 0);
  world.members.push_back(std::move(asleep));
  actor.step();
  CHECK_FALSE(actor.abandoned());
  world.pass(Milliseconds(2000));
  CHECK_FALSE(actor.abandoned());
  CHECK(world.metric("actors") == 1);
  // Without a head it gives up all the same, also after a stop.
  asleep = std::move(world.members.back());
  world.members.pop_back();
  world.head.reset();
  world.pass(Milliseconds(300'000));
  world.members.push_back(std::move(asleep));
  world.pass(Milliseconds(59'000));
  CHECK_FALSE(actor.abandoned());
  world.pass(Milliseconds(2000));
  CHECK(actor.abandoned());
}

TEST_CASE("membership: addresses are tried one after the other, before joining and after a loss") {
  World world({.bind = {"inproc://second"}});
  auto& actor = world.add(wire::Role::actor, {.head = {"inproc://first", "inproc://second", "inproc://third"}});
  world.pass(Milliseconds(6000));
  REQUIRE(actor.joined());
  // The head comes back elsewhere, with what it saved.
  ByteWriter saved;
  world.head->save(saved);
  world.head.reset();
  auto elsewhere = world.options;
  elsewhere.bind = {"inproc://third"};
  world.head = world.make_head(elsewhere);
  ByteReader in(saved.bytes(), "head");
  world.head->load(in);
  CHECK(world.metric("actors") == 0);
  world.pass(Milliseconds(8000));
  CHECK(world.metric("actors") == 1);
  CHECK_FALSE(actor.abandoned());
}

TEST_CASE("membership: departed members beyond the last 500 are forgotten, their steps are not") {
  World world;
  world.join(wire::Role::learner);
  for (std::uint64_t i = 0; i < 600; ++i) {
    wire::Join join;
    join.role = wire::Role::replay;
    join.incarnation = 1000 + i;
    wire::LedgerReport report;
    report.incarnation = join.incarnation;
    report.used = report.wanted = 2;
    // One connection for all three: with one each, the next could come while the last is still being closed.
    wire::Socket shard(world.context, wire::SocketKind::dealer, {.identity = text("shard-", i)});
    shard.connect(world.options.bind.front());
    const auto tell = [&](wire::Message message) {
      (void)shard.send(message);
      world.settle();
    };
    tell(wire::encode(join));
    tell(wire::encode(report));
    tell(wire::encode(wire::Leave{join.incarnation, "done"}));
  }
  CHECK(world.head->status().env_steps == 1200);
  world.join(wire::Role::supervisor);
  world.pass(Milliseconds(200));
  CHECK(world.members.front()->directory().members.size() <= 503);
}
