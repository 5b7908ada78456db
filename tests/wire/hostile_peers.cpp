// Sockets among peers that lie: what they send is dropped and counted, and honest peers notice nothing.
#include <cstring>

#include "core/checksum.h"
#include "core/error.h"
#include "sockets.h"
#include "tests/support/catch.h"
#include "wire/messages.h"

using namespace qanat;
using namespace qanat::wire;
using namespace qanat::wire::testing;

namespace {

// The frames that an honest peer sends, caught by a raw ROUTER: the material of the lies below.
std::vector<std::string> honest_frames(std::size_t parts) {
  zmq::context_t raw;
  zmq::socket_t router(raw, zmq::socket_type::router);
  router.bind("tcp://127.0.0.1:*");
  Context context;
  Socket client(context, SocketKind::dealer, {.identity = "honest"});
  client.connect(router.get(zmq::sockopt::last_endpoint));
  std::vector<Frame> bulk;
  for (std::size_t i = 0; i < parts; ++i) {
    const std::vector<float> values(4, static_cast<float>(i));
    bulk.push_back(Frame::copy_of(std::span<const float>(values)));
  }
  auto message = encode(Leave{5, "bye"}, std::move(bulk));
  if (client.send(message) != Sent::yes) throw RunError("not sent");
  std::vector<std::string> frames;
  zmq::message_t part;
  (void)router.recv(part);  // the identity
  while (part.more()) {
    (void)router.recv(part);
    frames.push_back(part.to_string());
  }
  return frames;
}

// A server with one liar and one honest peer.
struct Scene {
  explicit Scene(SocketOptions options = {})
      : server(context, SocketKind::router, std::move(options)),
        endpoint(server.bind("tcp://127.0.0.1:*")),
        liar(endpoint, "liar"),
        honest(context, SocketKind::dealer, {.identity = "honest"}) {
    honest.connect(endpoint);
  }

  // Sends the frames, then sees that they were refused for the reason named and that the honest peer gets through.
  void expect_refused(const std::vector<std::string>& frames, const std::string& reason) {
    const auto before = server.traffic().refused;
    liar.send(frames);
    std::vector<Incoming> heard;
    REQUIRE(until(
        server, [&] { return server.traffic().refused > before; }, &heard));
    CHECK(heard.empty());
    CHECK(server.traffic().refused == before + 1);
    INFO(server.last_refusal());
    CHECK(contains(server.last_refusal(), reason));
    honest_gets_through();
  }

  void honest_gets_through() {
    auto question = encode(Leave{9, "honest"});
    REQUIRE(honest.send(question) == Sent::yes);
    const auto heard = next(server);
    REQUIRE(heard);
    CHECK(heard->peer == "honest");
    CHECK(decode<Leave>(*heard).reason == "honest");
    auto answer = encode(Leave{9, "answer"});
    REQUIRE(server.send_to("honest", answer) == Sent::yes);
    REQUIRE(next(honest));
  }

  Context context;
  Socket server;
  std::string endpoint;
  RawPeer liar;
  Socket honest;
};

void put_u16(std::string& bytes, std::size_t at, std::uint16_t value) { std::memcpy(bytes.data() + at, &value, 2); }
void put_u32(std::string& bytes, std::size_t at, std::uint32_t value) { std::memcpy(bytes.data() + at, &value, 4); }

}  // namespace

TEST_CASE("hostile peer: what an honest raw peer sends is accepted, so the refusals below are for the lie") {
  Scene scene;
  scene.liar.send(honest_frames(2));
  const auto heard = next(scene.server);
  REQUIRE(heard);
  CHECK(heard->peer == "liar");
  CHECK(decode<Leave>(*heard).reason == "bye");
  CHECK(heard->parts.size() == 2);
}

TEST_CASE("hostile peer: wrong magic, protocol and sizes are dropped, each by name") {
  Scene scene;
  const auto good = honest_frames(2);
  const auto with = [&](auto change) {
    auto frames = good;
    change(frames);
    return frames;
  };
  scene.expect_refused({""}, "0 bytes");
  scene.expect_refused({std::string(23, 'x')}, "23 bytes");
  scene.expect_refused({std::string(24, 'x')}, "not a Qanat message");
  scene.expect_refused({"", "", "", ""}, "0 bytes");
  scene.expect_refused(with([](auto& f) { f[0][0] ^= 1; }), "not a Qanat message");
  scene.expect_refused(with([](auto& f) { put_u16(f[0], 4, protocol_version + 1); }),
                       text("protocol version ", protocol_version + 1, ", wanted ", protocol_version));
  scene.expect_refused(with([](auto& f) { put_u32(f[0], 8, 0xffffffff); }), "sizes in the envelope");
  scene.expect_refused(with([](auto& f) { put_u32(f[0], 12, 3); }), "sizes in the envelope");
  scene.expect_refused(with([](auto& f) { f.pop_back(); }), "sizes in the envelope");
  scene.expect_refused(with([](auto& f) { f.push_back("more"); }), "sizes in the envelope");
  scene.expect_refused(with([](auto& f) { f[0] += 'x'; }), "sizes in the envelope");
  // The same bytes, cut into parts elsewhere.
  scene.expect_refused(with([](auto& f) {
                         f[2] = f[1].back() + f[2];
                         f[1].pop_back();
                       }),
                       "checksum");
  scene.expect_refused(with([](auto& f) { std::swap(f[1], f[2]); }), "checksum");
}

TEST_CASE("hostile peer: a flipped bit anywhere is noticed") {
  Scene scene;
  const auto good = honest_frames(1);
  std::uint64_t flipped = 0;
  for (std::size_t part = 0; part < good.size(); ++part) {
    for (std::size_t bit = 0; bit < good[part].size() * 8; ++bit) {
      auto frames = good;
      frames[part][bit / 8] = static_cast<char>(frames[part][bit / 8] ^ (1 << (bit % 8)));
      scene.liar.send(frames);
      ++flipped;
    }
  }
  std::vector<Incoming> heard;
  CHECK(until(
      scene.server, [&] { return scene.server.traffic().refused == flipped; }, &heard));
  CHECK(heard.empty());
  CHECK(scene.server.traffic().messages_in == flipped);
  scene.honest_gets_through();
}

TEST_CASE("hostile peer: a message of too many parts is dropped whole, and the next one is read from its beginning") {
  Scene scene({.identity = {}, .max_parts = 3});
  scene.expect_refused(honest_frames(4), "more than 3 parts");
  scene.expect_refused(std::vector<std::string>(5000, "x"), "more than 3 parts");
  scene.liar.send(honest_frames(3));
  const auto heard = next(scene.server);
  REQUIRE(heard);
  CHECK(heard->parts.size() == 3);
}

TEST_CASE("hostile peer: a frame above the limit costs its sender the connection, and nobody else anything") {
  Scene scene({.identity = {}, .max_frame_bytes = 1000});
  scene.honest_gets_through();
  scene.liar.send(honest_frames(0));
  REQUIRE(next(scene.server));
  scene.liar.send({std::string(1001, 'x')});
  scene.honest_gets_through();
  CHECK(scene.server.traffic().messages_in == 3);  // the large one never came in
  // The connection is made anew, so a peer that behaves again is heard again.
  std::optional<Incoming> heard;
  for (int i = 0; i < 200 && !heard; ++i) {
    scene.liar.send(honest_frames(0));
    heard = next(scene.server, Milliseconds(100));
  }
  REQUIRE(heard);
  CHECK(heard->peer == "liar");
}

TEST_CASE("hostile peer: a frame above the limit is refused over inproc as well") {
  Context context;
  Socket server(context, SocketKind::router, {.identity = {}, .max_frame_bytes = 1000});
  server.bind("inproc://large");
  Socket client(context, SocketKind::dealer, {.identity = "a"});
  client.connect("inproc://large");
  std::vector<Frame> parts;
  parts.push_back(Frame(1001));
  auto large = message_of(1, "x", std::move(parts));
  REQUIRE(client.send(large) == Sent::yes);
  CHECK_FALSE(next(server, Milliseconds(50)));
  CHECK(server.traffic().refused == 1);
  CHECK(contains(server.last_refusal(), "1001"));
}

TEST_CASE("hostile peer: a flood of nonsense does not keep receive() from returning") {
  Scene scene;
  const std::uint64_t flood = 900;  // below the high-water mark, above what one call looks at
  for (std::uint64_t i = 0; i < flood; ++i) scene.liar.send({"x"});
  REQUIRE(until(scene.server, [&] { return scene.server.traffic().refused > 0; }));
  std::uint64_t largest_step = 0;
  while (scene.server.traffic().refused < flood) {
    const auto before = scene.server.traffic().refused;
    CHECK_FALSE(next(scene.server, Milliseconds(0)));
    (void)scene.server.receive();
    largest_step = std::max(largest_step, scene.server.traffic().refused - before);
  }
  CHECK(largest_step <= 256);
  scene.honest_gets_through();
}

TEST_CASE("hostile peer: a type that nobody knows is delivered as it is, and refused by whoever decodes it") {
  Context context;
  Socket server(context, SocketKind::router);
  server.bind("inproc://type");
  Socket client(context, SocketKind::dealer, {.identity = "a"});
  client.connect("inproc://type");
  auto odd = message_of(999, "x");
  REQUIRE(client.send(odd) == Sent::yes);
  const auto heard = next(server);
  REQUIRE(heard);
  CHECK_THROWS_AS(decode<Leave>(*heard), InputError);
  server.refuse("type 999");
  CHECK(server.traffic().refused == 1);
  CHECK(server.last_refusal() == "type 999");
}
