// The oracle itself: every gradient of the reference in double precision against finite differences of its loss.
#include "tests/nn/differences.h"

namespace qanat::nn::test {
namespace {

void require_gradients(const NetworkSpec& spec, const TrainerOptions& options, std::uint64_t seed) {
  Rng rng(seed);
  const RandomBatch batch(spec, options.batch, seed % 2 == 0, rng);
  require_gradients(spec,
                    Differences(spec, make_backend("reference64")->trainer(spec, options), batch, options.batch, seed),
                    40, seed);
}

TEST_CASE("gradients: the oracle's agree with finite differences for every network") {
  std::uint64_t seed = 10;
  for (const auto& [name, spec] : networks()) {
    CAPTURE(name);
    TrainerOptions options;
    options.batch = 6;
    require_gradients(spec, options, seed++);
  }
}

TEST_CASE("gradients: the oracle's agree with finite differences with each switch on and off") {
  const NetworkSpec spec = network_named("dueling");
  for (int bits = 0; bits < 8; ++bits) {
    CAPTURE(bits);
    TrainerOptions options;
    options.batch = 9;
    options.td.double_q = (bits & 1) != 0;
    options.td.huber = (bits & 2) != 0;
    options.td.rescale = (bits & 4) != 0;
    require_gradients(spec, options, static_cast<std::uint64_t>(50 + bits));
  }
}

}  // namespace
}  // namespace qanat::nn::test
