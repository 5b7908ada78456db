// The learner's client against shards that the test plays: rows put together from many replies, by helpers or alone,
// and replies whose rows came damaged.
#include "replay/client.h"

#include <cstring>
#include <memory>
#include <set>

#include "core/error.h"
#include "replay/sample_table.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::replay;

namespace {

constexpr std::uint32_t stack = 2;
constexpr std::uint64_t epoch = 3;

Schema schema_of(std::int64_t pixels) {
  Schema schema;
  schema.observations = {{"frame", DType::u8, {pixels}}};
  schema.action = {"action", DType::i32, {}};
  schema.extras = {{"mask", DType::u8, {3}}};
  return schema;
}

// What stands in a row: its item's number, its place in the item's rows and a byte that goes on to its end.
std::vector<std::byte> row_of(std::uint32_t shard, std::uint32_t item, std::uint32_t place, std::size_t bytes) {
  std::vector<std::byte> row(bytes, static_cast<std::byte>(shard * 31 + item * 7 + place));
  if (bytes >= 12) {
    std::memcpy(row.data(), &shard, 4);
    std::memcpy(row.data() + 4, &item, 4);
    std::memcpy(row.data() + 8, &place, 4);
  }
  return row;
}

// Answers requests with new items, each of stack + 1 rows, the middle ones of state and next state the same.
struct PlayedShard {
  PlayedShard(wire::Context& context, std::uint32_t shard, const Schema& what)
      : index(shard),
        schema(what),
        router(context, wire::SocketKind::router),
        address(router.bind(text("inproc://shard-", shard))) {}

  // The parts of `damaged` are changed on the way.
  void serve(const std::set<std::size_t>& damaged = {}, std::size_t most = 4096) {
    for (const auto& message : router.receive_all(most)) {
      if (message.type != static_cast<std::uint16_t>(wire::MessageType::sample_request)) continue;
      const auto request = wire::decode<wire::SampleRequest>(message);
      const auto count = empty ? 0 : request.count;
      wire::SampleReply reply{
          epoch, request.request, 10, count, count * (stack + 1), empty ? 0 : mass, empty ? 0U : 100, 1};
      std::vector<wire::Frame> parts;
      if (request.count > 0) {
        drawn += count;
        asked.push_back({request.first, request.strata, request.count});
      }
      if (count > 0) {
        ++replies;
        largest = std::max(largest, std::size_t{reply.rows} * schema.observations[0].bytes());
        parts = parts_of(request.count);
        for (const auto part : damaged) {
          auto bytes = parts[part].mutable_bytes();
          (void)parts[part].checksum();  // from now on the one that is sent
          bytes.back() ^= std::byte{1};
        }
      }
      auto answer = wire::encode(reply, std::move(parts));
      REQUIRE(router.send_to(message.peer, answer) == wire::Sent::yes);
    }
  }

  std::vector<wire::Frame> parts_of(std::uint32_t count) {
    SampleTable table{.stack = stack, .n_step = 1};
    table.resize(count);
    std::vector<std::byte> frames, masks;
    for (std::uint32_t i = 0; i < count; ++i, ++items) {
      table.slots[i] = items;
      table.generations[i] = 1;
      table.leaves[i] = 1;
      table.steps[i] = 1;
      for (std::uint32_t place = 0; place <= stack; ++place) {
        const auto row = i * (stack + 1) + place;
        if (place < stack) table.state[i * stack + place] = row;
        if (place > 0) table.next_state[i * stack + place - 1] = row;
        for (auto [bytes, to] : {std::pair{schema.observations[0].bytes(), &frames}, {std::size_t{3}, &masks}}) {
          const auto made = row_of(index, items, place, bytes);
          to->insert(to->end(), made.begin(), made.end());
        }
      }
    }
    std::vector<wire::Frame> parts;
    parts.push_back(table.encode());
    parts.push_back(wire::Frame::copy_of(frames));
    parts.push_back(wire::Frame::copy_of(masks));
    return parts;
  }

  std::uint32_t index;
  Schema schema;
  wire::Socket router;
  std::string address;
  std::uint32_t items = 0;
  std::size_t replies = 0, largest = 0;
  std::uint64_t mass = 100;
  bool empty = false;       // nothing is drawable any more
  std::uint32_t drawn = 0;  // items sent
  struct Asked {
    std::uint32_t first, strata, count;
  };
  std::vector<Asked> asked;
};

struct Replay {
  Replay(std::int64_t pixels, std::uint32_t batch, std::size_t helpers, std::uint32_t count = 2,
         std::uint32_t prefetch = 1, Seconds silent_after = Seconds(5))
      : schema(schema_of(pixels)),
        client(context, clock,
               {.schema = schema,
                .stack = stack,
                .batch = batch,
                .prefetch = prefetch,
                .seed = 1,
                .identity = "learner",
                .silent_after = silent_after,
                .helpers = helpers}) {
    std::vector<ShardAddress> addresses;
    for (std::uint32_t i = 0; i < count; ++i) {
      shards.push_back(std::make_unique<PlayedShard>(context, i, schema));
      addresses.push_back({i, 10, shards.back()->address});
    }
    client.set_epoch(epoch);
    client.set_shards(addresses);
    clock.advance(std::chrono::seconds(1));
    exchange();
  }

  void exchange(const std::set<std::size_t>& damaged_by_the_second = {}) {
    (void)client.step();
    for (const auto& shard : shards) shard->serve(shard->index == 1 ? damaged_by_the_second : std::set<std::size_t>());
    (void)client.step();
  }

  // Whether every item's rows are what its shard sent, and no item is there twice.
  void check(const SampledBatch& batch, const std::byte* frames) {
    const auto bytes = schema.observations[0].bytes();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const auto handle = batch.handle(i);
      REQUIRE(seen.insert(handle).second);
      for (std::uint32_t place = 0; place <= stack; ++place) {
        const auto row = place < stack ? batch.table.state[i * stack + place] : batch.table.next_state[i * stack + 1];
        if (place > 0) REQUIRE(batch.table.next_state[i * stack + place - 1] == row);
        REQUIRE(row < batch.rows);
        const auto wanted = row_of(handle.shard, handle.slot, place, bytes);
        REQUIRE(std::memcmp(frames + row * bytes, wanted.data(), bytes) == 0);
        const auto mask = row_of(handle.shard, handle.slot, place, 3);
        REQUIRE(std::memcmp(batch.columns[1].data() + row * 3, mask.data(), 3) == 0);
      }
    }
  }

  // The next batch is there, and so is all that it should hold.
  void check_next() {
    const auto batch = client.take();
    REQUIRE(batch);
    check(*batch, batch->network_rows());
  }

  wire::Context context{0};
  VirtualClock clock;
  Schema schema;
  std::vector<std::unique_ptr<PlayedShard>> shards;
  ReplayClient client;
  std::set<Handle> seen;
};

}  // namespace

TEST_CASE("client: large batches come in replies of half a megabyte, and helpers change nothing") {
  const std::size_t helpers = GENERATE(0, 3);
  Replay replay(7056, 512, helpers);
  std::vector<std::byte> elsewhere;
  for (int round = 0; round < 4; ++round) {
    REQUIRE(replay.client.request());
    replay.exchange();
    const bool own = round % 2 == 0;
    const auto memory = [&](std::size_t bytes) {
      elsewhere.assign(own ? 0 : bytes, std::byte{0xee});
      return std::span(elsewhere);
    };
    auto batch = replay.client.take(memory);
    REQUIRE(batch);
    REQUIRE(batch->rows == 512 * (stack + 1));
    CHECK(batch->columns[0].empty() != own);
    replay.check(*batch, batch->network_rows());
    replay.client.recycle(std::move(*batch));
  }
  CHECK(replay.seen.size() == 4 * 512);
  CHECK(replay.shards[0]->replies > 20);
  CHECK(std::max(replay.shards[0]->largest, replay.shards[1]->largest) <= 512 << 10);
}

TEST_CASE("client: of a round of small batches each gets rows of its own") {
  Replay replay(20, 8, 3);
  REQUIRE(replay.client.request(4));
  replay.exchange();
  for (int i = 0; i < 4; ++i) {
    const auto batch = replay.client.take();
    REQUIRE(batch);
    REQUIRE(batch->size() == 8);
    replay.check(*batch, batch->network_rows());
  }
  CHECK_FALSE(replay.client.take());
  CHECK(replay.seen.size() == 32);
}

TEST_CASE("client: rows that come damaged are counted and asked for again, and the batch is whole") {
  const std::size_t helpers = GENERATE(0, 3);
  const std::size_t damaged = GENERATE(1, 2);  // the frames or the masks
  const auto [pixels, batches, batch] = GENERATE(std::tuple{7056, 1U, 512U}, std::tuple{20, 4U, 8U});
  Replay replay(pixels, batch, helpers);
  REQUIRE(replay.client.request(batches));
  replay.exchange({damaged});
  const auto replies = replay.shards[1]->replies;
  REQUIRE(replies > 0);
  CHECK_FALSE(replay.client.take());
  CHECK(replay.client.traffic().refused == replies);
  CHECK(replay.client.in_flight() == batches);
  CHECK_FALSE(replay.client.take());  // not there yet
  replay.exchange();
  for (std::uint32_t i = 0; i < batches; ++i) {
    replay.check_next();
  }
  CHECK(replay.client.in_flight() == 0);
  CHECK(replay.seen.size() == batches * batch);
}

TEST_CASE("client: a damaged item table is refused when it arrives, and asked for again") {
  Replay replay(20, 8, 0);
  REQUIRE(replay.client.request());
  replay.exchange({0});
  CHECK(replay.client.traffic().refused == 1);
  CHECK_FALSE(replay.client.take());
  replay.exchange();
  replay.check_next();
}

TEST_CASE("client: a reply of the only shard that was lost is asked for again after the silence") {
  Replay replay(20, 8, 0, 1);
  REQUIRE(replay.client.request());
  (void)replay.shards[0]->router.receive_all();  // and nothing is answered
  replay.clock.advance(std::chrono::seconds(3));
  replay.exchange();  // it tells its state meanwhile
  CHECK_FALSE(replay.client.take());
  replay.clock.advance(std::chrono::seconds(3));
  replay.exchange();
  replay.exchange();
  replay.check_next();
}

TEST_CASE("client: a reply that was overtaken by a later one is asked for again at once") {
  Replay replay(20, 8, 0, 1);
  REQUIRE(replay.client.request());
  (void)replay.shards[0]->router.receive_all();  // and nothing is answered
  REQUIRE(replay.client.request());
  replay.exchange();
  CHECK_FALSE(replay.client.take());
  replay.clock.advance(std::chrono::milliseconds(200));
  replay.exchange();
  for (int i = 0; i < 2; ++i) {
    replay.check_next();
  }
}

TEST_CASE("client: the parts of a shard that is gone go to the others at once") {
  Replay replay(7056, 512, 0);
  REQUIRE(replay.client.request());
  (void)replay.client.step();
  replay.client.set_shards({{0, 10, replay.shards[0]->address}});
  replay.shards.pop_back();
  replay.exchange();
  replay.check_next();  // the clock stood still
}

TEST_CASE("client: a slow shard is not a lost one") {
  Replay replay(7056, 512, 0, 1, 64);
  std::size_t taken = 0;
  for (int second = 0; second < 30; ++second) {
    replay.clock.advance(std::chrono::seconds(1));
    while (replay.client.in_flight() < 64) REQUIRE(replay.client.request());
    (void)replay.client.step();
    replay.shards[0]->serve({}, 30);  // the last of those requested waits for eight seconds
    (void)replay.client.step();
    while (replay.client.take()) ++taken;
  }
  CHECK(taken > 200);  // of 225: four replies a batch
}

TEST_CASE("client: however much is requested ahead, no queue overflows and nothing waits for a silence") {
  // 64 batches of 512 of these rows would be 3,300 replies of half a megabyte: as many as this need larger ones.
  Replay replay(7056, 512, 0, 1, 64);
  for (int i = 0; i < 20; ++i) REQUIRE(replay.client.request());
  std::size_t taken = 0;
  for (int i = 0; i < 2000 && taken < 20; ++i) {
    replay.exchange();
    while (const auto batch = replay.client.take()) {
      ++taken;
      replay.check(*batch, batch->network_rows());
    }
  }
  CHECK(taken == 20);
  CHECK(replay.shards[0]->replies <= 20 * 256 / 64);
}

TEST_CASE("client: requests that a full queue does not take are sent later") {
  Replay replay(20, 1, 0, 1);  // a part a batch, of which the queues hold two thousand
  for (int i = 0; i < 2500; ++i) REQUIRE(replay.client.request());
  std::size_t taken = 0;
  for (int i = 0; i < 4000 && taken < 2500; ++i) {
    replay.exchange();
    while (replay.client.take()) ++taken;
  }
  CHECK(taken == 2500);  // the clock stood still
}

namespace {

// Four shards of masses 100, 200, 300 and 400, each item's leaf 1.
struct FourMasses : Replay {
  explicit FourMasses(std::int64_t pixels, std::uint32_t batch) : Replay(pixels, batch, 0, 4, 1, Seconds(2)) {
    for (const auto& shard : shards) shard->mass = 100 * (shard->index + 1);
    tell();
  }
  // All but the last answer, `most` messages each.
  void serve_others(std::size_t most = 4096) {
    for (std::size_t s = 0; s < 3; ++s) shards[s]->serve({}, most);
  }
  // The masses become known.
  void tell() {
    clock.advance(std::chrono::milliseconds(2600));
    exchange();
    for (const auto& shard : shards) shard->drawn = 0;
  }
  // What is under way is answered, and what is lost is asked for again, by all but the last.
  SampledBatch without_the_last(Milliseconds wait) {
    for (auto waited = Milliseconds(0); waited < wait; waited += Milliseconds(100)) {
      (void)client.step();
      serve_others();
      clock.advance(Milliseconds(100));
    }
    for (int i = 0; i < 3; ++i) {
      (void)client.step();
      serve_others();
    }
    (void)client.step();
    auto batch = client.take();
    REQUIRE(batch);
    return std::move(*batch);
  }
  // Every item of shard s was drawn with probability q[s] * leaf / mass.
  void check_probabilities(const SampledBatch& batch, const std::vector<double>& q) {
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const auto s = batch.shard[i];
      REQUIRE(batch.probability[i] == Approx(q[s] / static_cast<double>(shards[s]->mass)).epsilon(1e-12).margin(0));
    }
  }
};

}  // namespace

TEST_CASE("client: a batch that lost a shard half way has the probabilities of one drawn without it") {
  const auto [pixels, batch] = GENERATE(std::tuple{20, 64U}, std::tuple{7056, 512U});
  FourMasses replay(pixels, batch);
  REQUIRE(replay.client.request());
  (void)replay.client.step();
  replay.serve_others();  // the others have drawn their part, as of four shards
  const auto early = replay.shards[0]->drawn + replay.shards[1]->drawn + replay.shards[2]->drawn;
  REQUIRE(early >= batch * 6 / 10 - 2);
  SECTION("when it is silent for the time that is set, and no longer") {
    const auto got = replay.without_the_last(Milliseconds(2300));
    // 1 / 600 for all: not 1 / 1000 for those that came early.
    replay.check_probabilities(got, {1.0 / 6, 2.0 / 6, 3.0 / 6, 0});
  }
  SECTION("when it is replaced, and is back with other items meanwhile") {
    replay.client.set_shards({{0, 10, replay.shards[0]->address},
                              {1, 10, replay.shards[1]->address},
                              {2, 10, replay.shards[2]->address},
                              {3, 11, replay.shards[3]->address}});
    replay.check_probabilities(replay.without_the_last(Milliseconds(0)), {1.0 / 6, 2.0 / 6, 3.0 / 6, 0});
  }
}

TEST_CASE("client: what a shard drew before it was lost keeps its part of that shard's share") {
  FourMasses replay(7056, 512);
  REQUIRE(replay.client.request());
  (void)replay.client.step();
  replay.serve_others();
  auto& last = *replay.shards[3];
  last.serve({}, 5);
  REQUIRE(last.replies == 5);
  REQUIRE(last.drawn > 0);
  const double asked = last.asked.front().strata;
  const double lost = 0.4 * (asked - last.drawn) / asked;
  REQUIRE(lost > 0.1);
  const auto batch = replay.without_the_last(Milliseconds(2300));
  replay.check_probabilities(batch, {0.1 + lost / 6, 0.2 + lost * 2 / 6, 0.3 + lost * 3 / 6, 0.4 - lost});
}

TEST_CASE("client: a shard that has nothing to draw any more gives its share to the others") {
  FourMasses replay(20, 64);
  REQUIRE(replay.client.request());
  replay.shards[3]->empty = true;
  (void)replay.client.step();
  for (const auto& shard : replay.shards) shard->serve();
  replay.check_probabilities(replay.without_the_last(Milliseconds(0)), {1.0 / 6, 2.0 / 6, 3.0 / 6, 0});
}

TEST_CASE("client: a lost or damaged reply of a living shard is asked for again there, from the same strata") {
  FourMasses replay(7056, 512);
  REQUIRE(replay.client.request());
  (void)replay.client.step();
  replay.serve_others();
  auto& last = *replay.shards[3];
  last.serve({}, 1);
  const auto first = last.asked;
  SECTION("damaged") { last.serve({0}); }
  SECTION("lost") {
    (void)last.router.receive_all();
    REQUIRE(replay.client.request());  // is answered, and so tells that the others were not
    (void)replay.client.step();
    last.serve();
    replay.clock.advance(std::chrono::milliseconds(200));
  }
  last.asked = first;
  for (int i = 0; i < 3; ++i) {
    (void)replay.client.step();
    for (const auto& shard : replay.shards) shard->serve();
  }
  (void)replay.client.step();
  const auto batch = replay.client.take();
  REQUIRE(batch);
  replay.check_probabilities(*batch, {0.1, 0.2, 0.3, 0.4});
  // The first answer's strata and those of what was asked for again are all, each once.
  std::vector<int> met(first.front().strata, 0);
  for (const auto& part : last.asked) {
    for (std::uint32_t i = 0; i < part.count; ++i) ++met.at((part.first + i) % part.strata);
  }
  CHECK(met == std::vector<int>(met.size(), 1));
}
