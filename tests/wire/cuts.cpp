// Connections that break: how soon that is noticed, how often a new one is tried, and that who waits for it can tell.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>

#include "tests/support/catch.h"
#include "tests/support/rebind.h"
#include "tests/wire/sockets.h"

using namespace qanat;
using namespace qanat::wire;
using namespace qanat::wire::testing;

namespace {

// What each TCP connection of this process waits for an acknowledgement, milliseconds.
std::vector<unsigned> user_timeouts() {
  std::vector<unsigned> out;
  for (int fd = 3; fd < 1024; ++fd) {
    sockaddr_in peer{};
    socklen_t size = sizeof peer;
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0 || peer.sin_family != AF_INET) continue;
    unsigned timeout = 0;
    size = sizeof timeout;
    REQUIRE(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, &size) == 0);
    out.push_back(timeout);
  }
  return out;
}

}  // namespace

TEST_CASE("cut: a watched socket counts its connections, the first and each that follows a broken one") {
  Context context;
  Socket router(context, SocketKind::router);
  const auto address = router.bind("tcp://127.0.0.1:*");
  Socket dealer(context, SocketKind::dealer, {.identity = "dealer", .watched = true});
  dealer.connect(address);
  for (std::uint64_t times = 1; times <= 3; ++times) {
    REQUIRE(until(dealer, [&] { return dealer.connections() >= times; }));
    CHECK(dealer.connections() == times);
    test::rebind(router, context, SocketKind::router, address);
  }
  Socket other(context, SocketKind::dealer);
  CHECK(other.connections() == 0);  // not watched
}

TEST_CASE("cut: what the other side's system does not acknowledge for four seconds ends a connection, on either side") {
  Context context;
  Socket router(context, SocketKind::router);
  const auto address = router.bind("tcp://127.0.0.1:*");
  Socket dealer(context, SocketKind::dealer, {.identity = "dealer"});
  dealer.connect(address);
  auto message = message_of(1, "hello");
  REQUIRE(dealer.send(message) == Sent::yes);
  REQUIRE(next(router));
  CHECK(user_timeouts() == std::vector<unsigned>{4000, 4000});
}

TEST_CASE("cut: a peer that closes every connection at once is tried at most ten times a second") {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&at), size) == 0);
  REQUIRE(::listen(listener, 16) == 0);
  REQUIRE(::getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size) == 0);
  Context context;
  Socket dealer(context, SocketKind::dealer, {.identity = "dealer"});
  dealer.connect(text("tcp://127.0.0.1:", ntohs(at.sin_port)));
  const SteadyClock clock;
  const auto begin = clock.now();
  const auto end = begin + std::chrono::seconds(4);
  int accepted = 0;
  while (clock.now() < end) {
    pollfd waiting{listener, POLLIN, 0};
    if (::poll(&waiting, 1, 20) != 1) continue;
    ::close(::accept(listener, nullptr, nullptr));
    ++accepted;
  }
  ::close(listener);
  CHECK(accepted >= 2);
  CHECK(accepted <= 41);
}
