#include "actors/experience_writer.h"

#include <chrono>
#include <thread>

#include "core/error.h"
#include "tests/actors/fake_shard.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::actors;
using replay::flag_first;
using replay::flag_last_observation;
using replay::flag_terminated;
using replay::flag_truncated;

namespace {

constexpr std::uint64_t incarnation = 77;

WriterOptions options_of(std::size_t slots) {
  WriterOptions options;
  options.incarnation = incarnation;
  options.slots = slots;
  options.chunk_steps = 4;
  options.max_chunks_in_flight = 2;
  options.observations = {{"x", DType::i32, {2}}};
  options.mask_actions = 3;
  return options;
}

// A writer whose slots count their steps: the observation is (slot, t), the action t % 3, the reward t / 2.
struct Bench {
  wire::Context context;
  VirtualClock clock;
  std::vector<std::unique_ptr<FakeShard>> shards;
  ExperienceWriter writer;
  std::vector<std::int32_t> t;
  std::vector<std::size_t> restarted;

  explicit Bench(std::size_t slots, std::size_t shard_count = 1) : Bench(options_of(slots), shard_count) {}
  explicit Bench(const WriterOptions& options, std::size_t shard_count = 1)
      : writer(context, clock, options), t(options.slots, 0) {
    for (std::size_t i = 0; i < shard_count; ++i) add_shard(100 + i);
    tell();
    restarted.clear();
  }
  void add_shard(std::uint64_t id) {
    shards.push_back(std::make_unique<FakeShard>(context, text("inproc://shard-", id), id));
  }
  void tell() {
    std::vector<ShardAddress> known;
    for (const auto& shard : shards) known.push_back({shard->incarnation, shard->address});
    writer.set_shards(known, 0, restarted);
  }
  void row(std::size_t slot, std::uint8_t end = 0) {
    const std::array<std::int32_t, 2> x{static_cast<std::int32_t>(slot), t[slot]};
    const std::array<std::uint8_t, 3> mask{1, static_cast<std::uint8_t>(t[slot] % 2), 1};
    const auto* column = reinterpret_cast<const std::byte*>(x.data());
    writer.begin_row(slot, {std::span(&column, 1), mask.data()});
    (void)writer.end_row(slot, t[slot] % 3, static_cast<float>(t[slot]) / 2, end,
                         40 + static_cast<std::uint64_t>(t[slot]));
    ++t[slot];
    if (end == 0) return;
    const std::array<std::int32_t, 2> last{static_cast<std::int32_t>(slot), -t[slot]};
    column = reinterpret_cast<const std::byte*>(last.data());
    (void)writer.add_last_observation(slot, {std::span(&column, 1), mask.data()});
  }
  void chunk(std::size_t first, std::size_t count) {
    for (int step = 0; step < 4; ++step) {
      for (std::size_t i = first; i < first + count; ++i) row(i);
    }
    writer.send(first, count);
  }
  // Lets messages pass both ways until nothing moves. inproc delivers without delay once sent.
  void settle() {
    for (int idle = 0; idle < 2;) {
      bool any = false;
      for (auto& shard : shards) any |= shard->step();
      any |= writer.step(1, restarted);
      idle = any ? 0 : idle + 1;
    }
  }
};

}  // namespace

TEST_CASE("writer: rows arrive as they were written, first rows and ends flagged, the last observation behind") {
  Bench bench(2);
  bench.row(0);
  bench.row(1);
  bench.row(0, flag_terminated);
  bench.row(1);
  bench.row(0, flag_truncated);
  bench.row(1);
  bench.writer.send(0, 2);
  bench.settle();

  const auto& stream = bench.shards[0]->streams.at(0);
  REQUIRE(stream.rows.size() == 5);
  const std::vector<std::uint8_t> flags{flag_first, flag_terminated, flag_last_observation, flag_first | flag_truncated,
                                        flag_last_observation};
  const std::vector<std::int32_t> seen{0, 1, -2, 2, -3};
  const std::vector<std::int32_t> actions{0, 1, 0, 2, 0};
  const std::vector<float> rewards{0, 0.5F, 0, 1, 0};
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(stream.rows[i].flags() == flags[i]);
    CHECK(stream.rows[i].get<std::int32_t>(0) == std::vector<std::int32_t>{0, seen[i]});
    CHECK(stream.rows[i].get<std::int32_t>(1) == std::vector<std::int32_t>{actions[i]});
    CHECK(stream.rows[i].get<float>(2) == std::vector<float>{rewards[i]});
  }
  CHECK(stream.rows[1].get<std::uint8_t>(3) == std::vector<std::uint8_t>{1, 1, 1});
  CHECK(stream.rows[3].get<std::uint8_t>(3) == std::vector<std::uint8_t>{1, 0, 1});
  CHECK(stream.versions == std::vector<std::uint64_t>{42});  // the version that acted on the last row
  CHECK(bench.shards[0]->streams.at(1).rows.size() == 3);
  CHECK(bench.shards[0]->messages == 1);  // several slots, one message
  CHECK(bench.writer.all_acked());
}

TEST_CASE("writer: slots are dealt to the shards in turn, and a stream stays where it began") {
  Bench bench(4, 2);
  bench.chunk(0, 4);
  bench.settle();
  bench.chunk(0, 4);
  bench.settle();
  CHECK(bench.shards[0]->streams.size() == 2);
  CHECK(bench.shards[1]->streams.size() == 2);
  for (const auto& shard : bench.shards) {
    for (const auto& [id, stream] : shard->streams) CHECK(stream.rows.size() == 8);
  }
}

TEST_CASE("writer: priorities travel with the chunk that completes their items") {
  Bench bench(1);
  bench.chunk(0, 1);
  bench.row(0);
  bench.writer.add_priority(0, {2, 0.25F});
  bench.row(0);
  bench.writer.add_priority(0, {3, 0.5F});
  bench.writer.send(0, 1);
  bench.settle();
  const auto& stream = bench.shards[0]->streams.at(0);
  CHECK(stream.priorities == std::map<std::uint64_t, float>{{2, 0.25F}, {3, 0.5F}});
  CHECK(stream.completed_at == std::vector<std::uint64_t>{6, 6});
}

TEST_CASE("writer: without acks a slot stops at its credits and goes on when they come") {
  Bench bench(2);
  bench.chunk(0, 1);
  CHECK(bench.writer.can_step(0, 1));
  bench.chunk(0, 1);
  CHECK_FALSE(bench.writer.can_step(0, 1));
  CHECK_FALSE(bench.writer.can_step(0, 2));
  CHECK(bench.writer.can_step(1, 1));
  CHECK_FALSE(bench.writer.all_acked());
  bench.settle();
  CHECK(bench.writer.can_step(0, 2));
  CHECK(bench.writer.all_acked());
}

TEST_CASE("writer: a lost ack is made good by the next one, or by sending again") {
  Bench bench(1);
  bench.shards[0]->drop_every = 1;
  bench.chunk(0, 1);
  bench.settle();
  CHECK_FALSE(bench.writer.all_acked());
  bench.clock.advance(Milliseconds(1999));
  bench.settle();
  CHECK(bench.writer.resends() == 0);
  bench.shards[0]->drop_every = 0;
  bench.clock.advance(Milliseconds(1));
  bench.settle();
  CHECK(bench.writer.resends() == 1);
  CHECK(bench.shards[0]->duplicates == 1);
  CHECK(bench.writer.all_acked());
  CHECK(bench.shards[0]->streams.at(0).rows.size() == 4);
}

TEST_CASE("writer: while nothing is acknowledged it sends again ever more rarely") {
  Bench bench(1);
  bench.shards[0]->deaf = true;
  bench.chunk(0, 1);
  std::vector<int> at;  // seconds
  for (int second = 1; second <= 200; ++second) {
    bench.clock.advance(Milliseconds(1000));
    const auto before = bench.writer.resends();
    bench.settle();
    if (bench.writer.resends() > before) at.push_back(second);
  }
  CHECK(at == std::vector<int>{2, 6, 14, 30, 62, 94, 126, 158, 190});  // 2 s doubling to 32 s
}

TEST_CASE("writer: messages lost on the way leave a gap that is filled at once, in order and without repeats") {
  Bench bench(2);
  bench.shards[0]->deaf = true;
  bench.chunk(0, 2);
  bench.settle();
  bench.shards[0]->deaf = false;
  bench.chunk(0, 2);
  bench.settle();
  CHECK(bench.shards[0]->gaps > 0);
  CHECK(bench.writer.all_acked());
  for (std::uint32_t id = 0; id < 2; ++id) {
    const auto& rows = bench.shards[0]->streams.at(id).rows;
    REQUIRE(rows.size() == 8);
    for (std::int32_t i = 0; i < 8; ++i) CHECK(rows[static_cast<std::size_t>(i)].get<std::int32_t>(0)[1] == i);
  }
}

TEST_CASE("writer: with every third ack lost and connections cut, each row is stored once") {
  Bench bench(3);
  auto& shard = *bench.shards[0];
  shard.drop_every = 3;
  for (int round = 0; round < 60; ++round) {
    if (round % 7 == 3) shard.deaf = true;  // what is under way is lost
    for (std::size_t slot = 0; slot < 3; ++slot) {
      if (bench.writer.can_step(slot, 1)) bench.chunk(slot, 1);
    }
    bench.settle();
    shard.deaf = false;
    bench.clock.advance(Milliseconds(700));
  }
  shard.drop_every = 0;
  for (int i = 0; i < 40 && !bench.writer.all_acked(); ++i) {
    bench.clock.advance(Milliseconds(2000));
    bench.settle();
  }
  REQUIRE(bench.writer.all_acked());
  CHECK(shard.gaps > 0);
  CHECK(shard.duplicates > 0);
  for (std::uint32_t id = 0; id < 3; ++id) {
    const auto& rows = shard.streams.at(id).rows;
    REQUIRE(rows.size() == static_cast<std::size_t>(bench.t[id]));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      REQUIRE(rows[i].get<std::int32_t>(0)[1] == static_cast<std::int32_t>(i));
    }
  }
  CHECK(bench.writer.dropped_steps() == 0);
}

TEST_CASE("writer: a lost shard's streams end, and their slots begin new ones elsewhere with a first row") {
  Bench bench(2, 2);
  bench.chunk(0, 2);
  bench.settle();
  bench.shards[0]->deaf = true;
  bench.chunk(0, 2);
  bench.settle();
  bench.row(0);  // not sent yet
  bench.row(1);
  bench.shards.erase(bench.shards.begin());
  bench.tell();
  CHECK(bench.restarted == std::vector<std::size_t>{0});
  CHECK(bench.writer.dropped_steps() == 5);  // four in flight, one gathered
  bench.chunk(0, 1);
  bench.writer.send(1, 1);
  bench.settle();
  const auto& streams = bench.shards[0]->streams;
  CHECK(streams.at(1).rows.size() == 9);
  REQUIRE(streams.at(2).rows.size() == 4);  // a number never used before
  CHECK(streams.at(2).rows[0].flags() == flag_first);
  CHECK(streams.at(2).rows[0].get<std::int32_t>(0) == std::vector<std::int32_t>{0, 9});
  CHECK(bench.writer.all_acked());
  CHECK(bench.writer.can_step(0, 2));
}

TEST_CASE("writer: a shard that comes back under another incarnation gets new streams") {
  Bench bench(1);
  bench.chunk(0, 1);
  bench.settle();
  bench.shards.clear();
  bench.tell();
  CHECK_FALSE(bench.writer.can_step(0, 1));
  CHECK(bench.restarted.empty());
  bench.add_shard(555);
  bench.tell();
  CHECK(bench.restarted == std::vector<std::size_t>{0});
  bench.chunk(0, 1);
  bench.settle();
  CHECK(bench.shards[0]->streams.at(1).rows.size() == 4);
}

TEST_CASE("writer: streams move to a new shard at the end of an episode until all have about as many") {
  Bench bench(4);
  bench.add_shard(500);
  bench.tell();
  CHECK(bench.restarted.empty());
  bench.row(0);
  CHECK_FALSE(bench.writer.rebalance(0));  // in mid-episode
  int moved = 0;
  for (std::size_t slot = 0; slot < 4; ++slot) {
    bench.row(slot, flag_terminated);
    moved += bench.writer.rebalance(slot);
    bench.row(slot);
  }
  CHECK(moved == 2);
  bench.writer.send(0, 4);
  bench.settle();
  CHECK(bench.writer.all_acked());
  CHECK(bench.shards[0]->streams.at(0).rows.back().flags() == flag_last_observation);
  CHECK(bench.shards[1]->streams.size() == 2);
  CHECK(bench.shards[1]->streams.at(4).rows[0].flags() == flag_first);
}

TEST_CASE("writer: a shard that moves to another address gets again what it had not acknowledged") {
  Bench bench(1);
  bench.shards[0]->deaf = true;
  bench.chunk(0, 1);
  bench.settle();
  bench.shards.clear();
  bench.shards.push_back(std::make_unique<FakeShard>(bench.context, "inproc://moved", 100));
  bench.tell();
  CHECK(bench.restarted.empty());
  bench.settle();
  CHECK(bench.writer.all_acked());
  CHECK(bench.shards[0]->streams.at(0).rows.size() == 4);
}

TEST_CASE("writer: a new epoch sends again what is unacknowledged, under the new epoch") {
  Bench bench(1);
  bench.shards[0]->deaf = true;
  bench.chunk(0, 1);
  bench.settle();
  bench.shards[0]->deaf = false;
  (void)bench.writer.step(2, bench.restarted);
  (void)bench.shards[0]->step();
  CHECK(bench.shards[0]->epochs == std::vector<std::uint64_t>{2});
}

TEST_CASE("writer: a refused first chunk ends the actor with the shard's reason") {
  Bench bench(1);
  bench.shards[0]->refuse_because = "column x has 8 bytes, wanted 12";
  bench.chunk(0, 1);
  CHECK_THROWS_WITH(bench.settle(), Catch::Matchers::Contains("wanted 12") && Catch::Matchers::Contains("77/0"));
}

TEST_CASE("writer: a stream that its shard takes no more of is followed by a new one") {
  Bench bench(1);
  bench.chunk(0, 1);
  bench.settle();
  bench.shards[0]->refuse_because = "comes after the stream's end";
  bench.chunk(0, 1);
  bench.settle();
  CHECK(bench.restarted == std::vector<std::size_t>{0});
  CHECK(bench.writer.dropped_steps() == 4);
  bench.shards[0]->refuse_because.clear();
  bench.chunk(0, 1);
  bench.settle();
  CHECK(bench.shards[0]->streams.at(1).rows.size() == 4);
  CHECK(bench.writer.all_acked());
}

TEST_CASE("writer: answers to what was never sent are dropped and counted, those of another life are not heard") {
  Bench bench(1);
  bench.chunk(0, 1);
  bench.shards[0]->deaf = true;
  bench.settle();
  const auto answer = [&](std::uint64_t shard, std::uint64_t actor, std::uint64_t next) {
    auto reply = wire::encode(wire::InsertAck{shard, {{actor, 0, next, wire::AckStatus::applied, {}}}});
    (void)bench.shards[0]->socket.send_to(text("actor-", incarnation), reply);
  };
  answer(4711, incarnation, 1);
  answer(100, 4712, 1);
  bench.settle();
  CHECK(bench.writer.traffic().refused == 0);
  answer(100, incarnation, 2);
  auto nonsense = wire::encode(wire::Leave{});
  (void)bench.shards[0]->socket.send_to(text("actor-", incarnation), nonsense);
  bench.settle();
  CHECK(bench.writer.traffic().refused == 2);
  CHECK_FALSE(bench.writer.all_acked());
  answer(100, incarnation, 1);
  bench.settle();
  CHECK(bench.writer.all_acked());
}

TEST_CASE("writer: a loaded one goes on with the same streams, rows not sent included") {
  Bench bench(2, 2);
  bench.chunk(0, 2);
  bench.settle();
  bench.row(0);
  bench.row(1, flag_terminated);
  bench.writer.add_priority(1, {3, 0.5F});
  ByteWriter bytes;
  bench.writer.save(bytes);

  ExperienceWriter loaded(bench.context, bench.clock, options_of(2));
  ByteReader in(bytes.bytes(), "test");
  loaded.load(in);
  in.expect_end();
  std::vector<std::size_t> restarted;
  {
    ExperienceWriter gone(std::move(bench.writer));  // its sockets close before the other's open
  }
  loaded.set_shards({{100, bench.shards[0]->address}, {101, bench.shards[1]->address}}, 0, restarted);
  CHECK(restarted.empty());
  loaded.send(0, 2);
  for (int i = 0; i < 10; ++i) {
    for (auto& shard : bench.shards) (void)shard->step();
    (void)loaded.step(1, restarted);
  }
  CHECK(loaded.all_acked());
  CHECK(bench.shards[0]->streams.at(0).rows.size() == 5);
  const auto& other = bench.shards[1]->streams.at(1);
  CHECK(other.rows.size() == 6);
  CHECK(other.rows[4].get<std::int32_t>(0) == std::vector<std::int32_t>{1, 4});
  CHECK(other.priorities == std::map<std::uint64_t, float>{{3, 0.5F}});
}

TEST_CASE("writer: chunks go in as many messages as a shard's largest part wants, one at least in each") {
  auto options = options_of(4);
  // A chunk of four rows has 32 bytes of observations: two of them, or one that is larger by itself.
  for (const auto& [most, messages] : {std::pair<std::size_t, int>{1000, 1}, {64, 2}, {63, 4}, {1, 4}}) {
    INFO("at most " << most << " bytes");
    options.most_part_bytes = most;
    Bench bench(options);
    bench.chunk(0, 4);
    bench.settle();
    CHECK(bench.shards[0]->messages == messages);
    REQUIRE(bench.shards[0]->streams.size() == 4);
    for (const auto& [id, stream] : bench.shards[0]->streams) CHECK(stream.rows.size() == 4);
    CHECK(bench.writer.all_acked());
  }
}

TEST_CASE("writer: who cannot step says what was sent and not acknowledged") {
  Bench bench(2);
  bench.shards[0]->deaf = true;
  bench.chunk(0, 2);
  bench.settle();
  // Four rows a slot of 8 observation bytes, action, reward, 3 of mask and 1 of flags: 2 * 4 * 20.
  CHECK(bench.writer.waiting() == "the shards have not acknowledged 2 chunks, 160 B, sent again 0 times");
}
