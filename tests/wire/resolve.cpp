// Hosts as users write them, and sockets that speak IPv6.
#include "wire/resolve.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sockets.h"
#include "tests/support/catch.h"
#include "tests/support/message_of.h"
#include "wire/messages.h"

using namespace qanat;
using namespace qanat::wire;
using namespace qanat::wire::testing;
using Catch::Matchers::Contains;

namespace {

bool has_ipv6() {
  const int fd = ::socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  const bool has = fd >= 0 && ::bind(fd, reinterpret_cast<sockaddr*>(&loopback), sizeof loopback) == 0;
  ::close(fd);
  return has;
}

}  // namespace

TEST_CASE("resolve: names become numbers, IPv4 first, IPv6 in brackets; interfaces and * stay") {
  CHECK(host_to_bind("127.0.0.1") == "127.0.0.1");
  CHECK(host_to_bind("localhost") == "127.0.0.1");
  CHECK(host_to_bind("::1") == "[::1]");
  CHECK(host_to_bind("[::]") == "[::]");
  CHECK(host_to_bind("*") == "*");
  CHECK(host_to_bind("lo") == "lo");
}

TEST_CASE("resolve: what is no host is refused with what was wanted") {
  for (const char* wrong : {"", "1::2::3", "no host", "[]"}) {
    CHECK_THAT(message_of([&] { (void)host_to_bind(wrong); }),
               Contains(text("saw the host '", wrong, "'")) && Contains("wanted an IPv4 or IPv6 address or a name"));
  }
}

TEST_CASE("resolve: another machine's address and a port in use are refused, one's own are not") {
  CHECK(message_of([] { check_listening("127.0.0.1", 0); }) == "nothing was thrown");
  CHECK(message_of([] { check_listening("localhost", 0); }) == "nothing was thrown");
  CHECK(message_of([] { check_listening("*", 0); }) == "nothing was thrown");
  // Of the documentation's addresses nobody has one.
  CHECK_THAT(message_of([] { check_listening("192.0.2.1", 0); }), Contains("wanted an address of this machine"));
  Context context;
  Socket server(context, SocketKind::router);
  const auto endpoint = server.bind("tcp://127.0.0.1:*");
  const auto port = static_cast<std::uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1)));
  CHECK_THAT(message_of([&] { check_listening("localhost", port); }), Contains("a port that nobody uses"));
}

TEST_CASE("resolve: an endpoint to connect to keeps a name that has an IPv4 address, and one without a host") {
  CHECK(endpoint_to_connect("tcp://localhost:5555") == "tcp://localhost:5555");
  CHECK(endpoint_to_connect("tcp://[::1]:5555") == "tcp://[::1]:5555");
  CHECK(endpoint_to_connect("ipc:///tmp/x") == "ipc:///tmp/x");
  CHECK_THAT(message_of([] { (void)endpoint_to_connect("tcp://1::2::3:5555"); }), Contains("saw the host '1::2::3'"));
}

TEST_CASE("resolve: one socket serves peers over IPv4 and IPv6") {
  if (!has_ipv6()) {
    WARN("there is no IPv6 on this machine");
    return;
  }
  Context context;
  Socket server(context, SocketKind::router);
  const auto six = server.bind(text("tcp://", host_to_bind("::1"), ":*"));
  const auto four = server.bind("tcp://127.0.0.1:*");
  CHECK(six.starts_with("tcp://[::1]:"));
  for (const auto& endpoint : {six, four}) {
    Socket client(context, SocketKind::dealer);
    client.connect(endpoint_to_connect(endpoint));
    auto question = encode(Leave{9, endpoint});
    REQUIRE(client.send(question) == Sent::yes);
    const auto heard = next(server);
    REQUIRE(heard);
    CHECK(decode<Leave>(*heard).reason == endpoint);
    CHECK(heard->address == (endpoint == six ? "::1" : "127.0.0.1"));
  }
}
