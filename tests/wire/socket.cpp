// Sockets among honest peers: round trips over every transport, routing, order, binding.
#include <algorithm>

#include "core/checksum.h"
#include "core/error.h"
#include "sockets.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::wire;
using namespace qanat::wire::testing;

TEST_CASE("frame: moving takes the bytes along and leaves an empty frame") {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{20}, std::size_t{100'000}}) {
    Rng rng(size);
    const auto bytes = noise(rng, size);
    auto frame = Frame::copy_of(bytes);
    Frame moved = std::move(frame);
    CHECK(std::ranges::equal(moved.bytes(), bytes));
    CHECK(frame.size() == 0);  // NOLINT(bugprone-use-after-move): that is what is promised
    Frame assigned(7);
    assigned = std::move(moved);
    CHECK(std::ranges::equal(assigned.bytes(), bytes));
    CHECK(moved.size() == 0);  // NOLINT
    auto& self = assigned;
    assigned = std::move(self);
    CHECK(std::ranges::equal(assigned.bytes(), bytes));
  }
}

TEST_CASE("frame: bytes that are counted count until the last frame with them is gone") {
  const auto held = std::make_shared<HeldBytes>(0);
  {
    Frame frame(1000, held);
    std::memset(frame.mutable_bytes().data(), 7, 1000);
    const Frame twin = frame.share();
    const Frame small(3, held);
    CHECK(*held == 1003);
    frame = Frame(5, held);
    CHECK(*held == 1008);
    CHECK(twin.bytes()[999] == std::byte{7});
  }
  CHECK(*held == 0);
  CHECK(Frame(10, nullptr).size() == 10);
}

TEST_CASE("frame: what was sent over ipc counts no more, what waits for a reader does") {
  Context context;
  const auto held = std::make_shared<HeldBytes>(0);
  Socket server(context, SocketKind::router);
  Socket client(context, SocketKind::dealer, {.identity = "client", .receive_queue = 1});
  client.connect(server.bind(ipc_path("counted")));
  auto hello = message_of(1, "hello");
  REQUIRE(client.send(hello) == Sent::yes);
  REQUIRE(next(server));
  for (int i = 0; i < 10; ++i) {
    std::vector<Frame> parts;
    parts.emplace_back(std::size_t{4} << 20, held);
    auto answer = message_of(2, "rows", std::move(parts));
    REQUIRE(server.send_to("client", answer) == Sent::yes);
  }
  CHECK(*held >= 24U << 20);  // some lie in the sockets
  for (int i = 0; i < 10; ++i) REQUIRE(next(client));
  CHECK(until(client, [&] { return *held == 0; }));
}

TEST_CASE("frame: a checksum follows the bytes through moves and shares, and is computed anew after changes") {
  auto frame = Frame::copy_of(std::vector<std::byte>(1000));
  const auto zeros = frame.checksum();
  CHECK(zeros == checksum(std::vector<std::byte>(1000)));
  auto twin = frame.share();
  CHECK(twin.checksum() == zeros);
  frame = Frame(1000);
  std::ranges::fill(frame.mutable_bytes(), std::byte{1});
  CHECK(frame.checksum() != zeros);
  const Frame moved = std::move(twin);
  CHECK(moved.checksum() == zeros);
  CHECK(twin.checksum() == checksum({}));  // NOLINT(bugprone-use-after-move): it is empty
  frame.set_sent_checksum(zeros);
  CHECK_FALSE(frame.intact());
  std::ranges::fill(frame.mutable_bytes(), std::byte{0});
  CHECK(frame.intact());
}

TEST_CASE("socket: parts are checked on arrival, unless the receiver does that itself") {
  Context context;
  Socket server(context, SocketKind::router);
  const auto endpoint = server.bind("inproc://parts");
  const bool check_parts = GENERATE(true, false);
  Socket client(context, SocketKind::dealer, {.identity = "reader", .check_parts = check_parts});
  client.connect(endpoint);
  Message hello;
  REQUIRE(client.send(hello) == Sent::yes);
  REQUIRE(server.receive());
  Message message;
  for (int i = 0; i < 3; ++i) message.parts.push_back(Frame::copy_of(std::vector<std::byte>(100)));
  auto bytes = message.parts[1].mutable_bytes();
  (void)message.parts[1].checksum();  // from now on the one that is sent
  bytes[50] = std::byte{1};
  REQUIRE(server.send_to("reader", message) == Sent::yes);
  const auto came = client.receive();
  REQUIRE(came.has_value() == !check_parts);
  CHECK(client.traffic().refused == (check_parts ? 1 : 0));
  if (check_parts) {
    CHECK(client.last_refusal() == "checksum mismatch of part 1");
  } else {
    CHECK(came->parts[0].intact());
    CHECK_FALSE(came->parts[1].intact());
    CHECK(came->parts[2].intact());
  }
}

TEST_CASE("frame: a shared frame has the same bytes and outlives the first") {
  Rng rng(6);
  for (const std::size_t size : {std::size_t{0}, std::size_t{20}, std::size_t{100'000}}) {
    const auto bytes = noise(rng, size);
    Frame twin;
    {
      auto frame = Frame::copy_of(bytes);
      twin = frame.share();
      CHECK(std::ranges::equal(frame.bytes(), bytes));
      if (size > 1000) CHECK(twin.bytes().data() == frame.bytes().data());  // not copied
    }
    CHECK(std::ranges::equal(twin.bytes(), bytes));
  }
}

TEST_CASE("socket: parts of 0 bytes, 1 byte and 10 MB go there and back, over every transport") {
  for (const std::string transport : {"inproc://round", "ipc", "tcp://127.0.0.1:*"}) {
    INFO(transport);
    Context context;
    Socket server(context, SocketKind::router);
    const auto endpoint = server.bind(transport == "ipc" ? ipc_path("round") : transport);
    Socket client(context, SocketKind::dealer, {.identity = "me"});
    client.connect(endpoint);

    Rng rng(7);
    const auto large = noise(rng, 10'000'000);
    std::vector<Frame> parts;
    parts.emplace_back();
    parts.push_back(Frame::copy_of(std::span(large).first(1)));
    parts.push_back(Frame::copy_of(large));
    parts.emplace_back();
    auto question = message_of(7, "head", std::move(parts));
    REQUIRE(client.send(question) == Sent::yes);

    auto heard = next(server);
    REQUIRE(heard);
    CHECK(heard->peer == "me");
    CHECK(heard->address == (transport.starts_with("tcp") ? "127.0.0.1" : ""));
    CHECK(heard->type == 7);
    CHECK(head_of(*heard) == "head");
    REQUIRE(heard->parts.size() == 4);
    CHECK(heard->parts[0].size() == 0);
    CHECK(std::ranges::equal(heard->parts[1].bytes(), std::span(large).first(1)));
    CHECK(std::ranges::equal(heard->parts[2].bytes(), large));
    CHECK(heard->parts[3].size() == 0);

    auto echo = message_of(8, "", std::move(heard->parts));
    REQUIRE(server.send_to("me", echo) == Sent::yes);
    const auto back = next(client);
    REQUIRE(back);
    CHECK(back->peer.empty());
    CHECK(back->head.empty());
    REQUIRE(back->parts.size() == 4);
    CHECK(std::ranges::equal(back->parts[2].bytes(), large));

    CHECK(client.traffic().messages_out == 1);
    CHECK(client.traffic().bytes_out == server.traffic().bytes_in);
    CHECK(client.traffic().bytes_in == server.traffic().bytes_out);
    CHECK(server.traffic().refused + client.traffic().refused == 0);
  }
}

TEST_CASE("socket: a publisher's messages reach every subscriber, and nobody's loss is its business") {
  Context context;
  Socket publisher(context, SocketKind::publisher);
  const auto endpoint = publisher.bind("tcp://127.0.0.1:*");
  auto unheard = message_of(1, "nobody listens");
  CHECK(publisher.send(unheard) == Sent::yes);
  Socket one(context, SocketKind::subscriber);
  Socket two(context, SocketKind::subscriber);
  one.connect(endpoint);
  two.connect(endpoint);
  // A subscription takes a while to arrive: repeated until both have heard.
  std::optional<Incoming> first;
  std::optional<Incoming> second;
  for (int i = 0; i < 2000 && !(first && second); ++i) {
    auto news = message_of(2, "news");
    REQUIRE(publisher.send(news) == Sent::yes);
    if (!first) first = next(one, Milliseconds(5));
    if (!second) second = next(two, Milliseconds(5));
  }
  REQUIRE(first);
  REQUIRE(second);
  CHECK(head_of(*first) == "news");
  CHECK(head_of(*second) == "news");
}

TEST_CASE("socket: sending to a peer that is not there says unreachable, and the message is kept") {
  Context context;
  Socket server(context, SocketKind::router);
  server.bind("inproc://unreachable");
  std::vector<Frame> parts;
  parts.push_back(Frame(10));
  auto message = message_of(1, "x", std::move(parts));
  CHECK(server.send_to("nobody", message) == Sent::unreachable);
  REQUIRE(message.parts.size() == 1);
  CHECK(message.parts[0].size() == 10);
  CHECK(server.traffic().messages_out == 0);
}

TEST_CASE("socket: a peer that does not read makes sending say would_block, and the rest arrives in order") {
  Context context;
  Socket server(context, SocketKind::router, {.identity = {}, .send_queue = 4});
  server.bind("inproc://full");
  Socket client(context, SocketKind::dealer, {.identity = "slow", .receive_queue = 4});
  client.connect("inproc://full");
  auto hello = message_of(1, "hello");
  REQUIRE(client.send(hello) == Sent::yes);
  REQUIRE(next(server));
  int sent = 0;
  for (;; ++sent) {
    REQUIRE(sent < 100);
    std::vector<Frame> parts;
    parts.push_back(Frame(10));
    auto message = message_of(1, std::to_string(sent), std::move(parts));
    const auto result = server.send_to("slow", message);
    if (result == Sent::would_block) {
      CHECK(message.parts[0].size() == 10);  // may be tried again
      break;
    }
    REQUIRE(result == Sent::yes);
  }
  CHECK(sent >= 4);
  for (int i = 0; i < sent; ++i) {
    const auto heard = next(client);
    REQUIRE(heard);
    CHECK(head_of(*heard) == std::to_string(i));
  }
  // Word of the room that reading made travels by itself; until it is here the socket goes on saying would_block.
  auto after = message_of(1, "after");
  const SteadyClock clock;
  for (const auto end = clock.now() + patience; server.send_to("slow", after) != Sent::yes;) REQUIRE(clock.now() < end);
  const auto heard = next(client);
  REQUIRE(heard);
  CHECK(head_of(*heard) == "after");
}

TEST_CASE("socket: a dealer without a peer blocks at its high-water mark and not before") {
  Context context;
  Socket client(context, SocketKind::dealer, {.identity = "alone", .send_queue = 3});
  client.connect("tcp://127.0.0.1:1");  // nobody listens there
  for (int i = 0; i < 3; ++i) {
    auto message = message_of(1, "x");
    CHECK(client.send(message) == Sent::yes);
  }
  auto message = message_of(1, "x");
  CHECK(client.send(message) == Sent::would_block);
}

TEST_CASE("socket: receive_all orders by peer and keeps each peer's own order") {
  Context context;
  Socket server(context, SocketKind::router);
  server.bind("inproc://order");
  std::vector<Socket> clients;
  for (const char* name : {"c", "a", "b"}) {
    clients.emplace_back(context, SocketKind::dealer, SocketOptions{.identity = name});
    clients.back().connect("inproc://order");
  }
  for (int i = 0; i < 3; ++i) {
    for (auto& client : clients) {
      auto message = message_of(1, std::to_string(i));
      REQUIRE(client.send(message) == Sent::yes);
    }
  }
  std::string order;
  for (const auto& heard : server.receive_all()) order += heard.peer + head_of(heard) + " ";
  CHECK(order == "a0 a1 a2 b0 b1 b2 c0 c1 c2 ");
  CHECK(server.receive_all().empty());
}

TEST_CASE("socket: receive_all stops at its limit and loses nothing") {
  Context context;
  Socket server(context, SocketKind::router);
  server.bind("inproc://limit");
  Socket client(context, SocketKind::dealer, {.identity = "a"});
  client.connect("inproc://limit");
  for (int i = 0; i < 10; ++i) {
    auto message = message_of(1, std::to_string(i));
    REQUIRE(client.send(message) == Sent::yes);
  }
  CHECK(server.receive_all(4).size() == 4);
  const auto rest = server.receive_all(100);
  REQUIRE(rest.size() == 6);
  CHECK(head_of(rest.front()) == "4");
}

TEST_CASE("socket: binding to a taken port names the endpoint and the reason") {
  Context context;
  Socket first(context, SocketKind::router);
  const auto endpoint = first.bind("tcp://127.0.0.1:*");
  Socket second(context, SocketKind::router);
  try {
    second.bind(endpoint);
    FAIL("it was taken");
  } catch (const SystemError& error) {
    INFO(error.what());
    CHECK(contains(error.what(), endpoint));
    CHECK(contains(error.what(), "in use"));
  }
}

TEST_CASE("socket: endpoints that cannot be are refused by name") {
  Context context;
  Socket socket(context, SocketKind::router);
  CHECK_THROWS_AS(socket.bind("nonsense"), SystemError);
  CHECK_THROWS_AS(socket.bind("ipc:///no/such/directory/socket"), SystemError);
  CHECK_THROWS_AS(socket.bind("ipc:///tmp/" + std::string(200, 'x')), SystemError);  // longer than a path may be
  Socket dealer(context, SocketKind::dealer);
  try {
    dealer.connect("tcp://127.0.0.1");
    FAIL("no port");
  } catch (const SystemError& error) {
    INFO(error.what());
    CHECK(contains(error.what(), "tcp://127.0.0.1"));
    CHECK(contains(error.what(), "HOST:PORT"));
  }
}

TEST_CASE("socket: wildcard ports become real ones, and several binds may stand side by side") {
  Context context;
  Socket server(context, SocketKind::router);
  const auto star = server.bind("tcp://127.0.0.1:*");
  const auto zero = server.bind("tcp://127.0.0.1:0");
  const auto anywhere = server.bind("tcp://*:*");
  CHECK(star.starts_with("tcp://127.0.0.1:"));
  CHECK(std::stoi(star.substr(16)) > 0);
  CHECK(std::stoi(zero.substr(16)) > 0);
  CHECK(star != zero);
  CHECK(anywhere.starts_with("tcp://0.0.0.0:"));
  int index = 0;
  for (const auto& endpoint : {star, zero, "tcp://127.0.0.1:" + anywhere.substr(14)}) {
    Socket client(context, SocketKind::dealer, {.identity = "c" + std::to_string(index++)});
    client.connect(endpoint);
    auto message = message_of(1, "x");
    REQUIRE(client.send(message) == Sent::yes);
    CHECK(next(server));
  }
}

TEST_CASE("socket: options that cannot be are an error of ours, not ZeroMQ's") {
  Context context;
  CHECK_THROWS_AS(Socket(context, SocketKind::dealer, {.identity = std::string(256, 'x')}), SystemError);
  CHECK_NOTHROW(Socket(context, SocketKind::dealer, {.identity = std::string(255, 'x')}));
}

TEST_CASE("socket: of two dealers with one identity the newer gets the replies") {
  Context context;
  Socket server(context, SocketKind::router);
  server.bind("inproc://handover");
  Socket older(context, SocketKind::dealer, {.identity = "twin"});
  older.connect("inproc://handover");
  auto message = message_of(1, "older");
  REQUIRE(older.send(message) == Sent::yes);
  REQUIRE(next(server));
  Socket newer(context, SocketKind::dealer, {.identity = "twin"});
  newer.connect("inproc://handover");
  auto message_newer = message_of(1, "newer");
  REQUIRE(newer.send(message_newer) == Sent::yes);
  auto heard = next(server);
  REQUIRE(heard);
  CHECK(head_of(*heard) == "newer");
  auto reply = message_of(1, "reply");
  REQUIRE(server.send_to("twin", reply) == Sent::yes);
  const auto got = next(newer);
  REQUIRE(got);
  CHECK(head_of(*got) == "reply");
  CHECK_FALSE(older.receive());
}

TEST_CASE("socket: a dealer that comes back under its identity is reached again") {
  Context context;
  Socket server(context, SocketKind::router);
  const auto endpoint = server.bind(ipc_path("back"));
  for (int life = 0; life < 3; ++life) {
    Context own;
    Socket client(own, SocketKind::dealer, {.identity = "phoenix"});
    client.connect(endpoint);
    auto message = message_of(1, "x");
    REQUIRE(client.send(message) == Sent::yes);
    REQUIRE(next(server));
    auto reply = message_of(1, std::to_string(life));
    REQUIRE(server.send_to("phoenix", reply) == Sent::yes);
    const auto got = next(client);
    REQUIRE(got);
    CHECK(head_of(*got) == std::to_string(life));
  }
}

TEST_CASE("socket: linger lets last words out") {
  Context context;
  Socket server(context, SocketKind::router);
  const auto endpoint = server.bind("tcp://127.0.0.1:*");
  for (int i = 0; i < 20; ++i) {
    Context own;
    Socket client(own, SocketKind::dealer, {.identity = "c" + std::to_string(i), .linger = Milliseconds(10'000)});
    client.connect(endpoint);
    auto message = message_of(1, "bye");
    REQUIRE(client.send(message) == Sent::yes);
  }
  for (int i = 0; i < 20; ++i) CHECK(next(server));
}

TEST_CASE("socket: waiting on nothing is a pause, not an error") {
  wait({}, Milliseconds(1));
  SUCCEED("it came back");
}
