// The ledger as members live it: grants that are pushed, lost, asked for again; members and heads that come back.
#include "core/rng.h"
#include "tests/support/catch.h"
#include "world.h"

using namespace qanat;
using namespace qanat::control;
using namespace qanat::control::testing;

namespace {

struct Leasing : World {
  explicit Leasing(HeadOptions head_options)
      : World(std::move(head_options)), learner(join(wire::Role::learner)), shard(join(wire::Role::replay)) {
    shard.use(0, 0, options.ledger.min_size);
    settle();
  }
  Member& learner;
  Member& shard;
};

HeadOptions with(LedgerOptions ledger) {
  HeadOptions options;
  options.ledger = ledger;
  return options;
}

}  // namespace

TEST_CASE("lease: credits come by return of post") {
  Leasing world(with({.ratio = 1, .min_size = 1, .window = 20}));
  CHECK(world.head->ledger().counting());
  world.shard.use(0, 7, 1);
  world.settle();
  CHECK(world.shard.granted() == 7);
  CHECK(world.shard.grant().counting);
}

TEST_CASE("lease: who waits is told when the other side moves, without asking again") {
  Leasing world(with({.ratio = 1, .min_size = 1, .window = 20}));
  world.shard.use(0, 100, 1);
  world.settle();
  REQUIRE(world.shard.granted() == 10);
  world.shard.use(10, 100, 1);
  world.settle();
  REQUIRE(world.shard.granted() == 10);
  const auto said = world.shard.socket().traffic().messages_out;
  world.learner.use(0, 8, 0);
  world.settle();
  world.learner.use(8, 8, 0);
  world.settle();
  CHECK(world.shard.granted() == 18);
  CHECK(world.shard.socket().traffic().messages_out == said);
}

TEST_CASE("lease: a grant that was lost is sent again when the member asks again") {
  Leasing world(with({.ratio = 1, .min_size = 1, .window = 20}));
  world.shard.use(0, 5, 1);
  world.head->step();
  REQUIRE(world.shard.socket().receive_all().size() >= 1);  // it never reaches the member
  world.settle();
  REQUIRE(world.shard.granted() == 0);
  world.pass(Milliseconds(50));
  CHECK(world.shard.granted() == 5);
}

TEST_CASE("lease: what was used is reported in the end, also when nothing more happens") {
  Leasing world(with({.ratio = 1, .min_size = 1, .window = 2000}));
  world.shard.use(0, 1000, 1);
  world.settle();
  world.shard.use(3, 1000, 1);  // far below an eighth of the lease
  world.pass(Milliseconds(100));
  CHECK(world.head->status().env_steps == 3);
}

TEST_CASE("lease: use is not a message a call") {
  Leasing world(with({.ratio = 1, .min_size = 1, .window = 20'000}));
  world.shard.use(0, 8000, 1);
  world.settle();
  const auto said = world.shard.socket().traffic().messages_out;
  for (std::uint64_t used = 1; used <= 4000; ++used) world.shard.use(used, 8000, 1);
  CHECK(world.shard.socket().traffic().messages_out - said < 30);
}

TEST_CASE("lease: the lease of a shard that dies goes to the others") {
  Leasing world([] {
    auto options = with({.ratio = 1, .min_size = 1, .window = 20});
    options.lost_after = Seconds(5);
    return options;
  }());
  auto& other = world.join(wire::Role::replay);
  world.shard.use(0, 10, 1);
  world.settle();
  other.use(0, 10, 0);
  world.settle();
  CHECK(other.granted() == 0);
  world.kill(world.shard);
  world.pass(Milliseconds(6000));
  CHECK(other.granted() == 10);
}

TEST_CASE("lease: a shard that was lost and comes back is counted once") {
  Leasing world([] {
    auto options = with({.ratio = 1, .min_size = 1, .window = 1000});
    options.lost_after = Seconds(5);
    return options;
  }());
  world.shard.use(0, 200, 1);
  world.settle();
  world.shard.use(100, 200, 1);
  world.pass(Milliseconds(100));
  REQUIRE(world.head->status().env_steps == 100);
  auto asleep = std::move(world.members.back());
  world.members.pop_back();
  world.pass(Milliseconds(6000));
  CHECK(world.head->status().env_steps == 100);
  world.shard.use(120, 200, 1);
  world.members.push_back(std::move(asleep));
  world.pass(Milliseconds(1000));
  CHECK(world.head->status().env_steps == 120);
  CHECK(world.head->ledger().balance() == 120);
}

TEST_CASE("lease: a head that restarts from its file goes on counting where it was") {
  HeadOptions options = with({.ratio = 2, .min_size = 1, .window = 1000});
  options.bind = {"inproc://one"};
  options.epoch = 3;
  World world(options);
  const std::vector<std::string> heads{"inproc://one", "inproc://two"};
  auto& learner = world.join(wire::Role::learner, {.head = heads});
  auto& shard = world.join(wire::Role::replay, {.index = 4, .head = heads});
  shard.use(0, 300, 1);
  world.settle();
  shard.use(100, 300, 1);
  learner.use(0, 150, 0);
  world.settle();
  learner.use(150, 150, 0);
  world.pass(Milliseconds(100));
  REQUIRE(world.head->ledger().balance() == 50);

  ByteWriter saved;
  world.head->save(saved);
  world.head.reset();
  shard.use(110, 300, 1);  // life goes on meanwhile
  options.bind = {"inproc://two"};
  world.head = world.make_head(options);
  ByteReader in(saved.bytes(), "head");
  world.head->load(in);
  in.expect_end();
  CHECK(world.head->status().env_steps == 100);
  world.pass(Milliseconds(8000));
  CHECK(shard.welcome().index == 4);
  CHECK(world.head->epoch() == 3);
  CHECK(world.head->status().env_steps == 110);
  CHECK(world.head->ledger().balance() == 70);
  CHECK(world.head->ledger().granted(shard.incarnation()) >= shard.granted());
  for (const auto& summary : world.head->status().members) CHECK(summary.starts == 1);  // nobody was started again
  // A new process in the old one's place knows that it is the second.
  world.kill(shard);
  world.pass(dead_after);
  CHECK(world.join(wire::Role::replay, {.index = 4, .head = {"inproc://two"}}).welcome().start_count == 1);
}

TEST_CASE("lease: reports that cannot be honest are dropped and counted") {
  Leasing world(with({.ratio = 1, .min_size = 1, .window = 20}));
  wire::LedgerReport report;
  report.incarnation = world.shard.incarnation();
  report.used = ~std::uint64_t{0};
  const auto before = world.head->traffic().refused;
  (void)world.tell_head(wire::encode(report));
  CHECK(world.head->traffic().refused == before + 1);
  CHECK(world.head->status().env_steps == 0);
}

TEST_CASE("lease: shards and a learner over the wire meet the ratio, whatever the order of their steps") {
  Rng rng(5);
  const double ratio = 4;
  const std::uint64_t chunk = 8;
  const std::uint64_t batch = 32;
  Leasing world(with({.ratio = ratio, .min_size = 64, .window = 2.0 * batch + ratio * chunk * 4}));
  auto& second = world.join(wire::Role::replay);
  struct Side {
    Member* member;
    std::uint64_t piece, ahead, used;
  };
  std::vector<Side> sides{{&world.shard, chunk, 2, 0}, {&second, chunk, 2, 0}, {&world.learner, batch, 2, 0}};
  const auto inserted = [&] { return sides[0].used + sides[1].used; };
  for (int round = 0; inserted() < 6000 && round < 200'000; ++round) {
    auto& side = sides[rng.below(3)];
    side.member->step();
    if (side.member->granted() - side.used >= side.piece) side.used += side.piece;
    side.member->use(side.used, side.used + side.ahead * side.piece, side.member == &world.learner ? 0 : side.used);
    if (rng.chance(0.3)) world.head->step();
    if (rng.chance(0.05)) world.clock.advance(Milliseconds(10));
  }
  REQUIRE(inserted() >= 6000);
  // The steps before counting are at most min_size and what was leased then; half the window is 0.4 % of 24,000.
  CHECK(static_cast<double>(sides[2].used) / static_cast<double>(inserted() - 64) == Approx(ratio).epsilon(0.02));
}

TEST_CASE("lease: an actor whose chunks could never be granted is refused with the sum") {
  Leasing world(with({.ratio = 1, .min_size = 1, .window = 400, .batch = 32}));
  (void)world.join(wire::Role::actor, {.chunk_steps = 368});
  auto& long_one = world.add(wire::Role::actor, {.chunk_steps = 369});
  CHECK_THROWS_WITH(world.settle(), Catch::Contains("1 * 369 + 32 = 401"));
  world.kill(long_one);
  auto& endless = world.add(wire::Role::actor, {.chunk_steps = std::uint64_t{1} << 60});
  CHECK_THROWS_WITH(world.settle(), Catch::Contains("wanted at most 65536"));
  world.kill(endless);
}
