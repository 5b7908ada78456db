// A head and members among peers that send nonsense: it is dropped and counted, and the run goes on.
#include <filesystem>

#include "core/rng.h"
#include "tests/support/catch.h"
#include "world.h"

using namespace qanat;
using namespace qanat::control;
using namespace qanat::control::testing;

namespace {

wire::Message raw(wire::MessageType type, std::vector<std::byte> head) {
  wire::Message message;
  message.type = static_cast<std::uint16_t>(type);
  message.head = std::move(head);
  return message;
}

}  // namespace

TEST_CASE("hostile: malformed messages to the head are dropped and counted, members notice nothing") {
  World world;
  auto& learner = world.join(wire::Role::learner);
  auto& shard = world.join(wire::Role::replay);
  Rng rng(9);
  std::uint64_t sent = 0;
  const auto before = world.head->traffic().refused;
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> head(rng.below(40) + 200);  // longer than any head of zeros and noise can be
    for (auto& byte : head) byte = static_cast<std::byte>(rng.next());
    const auto type = static_cast<wire::MessageType>(rng.below(80));
    if (type == wire::MessageType::config_get) continue;
    (void)world.tell_head(raw(type, std::move(head)));
    ++sent;
  }
  CHECK(world.head->traffic().refused - before == sent);
  shard.use(5, 5, 0);
  world.pass(Milliseconds(500));
  CHECK(world.head->status().env_steps == 5);
  CHECK(learner.alive(wire::Role::replay).size() == 1);
  CHECK(world.head->status().members.size() == 2);
}

TEST_CASE("hostile: messages in the name of nobody change nothing") {
  World world;
  world.join(wire::Role::learner);
  (void)world.tell_head(wire::encode(wire::Leave{12345, "x"}));
  wire::LedgerReport report;
  report.incarnation = 12345;
  report.used = 1000;
  (void)world.tell_head(wire::encode(report));
  wire::Heartbeat beat;
  beat.incarnation = 12345;
  beat.stop_cause = "because";
  beat.episodes = {{1, 1}};
  const auto replies = world.tell_head(wire::encode(beat));
  REQUIRE(replies.size() == 1);
  CHECK_FALSE(wire::decode<wire::HeartbeatReply>(replies.front()).known);
  CHECK(world.head->status().env_steps == 0);
  CHECK(world.head->status().stop_cause.empty());
  CHECK(world.metric("episodes") == 0);
}

TEST_CASE("hostile: the head writes its file within the run's directory only, and for the present learner only") {
  World world({.run_dir = "/tmp/qanat-no-such-run", .epoch = 2});
  const auto error = [&](std::uint64_t epoch, const std::string& directory) {
    const auto replies = world.tell_head(wire::encode(wire::SaveRequest{epoch, directory}));
    return wire::decode<wire::SaveReply>(replies.at(0)).error;
  };
  CHECK(contains(error(2, "/tmp"), "not within"));
  CHECK(contains(error(2, "/tmp/qanat-no-such-run/../elsewhere"), "not within"));
  CHECK(contains(error(2, "relative"), "not within"));
  CHECK(contains(error(2, ""), "not within"));
  CHECK(contains(error(1, "/tmp/qanat-no-such-run/checkpoints/1"), "epoch 1"));
  // Allowed, and then it is the file system that says no.
  CHECK(contains(error(2, "/tmp/qanat-no-such-run/checkpoints/1"), "No such file"));
}

TEST_CASE("head file: the run's directory may be given in any way") {
  for (const std::string run_dir :
       {"no-such/run", "./no-such/run", "no-such/run/", "/tmp/no-such/run", "/tmp//no-such/./run"}) {
    World world({.run_dir = run_dir, .epoch = 2});
    const auto directory = (std::filesystem::path(run_dir) / "checkpoints" / "1").string();
    const auto replies = world.tell_head(wire::encode(wire::SaveRequest{2, directory}));
    CHECK(contains(wire::decode<wire::SaveReply>(replies.at(0)).error, "No such file"));
  }
}

TEST_CASE("hostile: a member drops and counts what a head cannot have meant") {
  wire::Context context;
  VirtualClock clock;
  wire::Socket head(context, wire::SocketKind::router);
  head.bind("inproc://odd-head");
  Member member(context, clock, {.role = wire::Role::actor, .incarnation = 3, .head = {"inproc://odd-head"}});
  member.step();
  REQUIRE(head.receive_all().size() == 1);
  auto garbage = raw(wire::MessageType::join_reply, std::vector<std::byte>(3));
  REQUIRE(head.send_to("actor-3", garbage) == wire::Sent::yes);
  auto insert = wire::encode(wire::Insert{});
  REQUIRE(head.send_to("actor-3", insert) == wire::Sent::yes);
  CHECK(member.step());
  CHECK_FALSE(member.joined());
  CHECK(member.socket().traffic().refused == 2);
  wire::JoinReply welcome;
  welcome.accepted = true;
  auto answer = wire::encode(welcome);
  REQUIRE(head.send_to("actor-3", answer) == wire::Sent::yes);
  member.step();
  CHECK(member.joined());
}
