// Several readers on one shard, of which one does not read.
#include <unistd.h>

#include <fstream>

#include "tests/system/besieged.h"

namespace qanat::system_test {
namespace {

constexpr std::size_t numbers = 1764;  // rows of 7 kB, as Atari's
constexpr std::uint32_t items = 256;   // a large request: 512 rows, 3.6 MB

std::uint64_t resident_bytes() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

// Rounds until `done`, for as long as a busy machine may need.
template <class Done>
bool rounds_until(Besieged& world, Done done) {
  const SteadyClock clock;
  const auto end = clock.now() + std::chrono::seconds(60);
  while (!done()) {
    if (clock.now() > end) return false;
    wire::wait({}, Milliseconds(1));
    world.turn(1);
  }
  return true;
}

void fill_with_large_rows(Besieged& world) {
  for (std::uint64_t i = 0; i < 8; ++i) {
    auto message = Chunk(0, i, i * 128, 128, numbers).message();
    REQUIRE(world.insert.send(message) == wire::Sent::yes);
  }
  REQUIRE(rounds_until(world, [&] { return world.shard().resident_rows() == 1024; }));
}

void ask(wire::Socket& reader, std::uint64_t number, std::uint32_t count) {
  auto message = wire::encode(wire::SampleRequest{1, number, count, 0});
  REQUIRE(reader.send(message) == wire::Sent::yes);
}

}  // namespace

TEST_CASE("readers: one that does not read holds up nobody, and what waits for it is bounded", "[readers]") {
  constexpr std::uint64_t requests = 60;  // 216 MB of rows
  Besieged world({.rows = 1024, .numbers = numbers, .over_ipc = true});
  fill_with_large_rows(world);
  // As little as can be lies with the reader: what it has not read is the shard's.
  wire::Socket idle(world.context, wire::SocketKind::dealer, {.identity = "idle", .receive_queue = 1});
  idle.connect("ipc://" + (world.directory / "shard-sample").string());
  ask(world.sample, 1, 1);
  REQUIRE(rounds_until(world, [&] { return !world.sample.receive_all().empty(); }));

  const auto before = resident_bytes();
  for (std::uint64_t i = 1; i <= requests; ++i) ask(idle, i, items);
  for (std::uint64_t i = 2; i < 50; ++i) {
    ask(world.sample, i, 4);
    REQUIRE(rounds_until(world, [&] { return !world.sample.receive_all().empty(); }));
  }
  REQUIRE(rounds_until(world, [&, steps = 0]() mutable { return ++steps > 300; }));  // there was time for more
  // 32 MiB in the shard, and some messages in the sockets: a dozen, with room for what the allocator keeps.
  CHECK(world.shard().counters().drawn < 20 * items);
  CHECK(resident_bytes() - before < 100 << 20);
  CHECK_FALSE(world.server->quiet());

  // What it asks beyond its share of patience is dropped.
  for (std::uint64_t i = 0; i < 3000; ++i) {
    auto message = wire::encode(wire::SampleRequest{1, 1000 + i, 1, 0});
    if (idle.send(message) != wire::Sent::yes) world.turn(1);
  }
  REQUIRE(rounds_until(world, [&] { return world.refused() > 0; }));

  // It reads after all: nothing that waited is lost.
  std::uint64_t last = 0;
  REQUIRE(rounds_until(world, [&] {
    for (const auto& message : idle.receive_all()) {
      const auto reply = wire::decode<wire::SampleReply>(message);
      if (reply.request > requests) continue;
      CHECK(reply.request == last + 1);
      last = reply.request;
    }
    return last >= requests;
  }));
}

TEST_CASE("readers: they are served in turn, however much one of them asks", "[readers]") {
  Besieged world({.rows = 1024, .numbers = numbers});
  fill_with_large_rows(world);
  wire::Socket greedy(world.context, wire::SocketKind::dealer, {.identity = "greedy"});
  greedy.connect("inproc://shard-sample");
  for (std::uint64_t i = 1; i <= 50; ++i) ask(greedy, i, items);
  ask(world.sample, 1, 4);
  world.server->step();
  CHECK(world.sample.receive_all().size() == 1);
  CHECK(world.shard().counters().drawn <= 3 * items + 4);
  REQUIRE(rounds_until(world, [&] { return world.shard().counters().drawn == 50 * items + 4; }));
  CHECK(greedy.receive_all().size() == 50);
}

TEST_CASE("readers: of one that is gone nothing is kept", "[readers]") {
  Besieged world({.rows = 1024, .numbers = numbers, .over_ipc = true});
  fill_with_large_rows(world);
  {
    wire::Socket idle(world.context, wire::SocketKind::dealer, {.identity = "idle", .receive_queue = 1});
    idle.connect("ipc://" + (world.directory / "shard-sample").string());
    for (std::uint64_t i = 1; i <= 40; ++i) ask(idle, i, items);
    REQUIRE(rounds_until(world, [&] { return world.shard().counters().drawn >= 8 * items; }));
    CHECK_FALSE(world.server->quiet());
  }
  CHECK(rounds_until(world, [&] { return world.server->quiet(); }));
  CHECK(world.shard().counters().drawn < 20 * items);  // what still waited was not drawn
}

}  // namespace qanat::system_test
