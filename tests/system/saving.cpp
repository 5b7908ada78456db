// A shard whose disk takes its time: everybody but the checkpoint goes on meanwhile.
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>

#include "core/files.h"
#include "tests/system/besieged.h"

namespace {

// While it is set, flushing a file takes as long as a disk that has stalled: half a minute, which no test waits for.
std::atomic<bool> disk_stalls = false;
std::atomic<int> flushes_begun = 0;

}  // namespace

// In place of the library's, for this whole program.
extern "C" int fsync(int fd) {
  ++flushes_begun;
  for (int i = 0; i < 3000 && disk_stalls; ++i) usleep(10'000);
  return static_cast<int>(syscall(SYS_fsync, fd));
}

namespace qanat::system_test {
namespace {

namespace fs = std::filesystem;

struct StalledDisk {
  StalledDisk() {
    flushes_begun = 0;
    disk_stalls = true;
  }
  ~StalledDisk() { disk_stalls = false; }
};

// The next answer of type Head, waited for as long as a busy machine may need.
template <class Head>
std::optional<Head> answer(Besieged& world) {
  for (int i = 0; i < 20'000; ++i) {
    for (const auto& message : world.sample.receive_all()) {
      if (message.type == static_cast<std::uint16_t>(Head::type)) return wire::decode<Head>(message);
    }
    wire::wait({}, Milliseconds(1));
    world.turn(1);
  }
  return std::nullopt;
}

template <class Head>
void send(Besieged& world, const Head& head, std::vector<wire::Frame> parts = {}) {
  auto message = wire::encode(head, std::move(parts));
  REQUIRE(world.sample.send(message) == wire::Sent::yes);
}

std::string part_of(const Besieged& world, const std::string& name) {
  return (world.directory / name / "shard-0.bin").string();
}

std::string directory_of(const Besieged& world, const std::string& name) { return (world.directory / name).string(); }

}  // namespace

TEST_CASE("saving: a disk that stalls holds up the checkpoint, but neither draws nor inserts nor heartbeats",
          "[saving]") {
  Besieged world;
  fill(world);
  {
    const StalledDisk stalled;
    send(world, wire::SaveRequest{1, directory_of(world, "a")});
    for (int i = 0; i < 20'000 && flushes_begun == 0; ++i) {
      wire::wait({}, Milliseconds(1));
      world.turn(1);
    }
    REQUIRE(flushes_begun == 1);
    CHECK_FALSE(world.server->quiet());
    for (std::uint64_t i = 1; i <= 20; ++i) {
      CHECK(sampled(world, 64).count == 64);
      const auto acks = acks_of(world.ask(world.insert, Chunk(0, i, i * 10, 10).message()));
      REQUIRE(acks.size() == 1);
      CHECK(acks[0].status == wire::AckStatus::applied);
    }
    // Twice as long as it takes the head to give a silent shard up.
    world.turn(static_cast<int>(2 * world.config.control.lost_after_seconds * 100));
    CHECK(world.learners[0]->alive(wire::Role::replay).size() == 1);
    CHECK_FALSE(fs::exists(part_of(world, "a")));
  }
  const auto saved = answer<wire::SaveReply>(world);
  REQUIRE(saved.has_value());
  CHECK(saved->error.empty());
  REQUIRE(saved->files.size() == 2);
  for (const auto& file : saved->files) verify_file(directory_of(world, "a"), file);
  replay::Shard loaded(world.shard().options(), world.shard().schema());
  loaded.load(part_of(world, "a"), 0);
  CHECK(loaded.resident_rows() == 10);  // of the moment when it was asked for
  CHECK(world.shard().resident_rows() == 210);
}

TEST_CASE("saving: a second checkpoint is refused while one is written, and neither holds what came later",
          "[saving]") {
  Besieged world;
  fill(world);
  const auto priority = [&](float value) {
    send(world, wire::PriorityUpdate{1, 50, 1}, update_parts({0}, {0}, {value}));
  };
  const auto priority_in = [&](const std::string& name) {
    replay::Shard loaded(world.shard().options(), world.shard().schema());
    loaded.load(part_of(world, name), 0);
    return loaded.item({actor, 0}, 0)->priority;
  };
  {
    const StalledDisk stalled;
    priority(2);
    send(world, wire::SaveRequest{1, directory_of(world, "a")});
    priority(3);
    send(world, wire::SaveRequest{1, directory_of(world, "b")});
    priority(4);
    const auto refusal = answer<wire::SaveReply>(world);
    REQUIRE(refusal.has_value());
    CHECK(refusal->directory == directory_of(world, "b"));
    CHECK_THAT(refusal->error, Catch::Contains(directory_of(world, "a")) && Catch::Contains("still being written"));
  }
  const auto first = answer<wire::SaveReply>(world);
  REQUIRE(first.has_value());
  CHECK(first->directory == directory_of(world, "a"));
  CHECK(first->error.empty());
  CHECK(priority_in("a") == 2);
  CHECK_FALSE(fs::exists(directory_of(world, "b")));
  send(world, wire::SaveRequest{1, directory_of(world, "b")});
  const auto second = answer<wire::SaveReply>(world);
  REQUIRE(second.has_value());
  CHECK(second->error.empty());
  CHECK(priority_in("b") == 4);
}

TEST_CASE("saving: who asks again gets one answer, the same, and a complete checkpoint is left alone", "[saving]") {
  Besieged world;
  fill(world);
  const wire::SaveRequest request{1, directory_of(world, "a")};
  {
    const StalledDisk stalled;
    for (int i = 0; i < 3; ++i) send(world, request);
    world.turn(20);
  }
  const auto saved = answer<wire::SaveReply>(world);
  REQUIRE(saved.has_value());
  CHECK(saved->error.empty());
  world.turn(50);
  CHECK(world.sample.receive_all().empty());
  // The answer was lost, and the shard has gone on.
  REQUIRE(acks_of(world.ask(world.insert, Chunk(0, 1, 10, 10).message())).size() == 1);
  send(world, request);
  const auto again = answer<wire::SaveReply>(world);
  REQUIRE(again.has_value());
  CHECK(again->files == saved->files);
  for (const auto& file : again->files) verify_file(directory_of(world, "a"), file);
  write_file_atomically(world.directory / "a" / "manifest.json", std::string_view("{}"));
  send(world, wire::SaveRequest{1, directory_of(world, "b")});  // so that this is the last one
  REQUIRE(answer<wire::SaveReply>(world).has_value());
  send(world, request);
  CHECK_THAT(answer<wire::SaveReply>(world)->error, Catch::Contains("it is complete"));
  for (const auto& file : again->files) verify_file(directory_of(world, "a"), file);
}

TEST_CASE("saving: inserts wait only for rows that they would overwrite and that a full disk has not taken",
          "[saving]") {
  // Rows of 64 KiB: 2,048 of them are twice what may wait for the disk.
  constexpr std::size_t numbers = 16'384;
  constexpr std::uint64_t rows = 2048;
  Besieged world({.rows = rows, .numbers = numbers});
  std::uint64_t next = 0;
  const auto insert = [&] {
    auto message = Chunk(0, next, next * 16, 16, numbers).message();
    REQUIRE(world.insert.send(message) == wire::Sent::yes);
    ++next;
    world.turn(3);
    return acks_of(world.insert.receive_all()).size();
  };
  while (next * 16 < rows) REQUIRE(insert() == 1);
  std::uint64_t before = 0;
  {
    const StalledDisk stalled;  // the random numbers' file comes first, so that no row is written
    send(world, wire::SaveRequest{1, directory_of(world, "a")});
    world.turn(3);
    while (insert() == 1) REQUIRE(++before < 2 * rows / 16);
    // 64 MiB are 1,024 rows, or 64 chunks.
    CHECK(before >= 60);
    CHECK(before <= 70);
    CHECK(sampled(world, 4).count == 4);
    CHECK_FALSE(world.server->quiet());
  }
  const auto saved = answer<wire::SaveReply>(world);
  REQUIRE(saved.has_value());
  CHECK(saved->error.empty());
  CHECK(acks_of(world.insert.receive_all()).size() == 1);  // the one that waited
  CHECK(insert() == 1);
  replay::Shard loaded(world.shard().options(), world.shard().schema());
  loaded.load(part_of(world, "a"), 0);
  CHECK(loaded.rows_of({actor, 0}) == rows);
}

TEST_CASE("saving: what the disk refuses is said to who asked, and the next checkpoint is saved", "[saving]") {
  Besieged world;
  fill(world);
  write_file_atomically(world.directory / "a", std::string_view("no directory"));
  send(world, wire::SaveRequest{1, directory_of(world, "a")});
  const auto failed = answer<wire::SaveReply>(world);
  REQUIRE(failed.has_value());
  CHECK_THAT(failed->error, Catch::Contains("cannot create directory") && Catch::Contains(directory_of(world, "a")));
  CHECK(failed->files.empty());
  send(world, wire::SaveRequest{1, directory_of(world, "b")});
  const auto saved = answer<wire::SaveReply>(world);
  REQUIRE(saved.has_value());
  CHECK(saved->error.empty());
}

}  // namespace qanat::system_test
