#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <vector>

#include "core/files.h"
#include "tests/replay/driver.h"
#include "tests/replay/support.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::test;

namespace {

// More than a test's shard holds.
constexpr std::uint64_t plenty = 64 << 20;

void save(Shard& shard, const std::filesystem::path& path) {
  IoThread disk("disk", plenty);
  shard.begin_snapshot(path, disk);
  while (!shard.snapshot_some(plenty)) disk.finish();
}

void overwrite(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// A driver whose shard has been through `events` events.
Driver driven(Shard& shard, const ShardOptions& options, std::uint64_t seed, int events) {
  Driver driver(options, seed);
  for (int i = 0; i < events; ++i) driver.event(shard);
  return driver;
}

}  // namespace

TEST_CASE("snapshot: a loaded shard is the saved one, and goes on as it would have (C40)") {
  const TemporaryFolder folder;
  const ShardOptions options = options_of(4, 3);
  Shard shard(options, witness_schema());
  Driver driver = driven(shard, options, 11, 800);
  save(shard, folder.path / "replay");
  Shard loaded(options, witness_schema());
  loaded.load(folder.path / "replay", 0);
  CHECK(loaded.counters() == shard.counters());
  CHECK(loaded.mass() == shard.mass());
  CHECK(loaded.max_priority() == shard.max_priority());
  CHECK(loaded.known_streams() == shard.known_streams());
  for (const auto& [id, stream] : driver.model.streams()) {
    CHECK(loaded.next_sequence(id) == shard.next_sequence(id));
    CHECK(loaded.rows_of(id) == shard.rows_of(id));
  }
  // The same seed draws the same items, before and after more of the same traffic.
  Driver twin = driver;
  Draw seen;
  Draw wanted;
  for (int round = 0; round < 5; ++round) {
    Rng rng(5);
    Rng same = rng;
    REQUIRE(loaded.draw(256, rng, DrawMode::by_mass, seen));
    REQUIRE(shard.draw(256, same, DrawMode::by_mass, wanted));
    CHECK(seen.leaves == wanted.leaves);
    CHECK(seen.rows == wanted.rows);
    CHECK(seen.states == wanted.states);
    CHECK(seen.rewards == wanted.rewards);
    for (int i = 0; i < 40; ++i) {
      // Handles kept from before the snapshot are stale in the loaded shard alone, so updates go to neither.
      driver.send(shard);
      twin.send(loaded);
    }
  }
  driver.compare(shard);
  twin.compare(loaded);
}

TEST_CASE("snapshot: holds the moment it began, though inserts, updates and evictions go on while it is written") {
  const TemporaryFolder folder;
  // Rows of 4 kB: four blocks. Whole at once; a block for every few chunks; not before all rows were overwritten twice.
  const int chunks_a_slice = GENERATE(0, 40, 1'000'000);
  const ShardOptions options = options_of(4, 5);
  Shard shard(options, witness_schema(4096));
  Driver driver(options, 12);
  while (shard.counters().evicted_rows < 500) driver.event(shard);
  Driver at_marker = driver;
  const Counters counters = shard.counters();
  const std::uint64_t mass = shard.mass();
  IoThread disk("disk", plenty);
  shard.begin_snapshot(folder.path / "replay", disk);
  bool written = false;
  const auto some = [&] {
    written = shard.snapshot_some(1).has_value();
    disk.finish();
  };
  while (chunks_a_slice == 0 && !written) some();
  int chunks = 0;
  for (; shard.counters().evicted_rows < counters.evicted_rows + 2 * options.capacity_rows; ++chunks) {
    driver.send_unchecked(shard);
    driver.update_unchecked(shard);
    if (!written && chunks % chunks_a_slice == chunks_a_slice - 1) some();
  }
  while (!written) some();
  REQUIRE_FALSE(shard.snapshot_running());
  Shard loaded(options, witness_schema(4096));
  int blocks = 0;
  loaded.load(folder.path / "replay", 0, [&] { ++blocks; });
  CHECK(blocks > 0);  // a loading process can say that it lives
  CHECK(loaded.counters() == counters);
  CHECK(loaded.mass() == mass);
  at_marker.compare(loaded);
}

TEST_CASE("snapshot: a damaged or shortened file is refused and the shard stays as it was (G09)") {
  const TemporaryFolder folder;
  const auto path = folder.path / "replay";
  const ShardOptions options = options_of(2, 3, 60);
  Shard shard(options, witness_schema());
  Driver driver = driven(shard, options, 13, 100);
  save(shard, path);
  const std::vector<std::byte> good = read_file(path);
  Shard other(options, witness_schema());
  Driver others = driven(other, options, 14, 100);
  std::size_t accepted = 0;
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](std::size_t at, std::byte value) {
    file.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(value)).flush();
  };
  for (std::size_t i = 0; i < good.size(); ++i) {
    put(i, good[i] ^ std::byte{static_cast<unsigned char>(1U << (i % 8))});
    try {
      other.load(path, 0);
      ++accepted;
    } catch (const InputError&) {
    }
    put(i, good[i]);
  }
  CHECK(accepted == 0);
  for (std::size_t size = 0; size < good.size(); size += 37) {
    overwrite(path, std::span(good).first(size));
    CHECK_THROWS_AS(other.load(path, 0), InputError);
  }
  std::vector<std::byte> longer = good;
  longer.push_back(std::byte{0});
  overwrite(path, longer);
  CHECK_THROWS_AS(other.load(path, 0), InputError);
  CHECK_THROWS_AS(other.load(folder.path / "nothing", 0), SystemError);
  others.compare(other);
  // The file was good all along, but for what was planted.
  overwrite(path, good);
  other.load(path, 0);
  driver.compare(other);
}

TEST_CASE("snapshot: another capacity, stack, n_step or schema is refused, naming both") {
  const TemporaryFolder folder;
  const auto path = folder.path / "replay";
  Shard shard(options_of(2, 3, 60), witness_schema());
  save(shard, path);
  for (const ShardOptions& options : {options_of(2, 3, 61), options_of(3, 3, 60), options_of(2, 4, 60)}) {
    CHECK_THROWS_AS(Shard(options, witness_schema()).load(path, 0), InputError);
  }
  Schema schema = witness_schema();
  schema.observations[0].shape = {5};
  CHECK_THROWS_WITH(Shard(options_of(2, 3, 60), schema).load(path, 0),
                    Catch::Contains("i32 [4]") && Catch::Contains("i32 [5]"));
}

TEST_CASE("snapshot: handles of before are stale after a load, and generations start above the floor") {
  const TemporaryFolder folder;
  const auto path = folder.path / "replay";
  const ShardOptions options = options_of(1, 1, 100);
  Shard shard(options, witness_schema());
  driven(shard, options, 15, 150);
  Rng rng(1);
  Draw draw;
  REQUIRE(shard.draw(32, rng, DrawMode::by_mass, draw));
  save(shard, path);
  const std::uint64_t handed_out = shard.next_generation();
  Shard loaded(options, witness_schema());
  loaded.load(path, 0);
  const std::vector<float> ones(32, 1);
  CHECK(loaded.update_priorities(draw.handles, ones).stale == 32);
  Draw again;
  REQUIRE(loaded.draw(32, rng, DrawMode::by_mass, again));
  for (const Handle& handle : again.handles) CHECK(handle.generation >= handed_out);
  loaded.load(path, std::uint64_t{1} << 50);
  REQUIRE(loaded.draw(32, rng, DrawMode::by_mass, again));
  for (const Handle& handle : again.handles) CHECK(handle.generation >= std::uint64_t{1} << 50);
  CHECK(loaded.update_priorities(again.handles, ones).applied == 32);
}

TEST_CASE("snapshot: one that is given up leaves no file") {
  const TemporaryFolder folder;
  const ShardOptions options = options_of(1, 1, 100);
  {
    IoThread disk("disk", plenty);
    Shard shard(options, witness_schema());
    Driver driver = driven(shard, options, 16, 100);
    shard.begin_snapshot(folder.path / "first", disk);
    shard.begin_snapshot(folder.path / "second", disk);
    driver.event(shard);
  }
  CHECK(std::filesystem::is_empty(folder.path));
}

TEST_CASE("snapshot: a file that cannot be made fails it at the next slice") {
  const TemporaryFolder folder;
  IoThread disk("disk", plenty);
  Shard shard(options_of(1, 1, 100), witness_schema());
  shard.begin_snapshot(folder.path / "no" / "folder", disk);
  CHECK_THROWS_AS(disk.finish(), SystemError);
  CHECK_THROWS_WITH(shard.snapshot_some(1), Catch::Contains("cannot create"));
  CHECK_FALSE(shard.snapshot_running());
}

TEST_CASE("snapshot: a disk that fails while an insert saves rows fails the snapshot, not the insert") {
  const TemporaryFolder folder;
  const ShardOptions options = options_of(1, 1, 400);
  Shard shard(options, witness_schema(4096));
  Driver driver(options, 18);
  while (shard.counters().evicted_rows == 0) driver.event(shard);
  IoThread disk("disk", plenty);
  shard.begin_snapshot(folder.path / "replay", disk);
  // Files may not grow beyond 64 KiB for a while: the first block does not fit.
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  rlimit small = before;
  small.rlim_cur = 65'536;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  for (int i = 0; i < 200; ++i) driver.event(shard);
  CHECK_THROWS_AS(disk.finish(), SystemError);
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, ignored);
  driver.compare(shard);
  CHECK_THROWS_AS(shard.snapshot_some(1), SystemError);
  CHECK_FALSE(shard.snapshot_running());
  CHECK(std::filesystem::is_empty(folder.path));
}

TEST_CASE("snapshot: an empty shard is saved and loaded too") {
  const TemporaryFolder folder;
  const ShardOptions options = options_of(4, 3, 100);
  Shard shard(options, witness_schema());
  save(shard, folder.path / "replay");
  Shard loaded(options, witness_schema());
  loaded.load(folder.path / "replay", 7);
  CHECK(loaded.items() == 0);
  CHECK(loaded.next_generation() == 7);
  Driver driver(options, 17);
  for (int i = 0; i < 100; ++i) driver.event(loaded);
  driver.compare(loaded);
}
