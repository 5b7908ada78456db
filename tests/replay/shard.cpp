// Behaviours of a replay service, by their number in the project's list (C: conformance, G: gap), and what is the
// shard's own. What the random model test covers better is not repeated here.
#include "replay/shard.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/replay/model.h"
#include "tests/replay/statistics.h"
#include "tests/replay/support.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::test;

namespace {

constexpr StreamId stream{1, 0};
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

// One unending episode whose item at row i has priorities[i]; n is 1, so the last row is still pending.
void fill(Shard& shard, const std::vector<float>& priorities, const StreamId& id = stream) {
  const std::uint64_t limit = shard.max_chunk_rows();
  const std::uint64_t rows = priorities.size() + 1;
  for (std::uint64_t first = 0; first < rows;) {
    const std::uint64_t count = std::min(limit, rows - first);
    std::vector<std::uint8_t> flags(count, 0);
    if (first == 0) flags[0] = flag_first;
    WitnessChunk chunk(id, shard.next_sequence(id), first, flags);
    std::vector<ItemPriority> given;
    for (std::uint64_t row = std::max<std::uint64_t>(first, 1) - 1; row + 1 < first + count; ++row) {
      given.push_back({row, priorities[row]});
    }
    chunk.give_priorities(given, 1);
    REQUIRE(shard.insert(chunk.view, -1).applied);
    first += count;
  }
}

// The row number in place `i` of the states.
std::uint64_t row_of(const Draw& draw, std::size_t i, const Shard& shard) {
  std::int32_t frame[4];
  const std::uint32_t slot = draw.rows[draw.states[i]];
  shard.gather(0, {&slot, 1}, reinterpret_cast<std::byte*>(frame));
  return static_cast<std::uint64_t>(frame[2]);
}

InsertResult send(Shard& shard, std::uint64_t sequence, std::uint64_t first, std::vector<std::uint8_t> flags,
                  float others = -1) {
  const WitnessChunk chunk(stream, sequence, first, std::move(flags));
  return shard.insert(chunk.view, others);
}

}  // namespace

TEST_CASE("shard: an empty shard draws nothing and says so (C01, without the waiting)") {
  Shard shard(options_of(4, 3), witness_schema());
  Rng rng(1);
  Draw draw;
  CHECK_FALSE(shard.draw(1, rng, DrawMode::by_mass, draw));
  CHECK(draw.handles.empty());
  send(shard, 0, 0, {flag_first, 0, 0});
  CHECK_FALSE(shard.draw(1, rng, DrawMode::by_mass, draw));  // three steps, but none has three after it
  send(shard, 1, 3, {0});
  CHECK(shard.draw(1, rng, DrawMode::by_mass, draw));
}

TEST_CASE("shard: a hand-worked episode: stack, window, reward sum, next state (C02, C03)") {
  Shard shard(options_of(2, 3), witness_schema());
  send(shard, 0, 0, {flag_first, 0, 0, 0, flag_truncated | flag_terminated, flag_last_observation, flag_first});
  REQUIRE(shard.items() == 5);
  Rng rng(2);
  Draw draw;
  REQUIRE(shard.draw(500, rng, DrawMode::by_count, draw));
  CHECK(shard.counters().drawn == 500);
  std::vector<int> seen(5);
  const auto frame_row = [&](std::uint32_t index) {
    std::int32_t frame[4];
    shard.gather(0, {&draw.rows[index], 1}, reinterpret_cast<std::byte*>(frame));
    return frame[2];
  };
  const std::vector<std::vector<int>> wanted = {// oldest, t, oldest of s', s', m, terminal
                                                {0, 0, 2, 3, 3, 0},
                                                {0, 1, 3, 4, 3, 0},
                                                {1, 2, 4, 5, 3, 1},
                                                {2, 3, 4, 5, 2, 1},
                                                {3, 4, 4, 5, 1, 1}};
  for (std::size_t i = 0; i < 500; ++i) {
    const int t = frame_row(draw.states[2 * i + 1]);
    REQUIRE(t < 5);
    ++seen[static_cast<std::size_t>(t)];
    const std::vector<int> row = {frame_row(draw.states[2 * i]),
                                  t,
                                  frame_row(draw.next_states[2 * i]),
                                  frame_row(draw.next_states[2 * i + 1]),
                                  draw.steps[i],
                                  draw.terminal[i]};
    CHECK(row == wanted[static_cast<std::size_t>(t)]);
  }
  for (const int count : seen) CHECK(count >= 99);  // five items, 500 strata: 100 each, but for the borders
}

TEST_CASE("shard: rows leave oldest first, whole segments at a time (C04), and never exceed the capacity (C05)") {
  Shard shard(options_of(1, 1, 1000), witness_schema());
  std::uint64_t rows = 0;
  for (std::uint64_t sequence = 0; sequence < 3000; ++sequence) {
    send(shard, sequence, rows, {rows == 0 ? flag_first : std::uint8_t{0}});
    ++rows;
    REQUIRE(shard.resident_rows() <= 1000);
    REQUIRE(shard.resident_rows() >= std::min<std::uint64_t>(rows, 991));
  }
  CHECK(shard.resident_rows() == 1000);  // the whole capacity is used
  CHECK_FALSE(shard.item(stream, 1999).has_value());
  CHECK(shard.item(stream, 2000).has_value());
}

TEST_CASE("shard: draws fit their priorities, and the reported probability is leaf / mass exactly (C12)") {
  const double alpha = GENERATE(0.0, 0.6, 1.0);
  Shard shard(options_of(1, 1, 1009, alpha), witness_schema());
  std::vector<float> priorities;
  for (int i = 10; i < 100; ++i) priorities.push_back(static_cast<float>(i));
  fill(shard, priorities);
  std::vector<double> probabilities;
  std::uint64_t sum = 0;
  for (std::uint64_t row = 0; row < 90; ++row) sum += shard.item(stream, row)->leaf;
  CHECK(shard.mass() == sum);
  for (std::uint64_t row = 0; row < 90; ++row) {
    probabilities.push_back(static_cast<double>(shard.item(stream, row)->leaf) / static_cast<double>(sum));
  }
  double powers = 0;
  for (const float priority : priorities) powers += std::pow(double{priority}, alpha);
  for (std::size_t i = 0; i < 90; ++i) {
    // Fixed point rounds each leaf by half a unit of 2^-20 at most: relative to p^alpha >= 1 that is below 1e-6.
    CHECK(probabilities[i] == Approx(std::pow(double{priorities[i]}, alpha) / powers).epsilon(2e-6));
  }
  Rng rng(3);
  Draw draw;
  std::vector<std::uint64_t> counts(90);
  for (int i = 0; i < 1'000'000; ++i) {  // one at a time: independent draws
    REQUIRE(shard.draw(1, rng, DrawMode::by_mass, draw));
    const std::uint64_t row = row_of(draw, 0, shard);
    if (draw.leaves[0] != shard.item(stream, row)->leaf || draw.mass != sum) FAIL("reported probability is wrong");
    ++counts[row];
  }
  CHECK(chi_square(counts, probabilities) < chi_square_limit(89));
  // Planted: alpha applied twice, and uniform draws, must not pass for these counts.
  const auto statistic_for = [&](double exponent) {
    std::vector<double> others;
    for (const float priority : priorities) others.push_back(std::pow(double{priority}, exponent));
    const double total = std::accumulate(others.begin(), others.end(), 0.0);
    for (double& value : others) value /= total;
    return chi_square(counts, others);
  };
  if (alpha == 0.6) CHECK(statistic_for(0.36) > chi_square_limit(89));
  if (alpha > 0) CHECK(statistic_for(0) > chi_square_limit(89));
  CHECK(statistic_for(alpha + 0.02) > chi_square_limit(89));
}

TEST_CASE("shard: priority 0 is never drawn while any is positive, for alpha 0 too (C13)") {
  Shard shard(options_of(1, 1, 1009, GENERATE(0.0, 1.0)), witness_schema());
  std::vector<float> priorities(200, 0);
  priorities[77] = 1e-15F;
  fill(shard, priorities);
  Rng rng(4);
  Draw draw;
  REQUIRE(shard.draw(10'000, rng, DrawMode::by_mass, draw));
  CHECK(draw.mode == DrawMode::by_mass);
  bool only = true;
  for (std::size_t i = 0; i < 10'000; ++i) only &= row_of(draw, i, shard) == 77;
  CHECK(only);
}

TEST_CASE("shard: when all priorities are 0, draws are uniform with probability 1/N (C14)") {
  Shard shard(options_of(1, 1), witness_schema());
  fill(shard, std::vector<float>(100, 0));
  CHECK(shard.mass() == 0);
  CHECK(shard.max_priority() == 0.0F);
  Rng rng(5);
  std::vector<std::uint64_t> counts(100);
  Draw draw;
  for (int i = 0; i < 100'000; ++i) {
    REQUIRE(shard.draw(1, rng, DrawMode::by_mass, draw));
    ++counts[row_of(draw, 0, shard)];
  }
  CHECK(draw.mode == DrawMode::by_count);
  CHECK(draw.leaves[0] == 1);
  CHECK(draw.mass == 100);
  CHECK(chi_square(counts, std::vector<double>(100, 0.01)) < chi_square_limit(99));
}

TEST_CASE("shard: one tiny priority survives ten thousand others that come and go (C15)") {
  Shard shard(options_of(1, 1, 20'000, 1), witness_schema());
  std::vector<float> priorities(10'001, 0.3F);
  priorities.back() = 1e-15F;
  fill(shard, priorities);
  std::vector<Handle> handles;
  for (std::uint64_t row = 0; row < 10'000; ++row) handles.push_back(shard.item(stream, row)->handle);
  for (int round = 0; round < 20; ++round) {
    shard.update_priorities(handles, std::vector<float>(handles.size(), 1e8F));
    shard.update_priorities(handles, std::vector<float>(handles.size(), 0));
  }
  CHECK(shard.mass() == 1);
  Rng rng(6);
  Draw draw;
  REQUIRE(shard.draw(100, rng, DrawMode::by_mass, draw));
  for (std::size_t i = 0; i < 100; ++i) CHECK(row_of(draw, i, shard) == 10'000);
}

TEST_CASE("shard: the same seed and operations give the same draws, another seed others (C16)") {
  Shard first(options_of(1, 1), witness_schema());
  Shard second(options_of(1, 1), witness_schema());
  fill(first, std::vector<float>(500, 1));
  fill(second, std::vector<float>(500, 1));
  Rng rng(7);
  Rng same(7);
  Rng other(8);
  Draw a;
  Draw b;
  REQUIRE(first.draw(64, rng, DrawMode::by_mass, a));
  REQUIRE(second.draw(64, same, DrawMode::by_mass, b));
  CHECK(a.rows == b.rows);
  CHECK(a.handles == b.handles);
  REQUIRE(second.draw(64, other, DrawMode::by_mass, b));
  CHECK(a.handles != b.handles);
}

TEST_CASE("shard: the uniform selector gives every item the same leaf, whatever its priority") {
  ShardOptions options = options_of(1, 1);
  options.selector = "uniform";
  Shard shard(options, witness_schema());
  fill(shard, {0, 1, 100, 0.001F});
  CHECK(shard.mass() == 4);
  options.selector = "lifo";
  CHECK_THROWS_WITH(Shard(options, witness_schema()), Catch::Contains("lifo"));
}

TEST_CASE("shard: what does not fit the schema or the stream is refused whole, naming both sides (C37, C38)") {
  Shard shard(options_of(2, 2), witness_schema());
  send(shard, 0, 0, {flag_first, 0, 0});
  const auto untouched = [&] { return shard.items() == 1 && shard.resident_rows() == 3 && shard.rows_of(stream) == 3; };
  CHECK_THROWS_WITH(send(shard, 2, 3, {0}), Catch::Contains("saw chunk 2, wanted 1"));
  CHECK_THROWS_WITH(send(shard, 1, 4, {0}), Catch::Contains("row 4, wanted 3"));
  WitnessChunk chunk(stream, 1, 3, {0, 0});
  ChunkView view = chunk.view;
  view.columns = view.columns.first(3);
  CHECK_THROWS_WITH(shard.insert(view, -1), Catch::Contains("3 columns, wanted 7"));
  view = chunk.view;
  view.rows = 3;
  CHECK_THROWS_WITH(shard.insert(view, -1), Catch::Contains("frame i32 [4]"));
  view.rows = 0;
  CHECK_THROWS_AS(shard.insert(view, -1), InputError);
  CHECK_THROWS_WITH(send(shard, 1, 3, std::vector<std::uint8_t>(505, 0)), Catch::Contains("505 rows, wanted 1 to 504"));
  CHECK(untouched());
  CHECK(shard.counters().refused_chunks == 6);
}

TEST_CASE("shard: rows whose flags make no episodes are refused") {
  Shard shard(options_of(2, 2), witness_schema());
  CHECK_THROWS_WITH(send(shard, 0, 0, {0, 0}), Catch::Contains("first-row flag"));
  CHECK_THROWS_WITH(send(shard, 0, 0, {flag_first, flag_first}), Catch::Contains("row 1"));
  CHECK_THROWS_WITH(send(shard, 0, 0, {flag_first, flag_last_observation}), Catch::Contains("last observation"));
  CHECK_THROWS_WITH(send(shard, 0, 0, {flag_first | flag_terminated, flag_first}), Catch::Contains("last observation"));
  CHECK_THROWS_WITH(send(shard, 0, 0, {flag_first | flag_truncated, flag_last_observation, 0}),
                    Catch::Contains("row 2"));
  CHECK_THROWS_WITH(send(shard, 0, 0, {flag_first | flag_truncated, flag_last_observation | flag_terminated}),
                    Catch::Contains("row 1"));
  CHECK_THROWS_WITH(send(shard, 0, 0, {flag_first | 16}), Catch::Contains("bits"));
  CHECK(shard.resident_rows() == 0);
  CHECK(shard.known_streams() == 0);
  // The same across the border of two chunks.
  send(shard, 0, 0, {flag_first, flag_truncated});
  CHECK_THROWS_AS(send(shard, 1, 2, {flag_first}), InputError);
  send(shard, 1, 2, {flag_last_observation});
  CHECK_THROWS_AS(send(shard, 2, 3, {0}), InputError);
  send(shard, 2, 3, {flag_first});
}

TEST_CASE("shard: a chunk with a priority that is no priority is refused and inserts nothing (G01)") {
  Shard shard(options_of(1, 1), witness_schema());
  for (const float bad : {not_a_number, -1.0F, infinity, -infinity}) {
    for (const std::uint32_t n : {1U, 2U}) {  // also where it would not be used
      WitnessChunk chunk(stream, 0, 0, {flag_first, 0, 0});
      chunk.give_priorities({{0, 1.0F}, {1, bad}}, n);
      CHECK_THROWS_AS(shard.insert(chunk.view, -1), InputError);
    }
  }
  CHECK(shard.resident_rows() == 0);
  for (const std::vector<ItemPriority>& wrong :
       {std::vector<ItemPriority>{{2, 1}}, {{1, 1}, {0, 1}}, {{0, 1}, {0, 1}}, {{7, 1}}}) {
    WitnessChunk chunk(stream, 0, 0, {flag_first, 0, 0});
    chunk.give_priorities(wrong, 1);
    CHECK_THROWS_WITH(shard.insert(chunk.view, -1), Catch::Contains("does not complete"));
  }
  fill(shard, {1, 2});  // others go on
  CHECK(shard.items() == 2);
}

TEST_CASE("shard: in a batch of updates the bad ones are refused, the good ones applied (G02)") {
  Shard shard(options_of(1, 1, 1009, 1), witness_schema());
  fill(shard, {1, 2, 3, 4, 5, 6});
  std::vector<Handle> handles;
  for (std::uint64_t row = 0; row < 6; ++row) handles.push_back(shard.item(stream, row)->handle);
  const UpdateResult result =
      shard.update_priorities(handles, std::vector<float>{7, not_a_number, -1, infinity, -infinity, 8});
  CHECK(result.applied == 2);
  CHECK(result.refused == 4);
  const std::vector<float> wanted = {7, 2, 3, 4, 5, 8};
  std::uint64_t mass = 0;
  for (std::uint64_t row = 0; row < 6; ++row) {
    CHECK(shard.item(stream, row)->priority == wanted[row]);
    CHECK(shard.item(stream, row)->leaf == static_cast<std::uint32_t>(wanted[row]) << 20);
    mass += shard.item(stream, row)->leaf;
  }
  CHECK(shard.mass() == mass);
  CHECK(shard.max_priority() == 8.0F);
  Handle elsewhere = handles[0];
  elsewhere.shard = 4;
  CHECK(shard.update_priorities({&elsewhere, 1}, std::vector<float>{1}).refused == 1);
}

TEST_CASE("shard: an update that comes after its slot was reused is counted and changes nothing") {
  Shard shard(options_of(1, 1, 100), witness_schema());
  fill(shard, std::vector<float>(50, 1));
  const Handle old = shard.item(stream, 10)->handle;
  fill(shard, std::vector<float>(150, 1), {2, 0});
  const auto newer = shard.item({2, 0}, 60);  // 51 rows, then row 60 of the second stream: slot 111 - 100
  REQUIRE(shard.item({2, 0}, 59)->handle.slot == old.slot);
  const std::uint64_t mass = shard.mass();
  const UpdateResult result = shard.update_priorities({&old, 1}, std::vector<float>{1000});
  CHECK(result.stale == 1);
  CHECK(shard.counters().stale_updates == 1);
  CHECK(shard.mass() == mass);
  CHECK(shard.item({2, 0}, 59)->priority == 1);
  Handle made_up = newer->handle;
  made_up.slot = 4'000'000'000;
  CHECK(shard.update_priorities({&made_up, 1}, std::vector<float>{1}).stale == 1);
}

TEST_CASE("shard: an item without a priority of its own gets the largest live one over all shards, 1 without any") {
  Shard shard(options_of(1, 1), witness_schema());
  send(shard, 0, 0, {flag_first, 0});
  CHECK(shard.item(stream, 0)->priority == 1);
  send(shard, 1, 2, {0}, 5);
  CHECK(shard.item(stream, 1)->priority == 5);
  send(shard, 2, 3, {0}, 2);
  CHECK(shard.item(stream, 2)->priority == 5);
  const std::vector<Handle> handles = {shard.item(stream, 1)->handle, shard.item(stream, 2)->handle};
  shard.update_priorities(handles, std::vector<float>{0.5F, 0.25F});
  send(shard, 3, 4, {0});
  CHECK(shard.item(stream, 3)->priority == 1);  // the largest fell when it left; it is not a mark of all time
  WitnessChunk chunk(stream, 4, 5, {0});
  chunk.give_priorities({{4, 9}}, 3);  // computed for another n
  shard.insert(chunk.view, -1);
  CHECK(shard.item(stream, 4)->priority == 1);
}

TEST_CASE("shard: resends are acknowledged without effect, also when their stream is over and evicted (C39, G13)") {
  Shard shard(options_of(1, 1, 100), witness_schema());
  send(shard, 0, 0, {flag_first, 0, 0});
  CHECK_FALSE(send(shard, 0, 0, {flag_first, 0, 0}).applied);
  CHECK(shard.items() == 2);
  CHECK(shard.end_stream(stream, -1) == 0);  // n is 1: nothing was pending but the last row, which nothing follows
  CHECK_FALSE(send(shard, 0, 0, {flag_first, 0, 0}).applied);
  CHECK_THROWS_WITH(send(shard, 1, 3, {0}), Catch::Contains("after the stream's end"));
  fill(shard, std::vector<float>(300, 1), {2, 0});
  CHECK(shard.known_streams() == 1);  // the first is forgotten but for its number
  const InsertResult again = send(shard, 0, 0, {flag_first, 0, 0});
  CHECK_FALSE(again.applied);
  CHECK(again.next_sequence == 1);
  CHECK_THROWS_AS(send(shard, 1, 3, {0}), InputError);
  CHECK(shard.counters().duplicate_chunks == 3);
}

TEST_CASE("shard: memory of streams that are over is bounded") {
  Shard shard(options_of(1, 1, 100), witness_schema());
  for (std::uint64_t incarnation = 0; incarnation < 70'000; ++incarnation) {
    const StreamId id{incarnation, 0};
    const WitnessChunk chunk(id, 0, 0, {flag_first | flag_terminated, flag_last_observation});
    shard.insert(chunk.view, -1);
    shard.end_stream(id, -1);
  }
  CHECK(shard.known_streams() <= 50);
  CHECK(shard.next_sequence({69'900, 0}) == 1);
  CHECK(shard.next_sequence({1, 0}) == 0);  // beyond the newest 65,536
}

TEST_CASE("shard: a stream cut off at a terminated step keeps the windows that end there") {
  Shard shard(options_of(2, 3), witness_schema());
  send(shard, 0, 0, {flag_first, 0, 0, 0, flag_terminated});
  CHECK(shard.items() == 2);
  CHECK(shard.end_stream(stream, -1) == 3);
  Rng rng(9);
  Draw draw;
  REQUIRE(shard.draw(100, rng, DrawMode::by_count, draw));
  for (std::size_t i = 0; i < 100; ++i) {
    const std::uint64_t t = row_of(draw, 2 * i + 1, shard);
    CHECK(draw.steps[i] == std::min<std::uint64_t>(3, 5 - t));
    CHECK(draw.terminal[i] == (t >= 2 ? 1 : 0));
  }
}

TEST_CASE("shard: memory is predicted within a tenth, and options that cannot work are refused") {
  for (const std::uint64_t capacity : {100, 10'000, 1'000'000}) {
    const ShardOptions options = options_of(4, 3, capacity);
    const Shard shard(options, witness_schema(100));
    const double predicted = static_cast<double>(predicted_bytes(options, witness_schema(100)));
    CHECK(predicted == Approx(static_cast<double>(shard.reserved_bytes())).epsilon(0.1));
  }
  CHECK_THROWS_AS(Shard(options_of(4, 3, 13), witness_schema()), ConfigError);
  CHECK_THROWS_AS(Shard(options_of(0, 3), witness_schema()), ConfigError);
  CHECK_THROWS_AS(Shard(options_of(4, 0), witness_schema()), ConfigError);
  CHECK_THROWS_AS(Shard(options_of(4, 256), witness_schema()), ConfigError);
  CHECK_THROWS_AS(Shard(options_of(4, 3, 1009, -1), witness_schema()), ConfigError);
  CHECK_THROWS_AS(Shard(options_of(4, 3, 1009, not_a_number), witness_schema()), ConfigError);
  CHECK_THROWS_AS(Shard(options_of(4, 3), Schema{}), ConfigError);
}
