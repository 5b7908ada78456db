// An actor's link to a shard when answers come late: a shard that paused must not cost a stream.
#include "actors/shard_link.h"

#include <array>

#include "tests/support/catch.h"
#include "tests/support/rebind.h"

namespace qanat::system_test {
namespace {

constexpr std::uint64_t actor = 7;
constexpr std::uint64_t shard = 8;

// A link with three chunks of one stream in flight, and the shard's side of it, which the test plays.
struct Link {
  explicit Link(const std::string& endpoint = "inproc://shard-link", int io_threads = 0)
      : context(io_threads),
        address(router.bind(endpoint)),
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
    REQUIRE(received_within(std::chrono::seconds(20), 3));
  }

  std::size_t received() { return router.receive_all().size(); }
  // In real time; exactly so many, and no more a moment later.
  bool received_within(Seconds limit, std::size_t messages) {
    const SteadyClock real;
    const auto end = real.now() + std::chrono::duration_cast<Nanoseconds>(limit);
    std::size_t seen = 0;
    while (seen < messages && real.now() < end) {
      (void)link.step(1, events);
      std::array sockets{&router};
      wire::wait(sockets, Milliseconds(10));
      seen += received();
    }
    return seen == messages;
  }
  void answer(std::vector<wire::StreamAck> acks) {
    auto message = wire::encode(wire::InsertAck{shard, std::move(acks)});
    REQUIRE(router.send_to("actor-7", message) == wire::Sent::yes);
    (void)link.step(1, events);
  }
  static wire::StreamAck refused(std::uint64_t wanted, std::uint64_t sequence) {
    return {actor, 0, wanted, wire::AckStatus::refused, "saw another chunk", sequence};
  }
  static wire::StreamAck applied(std::uint64_t next) { return {actor, 0, next, wire::AckStatus::applied, {}}; }

  wire::Context context;
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
  it.answer({Link::refused(0, 1)});
  CHECK(it.received() == 3);
  it.clock.advance(std::chrono::seconds(5));
  it.answer({Link::refused(0, 2), Link::applied(1), Link::applied(2), Link::applied(3)});
  CHECK(it.events.refused.empty());
  CHECK(it.events.acked.size() == 3);
  CHECK(it.link.unacked().empty());
}

TEST_CASE("link: a chunk that is lost again and again is sent again and again", "[link]") {
  Link it;
  for (int times = 0; times < 5; ++times) {
    it.answer({Link::refused(0, 1), Link::refused(0, 2)});
    CHECK(it.received() == 3);  // once: the second refusal is of the same gap
    it.clock.advance(std::chrono::seconds(3));
  }
  it.answer({Link::applied(1), Link::applied(2), Link::applied(3)});
  CHECK(it.events.refused.empty());
  CHECK(it.link.unacked().empty());
}

TEST_CASE("link: what the shard refuses soon after a resend does not put the next one off", "[link]") {
  Link it;
  for (const int wait : {2, 4, 8, 16}) {  // a long cut: nothing was heard for so long that the next resend is far
    it.clock.advance(std::chrono::seconds(wait));
    (void)it.link.step(1, it.events);
    CHECK(it.received() == 3);
  }
  it.clock.advance(std::chrono::seconds(1));
  it.answer({Link::refused(0, 1)});  // and the resend was lost
  CHECK(it.received() == 0);
  it.clock.advance(std::chrono::seconds(2));
  (void)it.link.step(1, it.events);
  CHECK(it.received() == 3);
}

TEST_CASE("link: a chunk that the shard wants and will not have ends the stream at once", "[link]") {
  Link it;
  it.answer({Link::refused(0, 0)});
  REQUIRE(it.events.refused.size() == 1);
  CHECK(it.events.refused[0].chunks == 3);
  CHECK(it.events.refused[0].steps == 3);
  CHECK(it.events.refused[0].from_the_start);
  CHECK(it.link.unacked().empty());
}

TEST_CASE("link: over a new connection all that is not acknowledged is sent again at once", "[link]") {
  Link it("tcp://127.0.0.1:*", 1);
  test::rebind(it.router, it.context, wire::SocketKind::router, it.address);
  // The link's clock stands still: it is the connection that it goes by.
  CHECK(it.received_within(std::chrono::seconds(20), 3));
}

}  // namespace qanat::system_test
