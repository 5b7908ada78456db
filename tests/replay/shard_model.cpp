#include "replay/stack.h"
#include "tests/replay/driver.h"
#include "tests/replay/support.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::test;

TEST_CASE("shard: agrees with the model over wraps, endings, broken streams and updates") {
  const auto stack = GENERATE(1, 4);
  const auto n_step = GENERATE(1, 3, 5);
  const auto capacity = GENERATE(24, 1009);
  const ShardOptions options = options_of(stack, n_step, static_cast<std::uint64_t>(capacity));
  const std::uint64_t seed = derive_seed(stack, n_step, capacity);
  INFO("stack " << stack << ", n " << n_step << ", capacity " << capacity << ", seed " << seed);
  Shard shard(options, witness_schema());
  Driver driver(options, seed);
  for (int i = 0; i < 1400; ++i) {
    driver.event(shard);
    if (i % (capacity < 100 ? 10 : 50) == 0) driver.compare(shard);
  }
  driver.compare(shard);
  CHECK(shard.counters().evicted_rows > 3 * options.capacity_rows);  // several wraps
  CHECK(shard.counters().stale_updates > 0);
  CHECK(shard.counters().refused_updates > 0);
  CHECK(shard.counters().duplicate_chunks > 0);
}

TEST_CASE("stack: the actors' stacker and the shard's gather give the same bytes") {
  const auto depth = GENERATE(1, 2, 4, 7);
  Shard shard(options_of(depth, 2), witness_schema());
  Rng rng(derive_seed(31, depth));
  // Two streams; what the actor would have shown its policy at each row, as bytes.
  Stacker<Frame> stacker(2, static_cast<std::uint32_t>(depth));
  std::map<Model::Key, std::vector<Frame>> shown;
  for (int round = 0; round < 60; ++round) {
    for (std::uint32_t slot = 0; slot < 2; ++slot) {
      const StreamId id{1, slot};
      const std::uint64_t first = shard.rows_of(id);
      std::vector<std::uint8_t> flags(1 + rng.below(9), 0);  // an episode of 1 to 9 steps
      flags.front() |= flag_first;
      flags.back() |= rng.chance(0.5) ? flag_terminated : flag_truncated;
      flags.push_back(flag_last_observation);
      for (std::uint64_t i = 0; i < flags.size(); ++i) {
        stacker.push(slot, frame_of(id, first + i), (flags[i] & flag_first) != 0);
        std::vector<Frame>& stack = shown[{id, first + i}];
        stack.resize(static_cast<std::size_t>(depth));
        stacker.stack(slot, stack);
      }
      shard.insert(WitnessChunk(id, shard.next_sequence(id), first, flags).view, -1);
    }
  }
  Draw draw;
  REQUIRE(shard.draw(static_cast<std::uint32_t>(2 * shard.items()), rng, DrawMode::by_count, draw));
  std::vector<Frame> frames(draw.rows.size());
  shard.gather(0, draw.rows, reinterpret_cast<std::byte*>(frames.data()));
  const auto width = static_cast<std::size_t>(depth);
  for (std::size_t i = 0; i < draw.handles.size(); ++i) {
    for (const auto& places : {draw.states, draw.next_states}) {
      const Frame& newest = frames[places[i * width + width - 1]];
      const StreamId id{1, static_cast<std::uint32_t>(newest.values[1])};
      const std::vector<Frame>& wanted = shown.at({id, static_cast<std::uint64_t>(newest.values[2])});
      for (std::size_t k = 0; k < width; ++k) REQUIRE(frames[places[i * width + k]] == wanted[k]);
    }
  }
}
