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
