// Which address of another member's service is used from here.
#include "control/address.h"
#include "tests/support/catch.h"
#include "world.h"

using namespace qanat;
using namespace qanat::control;
using namespace qanat::control::testing;

namespace {

std::string chosen(const std::string& head, std::vector<std::string> addresses) {
  wire::Context context;
  const VirtualClock clock;
  const Member member(context, clock, {.incarnation = 1, .head = {head}});
  wire::MemberInfo other;
  other.endpoints = {{"unused", {"tcp://9.9.9.9:9"}}, {"insert", std::move(addresses)}};
  return member.address_of(other, "insert");
}

}  // namespace

TEST_CASE("address: the transport by which the head was reached comes first, then tcp, then none") {
  const std::vector<std::string> both{"tcp://10.0.0.2:7000", "ipc:///run/insert"};
  CHECK(chosen("ipc:///run/head", both) == "ipc:///run/insert");
  CHECK(chosen("tcp://10.0.0.1:5555", both) == "tcp://10.0.0.2:7000");
  CHECK(chosen("inproc://head", both) == "tcp://10.0.0.2:7000");
  CHECK(chosen("inproc://head", {"inproc://insert", "tcp://10.0.0.2:7000"}) == "inproc://insert");
  CHECK(chosen("tcp://10.0.0.1:5555", {"ipc:///run/insert"}).empty());
  CHECK(chosen("tcp://10.0.0.1:5555", {}).empty());
}

TEST_CASE("address: a wildcard host becomes the head's, or this machine when the head is on it") {
  CHECK(chosen("tcp://10.0.0.1:5555", {"tcp://0.0.0.0:7000"}) == "tcp://10.0.0.1:7000");
  CHECK(chosen("tcp://head.example:5555", {"tcp://[::]:7000"}) == "tcp://head.example:7000");
  CHECK(chosen("tcp://[fe80::1]:5555", {"tcp://0.0.0.0:7000"}) == "tcp://[fe80::1]:7000");
  CHECK(chosen("ipc:///run/head", {"tcp://0.0.0.0:7000"}) == "tcp://127.0.0.1:7000");
}

TEST_CASE("address: a service that a member does not have has no address") {
  wire::Context context;
  const VirtualClock clock;
  const Member member(context, clock, {.incarnation = 1, .head = {"inproc://head"}});
  wire::MemberInfo other;
  other.endpoints = {{"insert", {"inproc://x"}}};
  CHECK(member.address_of(other, "sample").empty());
}

TEST_CASE("address: the head publishes members of other machines under the address they were seen from") {
  CHECK(seen_from_outside("tcp://0.0.0.0:7000", "10.0.0.2") == "tcp://10.0.0.2:7000");
  CHECK(seen_from_outside("tcp://[::]:7000", "fe80::2") == "tcp://[fe80::2]:7000");
  CHECK(seen_from_outside("tcp://10.1.1.1:7000", "10.0.0.2") == "tcp://10.1.1.1:7000");  // it knew better
  CHECK(seen_from_outside("ipc:///run/x", "10.0.0.2") == "ipc:///run/x");
  // On the head's machine the wildcard stays: who asks knows how it reaches that machine.
  for (const char* local : {"", "127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"}) {
    CHECK(seen_from_outside("tcp://0.0.0.0:7000", local) == "tcp://0.0.0.0:7000");
  }
}

TEST_CASE("address: without a head's address a member cannot be") {
  wire::Context context;
  const VirtualClock clock;
  CHECK_THROWS_AS(Member(context, clock, {.incarnation = 1}), ConfigError);
}

TEST_CASE("incarnations: they are never 0 and do not repeat") {
  std::vector<std::uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.push_back(new_incarnation());
  std::sort(seen.begin(), seen.end());
  CHECK(seen.front() != 0);
  CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
}
