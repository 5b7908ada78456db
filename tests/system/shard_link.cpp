// An actor's link to a shard when answers come late: a shard that paused must not cost a stream.
#include "actors/shard_link.h"

#include "tests/support/catch.h"

namespace qanat::system_test {
namespace {

constexpr std::uint64_t actor = 7;
constexpr std::uint64_t shard = 8;

// A link with three chunks of one stream in flight, and the shard's side of it, which the test plays.
struct Link {
  Link()
      : address(router.bind("inproc://shard-link")),
        link(context, clock, {"actor-7", actor, shard, address, Milliseconds(2000)}) {
    for (std::uint64_t sequence = 0; sequence < 3; ++sequence) {
      wire::Insert insert;
      insert.chunks.resize(1);
      insert.chunks[0].incarnation = actor;
      insert.chunks[0].sequence = sequence;
      insert.chunks[0].first_row = sequence;
      insert.chunks[0].rows = 1;
      std::vector<wire::Frame> parts;
      parts.push_back(wire::Frame::copy_of(std::span<const std::uint8_t>(std::vector<std::uint8_t>{0})));
      link.queue(std::move(insert), std::move(parts));
    }
    (void)link.step(1, events);
    REQUIRE(received() == 3);
  }

  std::size_t received() { return router.receive_all().size(); }
  void answer(std::vector<wire::StreamAck> acks) {
    auto message = wire::encode(wire::InsertAck{shard, std::move(acks)});
    REQUIRE(router.send_to("actor-7", message) == wire::Sent::yes);
    (void)link.step(1, events);
  }
  static wire::StreamAck refused(std::uint64_t wanted) {
    return {actor, 0, wanted, wire::AckStatus::refused, "saw another chunk"};
  }
  static wire::StreamAck applied(std::uint64_t next) { return {actor, 0, next, wire::AckStatus::applied, {}}; }

  wire::Context context{0};
  VirtualClock clock;
  wire::Socket router{context, wire::SocketKind::router};
  std::string address;
  actors::ShardLink link;
  actors::ShardLink::Events events;
};

}  // namespace

TEST_CASE("link: a refusal from before the resend does not end the stream, however late it comes", "[link]") {
  Link it;
  // Chunk 0 was lost. The shard refuses chunk 1, is stopped for a while, and then goes on with what stands in its
  // queue: chunk 2 of before, and all three again.
  it.answer({Link::refused(0)});
  CHECK(it.received() == 3);
  it.clock.advance(std::chrono::seconds(5));
  it.answer({Link::refused(0), Link::applied(1), Link::applied(2), Link::applied(3)});
  CHECK(it.events.refused.empty());
  CHECK(it.events.acked.size() == 3);
  CHECK(it.link.unacked().empty());
}

TEST_CASE("link: a chunk that is lost twice is sent a third time", "[link]") {
  Link it;
  it.answer({Link::refused(0)});
  CHECK(it.received() == 3);
  it.clock.advance(std::chrono::seconds(3));
  it.answer({Link::refused(0)});
  CHECK(it.received() >= 3);
  it.answer({Link::applied(1), Link::applied(2), Link::applied(3)});
  CHECK(it.events.refused.empty());
  CHECK(it.link.unacked().empty());
}

TEST_CASE("link: a chunk that the shard will not have, time after time, ends the stream", "[link]") {
  Link it;
  int tries = 0;
  while (it.events.refused.empty()) {
    REQUIRE(++tries < 10);
    it.answer({Link::refused(0)});
    it.clock.advance(std::chrono::seconds(3));
  }
  CHECK(tries == 4);
  REQUIRE(it.events.refused.size() == 1);
  CHECK(it.events.refused[0].chunks == 3);
  CHECK(it.events.refused[0].steps == 3);
  CHECK(it.events.refused[0].from_the_start);
  CHECK(it.link.unacked().empty());
}

}  // namespace qanat::system_test
