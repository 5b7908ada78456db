// The vector environment as actors see it: episode edges, seeds, snapshots, errors.
#include "envs/vector_env.h"

#include <cstring>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::envs;

TEST_CASE("catch: an episode has nine steps and pays one or minus one at its last") {
  const auto env = make({.id = "catch"}, 3);
  env->reset(std::vector<std::uint64_t>{1, 2, 3});
  const std::vector<std::int32_t> stay(3, 1);
  for (int step = 1; step <= 18; ++step) {
    env->step(stay);
    for (std::size_t slot = 0; slot < 3; ++slot) {
      const bool last = step % 9 == 0;
      CHECK(env->terminated()[slot] == last);
      CHECK(env->truncated()[slot] == 0);
      CHECK(std::abs(env->rewards()[slot]) == (last ? 1.0f : 0.0f));
    }
  }
}
