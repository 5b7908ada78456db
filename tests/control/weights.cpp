// Weights on their way: the newest one reaches who is behind, whatever was missed, and nothing older ever does.
#include "control/weights.h"

#include <numeric>

#include "core/checksum.h"
#include "tests/support/catch.h"
#include "tests/support/rebind.h"
#include "world.h"

using namespace qanat;
using namespace qanat::control;
using wire::WeightVersion;

namespace {

constexpr std::uint64_t layout = 42;

std::vector<float> parameters(float value, std::size_t count = 5) {
  std::vector<float> out(count);
  std::iota(out.begin(), out.end(), value);
  return out;
}

struct Wire {
  WeightSubscriber subscriber(const std::string& identity, bool for_evaluation = false) {
    return WeightSubscriber(context, clock, identity, for_evaluation);
  }
  void connect(WeightSubscriber& to) const { to.connect("inproc://w-announce", "inproc://w-weights"); }
  // Both sides act, no time passes.
  bool settle(WeightSubscriber& subscriber) {
    bool newer = false;
    for (int round = 0; round < 4; ++round) {
      publisher.step();
      newer |= subscriber.step(layout);
    }
    return newer;
  }

  wire::Context context;
  VirtualClock clock;
  WeightPublisher publisher{context, {"inproc://w"}};
};

bool same(std::span<const float> a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

}  // namespace

TEST_CASE("weights: a subscriber gets what was published, bit for bit") {
  Wire wire;
  auto actor = wire.subscriber("actor");
  CHECK_FALSE(actor.connected());
  CHECK_FALSE(actor.step(layout));
  wire.connect(actor);
  CHECK_FALSE(actor.available());
  wire.publisher.publish({1, 10}, layout, parameters(0.1F));
  CHECK(wire.settle(actor));
  CHECK(actor.available());
  CHECK(actor.version() == WeightVersion{1, 10});
  CHECK(same(actor.parameters(), parameters(0.1F)));
  CHECK(actor.statistics().empty());
  CHECK_FALSE(wire.settle(actor));  // once
}

TEST_CASE("weights: their statistics come with them, to actors and back with an evaluation") {
  Wire wire;
  const std::vector<std::byte> first{std::byte{1}, std::byte{2}, std::byte{3}};
  const std::vector<std::byte> second{std::byte{4}};
  const auto is = [](std::span<const std::byte> seen, const std::vector<std::byte>& wanted) {
    return std::equal(seen.begin(), seen.end(), wanted.begin(), wanted.end());
  };
  wire.publisher.publish({1, 1}, layout, parameters(1), first);
  auto actor = wire.subscriber("late");
  wire.connect(actor);
  CHECK(wire.settle(actor));
  CHECK(is(actor.statistics(), first));
  auto evaluator = wire.subscriber("evaluator", true);
  wire.connect(evaluator);
  CHECK(wire.settle(evaluator));
  wire.publisher.publish({1, 2}, layout, parameters(1), second);  // the same parameters
  wire.clock.advance(Milliseconds(5500));                         // the announcement may be lost
  CHECK(wire.settle(actor));
  CHECK(is(actor.statistics(), second));
  evaluator.report({.version = {1, 1}});
  wire.settle(evaluator);
  CHECK(wire.publisher.take_evaluations().at(0).statistics == first);
  actor.adopt({1, 9}, parameters(2), first);
  CHECK(is(actor.statistics(), first));
}

TEST_CASE("weights: asked for before there are any, they come when they are published, without a further question") {
  Wire wire;
  auto actor = wire.subscriber("actor");
  wire.connect(actor);
  wire.settle(actor);
  wire.publisher.publish({1, 1}, layout, parameters(1));
  CHECK(actor.step(layout));
  CHECK(actor.version() == WeightVersion{1, 1});
}

TEST_CASE("weights: a late subscriber gets the newest and nothing in between") {
  Wire wire;
  for (std::uint64_t version = 1; version <= 10; ++version) {
    wire.publisher.publish({1, version}, layout, parameters(static_cast<float>(version)));
  }
  auto actor = wire.subscriber("actor");
  wire.connect(actor);
  CHECK(wire.settle(actor));
  CHECK(actor.version() == WeightVersion{1, 10});
  CHECK(same(actor.parameters(), parameters(10)));
  CHECK(wire.publisher.traffic().messages_out == 11);  // ten announcements, one answer
}

TEST_CASE("weights: who was busy gets the newest of many, in one fetch") {
  Wire wire;
  auto actor = wire.subscriber("actor");
  wire.connect(actor);
  wire.publisher.publish({1, 1}, layout, parameters(1));
  REQUIRE(wire.settle(actor));
  const auto before = wire.publisher.traffic().messages_out;
  for (std::uint64_t version = 2; version <= 20; ++version) {
    wire.publisher.publish({1, version}, layout, parameters(static_cast<float>(version)));
  }
  wire.clock.advance(std::chrono::seconds(10));  // should the subscription have been late
  CHECK(wire.settle(actor));
  CHECK(actor.version() == WeightVersion{1, 20});
  CHECK(wire.publisher.traffic().messages_out - before == 19 + 1);
}

TEST_CASE("weights: a lost announcement is made good within seconds") {
  Wire wire;
  auto actor = wire.subscriber("actor");
  actor.connect("inproc://nobody-announces-here", "inproc://w-weights");
  wire.publisher.publish({1, 1}, layout, parameters(1));
  REQUIRE(wire.settle(actor));
  wire.publisher.publish({1, 2}, layout, parameters(2));
  CHECK_FALSE(wire.settle(actor));
  wire.clock.advance(std::chrono::seconds(5));
  CHECK(wire.settle(actor));
  CHECK(actor.version() == WeightVersion{1, 2});
}

TEST_CASE("weights: a question is open once, and repeated ever more seldom while no answer comes") {
  wire::Context context;
  VirtualClock clock;
  wire::Socket learner(context, wire::SocketKind::router);
  learner.bind("inproc://silent");
  WeightSubscriber actor(context, clock, "actor");
  actor.connect("inproc://no-news", "inproc://silent");
  std::size_t questions = 0;
  const auto pass = [&](Milliseconds time) {
    for (const auto end = clock.now() + time; clock.now() < end; clock.advance(Milliseconds(10))) {
      actor.step(layout);
      questions += learner.receive_all().size();
    }
  };
  pass(Milliseconds(200));
  CHECK(questions == 1);
  pass(Milliseconds(500));
  CHECK(questions == 2);  // after 0.25 s, the next after 0.75
  pass(Milliseconds(60'000));
  CHECK(questions < 16);  // doubling up to 8 s; each 0.25 s it would be 240
  CHECK(questions > 8);
}

TEST_CASE("weights: versions are ordered by epoch first, and an epoch below the required one is ignored") {
  Wire wire;
  auto actor = wire.subscriber("actor");
  wire.connect(actor);
  wire.publisher.publish({1, 1000}, layout, parameters(1));
  REQUIRE(wire.settle(actor));
  wire.publisher.publish({2, 3}, layout, parameters(2));  // a new learner, back at its checkpoint
  wire.clock.advance(std::chrono::seconds(10));
  CHECK(wire.settle(actor));
  CHECK(actor.version() == WeightVersion{2, 3});
  wire.publisher.publish({1, 2000}, layout, parameters(3));  // the old one wakes up
  wire.clock.advance(std::chrono::seconds(10));
  CHECK_FALSE(wire.settle(actor));
  CHECK(actor.version() == WeightVersion{2, 3});

  auto late = wire.subscriber("late");
  late.require_epoch(2);
  wire.connect(late);
  wire.clock.advance(std::chrono::seconds(10));
  CHECK_FALSE(wire.settle(late));
  CHECK_FALSE(late.available());
}

TEST_CASE("weights: those of another network are refused loudly, whatever their version") {
  Wire wire;
  auto actor = wire.subscriber("actor");
  wire.connect(actor);
  wire.publisher.publish({1, 1}, layout + 1, parameters(1));
  CHECK_THROWS_AS(wire.settle(actor), InputError);
  CHECK_FALSE(actor.available());
}

TEST_CASE("weights: a subscriber switches over to a new learner and keeps counting its traffic") {
  Wire wire;
  auto actor = wire.subscriber("actor");
  wire.connect(actor);
  wire.publisher.publish({1, 1}, layout, parameters(1));
  REQUIRE(wire.settle(actor));
  const auto before = actor.traffic().messages_in;
  WeightPublisher other(wire.context, {"inproc://other"});
  other.publish({2, 1}, layout, parameters(2));
  actor.connect("inproc://other-announce", "inproc://other-weights");
  for (int i = 0; i < 4; ++i) {
    other.step();
    actor.step(layout);
  }
  CHECK(actor.version() == WeightVersion{2, 1});
  CHECK(actor.traffic().messages_in > before);
}

TEST_CASE("weights: adopted ones count as seen") {
  Wire wire;
  wire.publisher.publish({1, 5}, layout, parameters(5));
  auto actor = wire.subscriber("actor");
  wire.connect(actor);
  actor.adopt({1, 5}, parameters(50));
  wire.clock.advance(std::chrono::seconds(20));
  CHECK_FALSE(wire.settle(actor));
  CHECK(same(actor.parameters(), parameters(50)));
  wire.publisher.publish({1, 6}, layout, parameters(6));
  CHECK(wire.settle(actor));
  CHECK(same(actor.parameters(), parameters(6)));
}

TEST_CASE("evaluation: the evaluator's weights stay until it asks, and the learner has kept what it reports on") {
  Wire wire;
  auto evaluator = wire.subscriber("evaluator", true);
  evaluator.fetch_when_asked(true);
  wire.connect(evaluator);
  wire.publisher.publish({1, 1}, layout, parameters(1));
  wire.clock.advance(std::chrono::seconds(10));
  CHECK_FALSE(wire.settle(evaluator));
  evaluator.ask();
  CHECK(wire.settle(evaluator));
  for (std::uint64_t version = 2; version <= 50; ++version) {
    wire.publisher.publish({1, version}, layout, parameters(static_cast<float>(version)));
    wire.clock.advance(std::chrono::seconds(1));
    CHECK_FALSE(wire.settle(evaluator));
  }
  CHECK(evaluator.version() == WeightVersion{1, 1});
  evaluator.report({evaluator.version(), 20, 1.5, 0.1, 30});
  wire.publisher.step();
  const auto evaluations = wire.publisher.take_evaluations();
  REQUIRE(evaluations.size() == 1);
  CHECK(evaluations[0].report.mean == 1.5);
  CHECK(evaluations[0].report.episodes == 20);
  CHECK(evaluations[0].parameters == parameters(1));
  CHECK(wire.publisher.take_evaluations().empty());
  evaluator.ask();
  CHECK(wire.settle(evaluator));
  CHECK(evaluator.version() == WeightVersion{1, 50});
}

TEST_CASE("evaluation: a question asked when there is nothing newer is answered at the next publishing") {
  Wire wire;
  auto evaluator = wire.subscriber("evaluator", true);
  evaluator.fetch_when_asked(true);
  wire.connect(evaluator);
  wire.publisher.publish({1, 1}, layout, parameters(1));
  evaluator.ask();
  REQUIRE(wire.settle(evaluator));
  evaluator.ask();
  CHECK_FALSE(wire.settle(evaluator));
  wire.publisher.publish({1, 2}, layout, parameters(2));
  CHECK(wire.settle(evaluator));
  evaluator.report({{1, 2}, 1, 0, 0, 0});
  wire.publisher.step();
  CHECK(wire.publisher.take_evaluations().at(0).parameters == parameters(2));
}

TEST_CASE("evaluation: a report about weights that nobody kept comes without them") {
  Wire wire;
  auto evaluator = wire.subscriber("evaluator", true);
  wire.connect(evaluator);
  evaluator.report({{9, 9}, 1, 0, 0, 0});
  wire.publisher.step();
  const auto evaluations = wire.publisher.take_evaluations();
  REQUIRE(evaluations.size() == 1);
  CHECK(evaluations[0].parameters.empty());
}

TEST_CASE("weights: what is malformed is dropped and counted, on either side, and the next is taken") {
  Wire wire;
  wire::Socket stranger(wire.context, wire::SocketKind::dealer, {.identity = "stranger"});
  stranger.connect("inproc://w-weights");
  wire::Message garbage;
  garbage.type = static_cast<std::uint16_t>(wire::MessageType::weights_get);
  garbage.head.resize(3);
  REQUIRE(stranger.send(garbage) == wire::Sent::yes);
  auto leave = wire::encode(wire::Leave{1, ""});
  REQUIRE(stranger.send(leave) == wire::Sent::yes);
  wire.publisher.step();
  CHECK(wire.publisher.traffic().refused == 2);

  wire::Socket liar(wire.context, wire::SocketKind::router);
  liar.bind("inproc://liar");
  auto actor = wire.subscriber("actor");
  actor.connect("inproc://w-announce", "inproc://liar");
  actor.step(layout);
  REQUIRE(liar.receive_all().size() == 1);
  const auto answer = [&](std::uint64_t hash, std::size_t count, std::size_t bytes) {
    std::vector<wire::Frame> parts;
    for (std::size_t i = 0; i < count; ++i) {
      const std::vector<std::byte> zeros(bytes);
      parts.push_back(wire::Frame::copy_of(zeros));
    }
    auto message = wire::encode(wire::Weights{{1, 1}, hash, layout}, std::move(parts));
    REQUIRE(liar.send_to("actor", message) == wire::Sent::yes);
    return actor.step(layout);
  };
  const auto sum_of = [](std::size_t bytes) { return checksum(std::vector<std::byte>(bytes)); };
  // The hash of weights is that of the checksums of their parts.
  const auto hash = [](std::vector<std::uint64_t> sums) { return checksum(std::as_bytes(std::span(sums))); };
  CHECK_FALSE(answer(hash({sum_of(8), sum_of(8)}), 1, 8));
  CHECK_FALSE(answer(hash({sum_of(8), sum_of(8)}), 3, 8));
  CHECK_FALSE(answer(hash({sum_of(8)}), 2, 8));
  CHECK_FALSE(answer(sum_of(16), 2, 8));
  CHECK_FALSE(answer(hash({sum_of(7), sum_of(7)}), 2, 7));
  CHECK(actor.traffic().refused == 5);
  CHECK(answer(hash({sum_of(8), sum_of(8)}), 2, 8));
}

TEST_CASE("weights: a question that went with a broken connection is put again over the next one") {
  wire::Context context(1);
  VirtualClock clock;
  wire::Socket router(context, wire::SocketKind::router);
  const auto address = router.bind("tcp://127.0.0.1:*");
  WeightSubscriber actor(context, clock, "actor");
  actor.connect("tcp://127.0.0.1:1", address);
  const auto asked = [&] {
    const SteadyClock real;
    const auto end = real.now() + std::chrono::seconds(20);
    while (real.now() < end) {
      (void)actor.step(layout);
      wire::Socket* const sockets[] = {&router};
      wire::wait(sockets, Milliseconds(10));
      if (const auto message = router.receive()) {
        (void)wire::decode<wire::WeightsGet>(*message);
        return true;
      }
    }
    return false;
  };
  // The clock stands still: the subscriber does not lose its patience.
  for (int connections = 0; connections < 3; ++connections) {
    REQUIRE(asked());
    test::rebind(router, context, wire::SocketKind::router, address);
  }
}
