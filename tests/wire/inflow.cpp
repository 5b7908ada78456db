// Messages that never end: by ZMTP's framing alone, and from a peer that speaks it by hand.
#include "wire/inflow.h"

#include <sys/socket.h>
#include <unistd.h>

#include <fstream>

#include "core/files.h"
#include "dial.h"
#include "sockets.h"
#include "tests/support/catch.h"
#include "wire/messages.h"

using namespace qanat;
using namespace qanat::wire;
using namespace qanat::wire::testing;

namespace {

constexpr char more = 1;
constexpr char long_size = 2;
constexpr char command = 4;

std::string greeting(char major = 3) {
  std::string out(64, '\0');
  out[0] = '\xff';
  out[9] = '\x7f';
  out[10] = major;
  out.replace(12, 4, "NULL");
  return out;
}

std::string front(char flags, std::uint64_t size) {
  std::string out(1, flags);
  const int bytes = (flags & long_size) != 0 ? 8 : 1;
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(size >> (8 * i) & 0xff);
  return out;
}

std::string part(char flags, std::size_t size) { return front(flags, size) + std::string(size, 'x'); }

std::string ready() {
  const std::string body = std::string("\5READY\13Socket-Type\0\0\0\6DEALER", 28);
  return front(command, body.size()) + body;
}

// Whether all of it is within the limits, cut into pieces of `piece` bytes.
bool within(MessageLimits limits, const std::string& bytes, std::size_t piece) {
  MessageMeter meter(limits);
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    if (!meter.take(std::as_bytes(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at))))) return false;
  }
  return true;
}

// A connection that ZeroMQ takes for one of its own.
class ByHand {
 public:
  explicit ByHand(const std::string& endpoint) : fd_(dial(endpoint)) {
    REQUIRE(fd_.get() >= 0);
    REQUIRE(send(greeting() + ready()));
    // Nothing may follow before the other side is ready too.
    std::string heard;
    while (heard.size() < 66 || heard.size() < 66 + static_cast<std::size_t>(heard[65])) {
      char bytes[256];
      const auto got = ::recv(fd_.get(), bytes, sizeof bytes, 0);
      REQUIRE(got > 0);
      heard.append(bytes, static_cast<std::size_t>(got));
    }
  }
  // False: the connection is over.
  bool send(const std::string& bytes) {
    for (std::size_t at = 0; at < bytes.size();) {
      const auto put = ::send(fd_.get(), bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (put <= 0) return false;
      at += static_cast<std::size_t>(put);
    }
    return true;
  }

 private:
  FileDescriptor fd_;
};

std::uint64_t resident_bytes() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

void costs_its_sender_the_connection(const std::string& address) {
  Context context;
  Socket server(context, SocketKind::router, {.max_frame_bytes = 8 << 20});
  const auto endpoint = server.bind(address);
  Socket honest(context, SocketKind::dealer, {.identity = "honest"});
  honest.connect(endpoint);
  const auto gets_through = [&] {
    auto question = encode(Leave{9, "honest"});
    REQUIRE(honest.send(question) == Sent::yes);
    const auto heard = next(server);
    REQUIRE(heard);
    CHECK(heard->peer == "honest");
  };
  gets_through();
  const auto before = resident_bytes();
  const auto resets = connections_reset();
  ByHand endless(endpoint);
  const auto frame = part(more | long_size, 1 << 20);
  int sent = 0;
  while (sent < 400 && endless.send(frame)) ++sent;
  // 16 MiB, and what the system holds of a connection.
  CHECK(sent < 60);
  CHECK(connections_reset() == resets + 1);
  CHECK(resident_bytes() - before < 64 << 20);
  gets_through();

  ByHand crumbs(endpoint);
  std::string many;
  for (int i = 0; i < 1000; ++i) many += part(more, 1);
  sent = 0;
  while (sent < 10'000 && crumbs.send(many)) ++sent;
  CHECK(sent < 10'000);
  CHECK(connections_reset() == resets + 2);
  gets_through();
}

}  // namespace

TEST_CASE("inflow: a message's parts count until its last, wherever the bytes are cut") {
  const MessageLimits limits{.bytes = 1000, .parts = 4};
  const auto hello = greeting() + ready();
  const auto good = part(more, 200) + part(more | long_size, 700) + part(more, 0) + part(0, 100);
  for (const std::size_t piece : {1, 2, 3, 64, 100'000}) {
    CHECK(within(limits, hello + good + good + good, piece));
    CHECK(within(limits, hello + good + ready() + part(long_size, 1000), piece));
    CHECK_FALSE(within(limits, hello + good + part(long_size, 1001), piece));
    CHECK_FALSE(within(limits, hello + part(more, 200) + part(more | long_size, 801), piece));
    CHECK_FALSE(
        within(limits, hello + part(more, 0) + part(more, 0) + part(more, 0) + part(more, 0) + part(0, 0), piece));
    CHECK_FALSE(within(limits, hello + front(more | long_size, ~std::uint64_t{0}), piece));
    CHECK_FALSE(within(limits, hello + front(command | long_size, 1001), piece));
  }
  // A part counts when its size is known, before it has come.
  CHECK_FALSE(within(limits, hello + front(long_size, 1001), 1));
}

TEST_CASE("inflow: what is no ZMTP 3 is refused") {
  const MessageLimits limits{.bytes = 1000, .parts = 4};
  CHECK(within(limits, greeting(3), 1));
  CHECK_FALSE(within(limits, greeting(1), 1));
  CHECK_FALSE(within(limits, "GET / HTTP/1.1\r\n", 1));
  CHECK_FALSE(within(limits, part(more, 3), 1));
}

TEST_CASE("inflow: a message that never ends costs its sender the connection, and nobody else anything") {
  SECTION("over tcp") { costs_its_sender_the_connection("tcp://127.0.0.1:*"); }
  SECTION("over ipc") { costs_its_sender_the_connection(ipc_path("endless")); }
}
