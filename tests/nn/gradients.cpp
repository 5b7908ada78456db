// The oracle itself: every gradient of the reference in double precision against finite differences of its loss.
#include "tests/nn/support.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {
namespace {

class Differences {
 public:
  Differences(const NetworkSpec& spec, const TrainerOptions& options, std::uint64_t seed)
      : rng_(seed),
        batch_(spec, options.batch, seed % 2 == 0, rng_),
        trainer_(make_backend("reference64")->trainer(spec, options)),
        online_(random_parameters(spec, seed + 1)),
        target_(random_parameters(spec, seed + 2)),
        td_abs_(static_cast<std::size_t>(options.batch)) {}

  double loss(std::span<const float> online) {
    trainer_->set_parameters(online, target_);
    trainer_->submit(batch_.view, {.learning_rate = 0});
    return trainer_->collect(td_abs_).loss;
  }

  std::vector<float> gradients() {
    loss(online_);
    return copy(trainer_->gradients());
  }

  // Central difference; the step is what f32 storage of the parameter makes of it.
  double difference(std::size_t index, float step) {
    std::vector<float> moved = online_;
    moved[index] = online_[index] + step;
    const double up = moved[index];
    const double loss_up = loss(moved);
    moved[index] = online_[index] - step;
    const double down = moved[index];
    return (loss_up - loss(moved)) / (up - down);
  }

 private:
  Rng rng_;
  RandomBatch batch_;
  std::unique_ptr<QTrainer> trainer_;
  std::vector<float> online_, target_;
  std::vector<float> td_abs_;
};

// Losses are doubles near 1: a step of 2^-14 leaves 1e-16 / 1e-4 of rounding and 1e-8 of curvature. What remains are
// the kinks of relu, Huber and the argmax, which a step may cross: those few differences are off by a visible amount,
// so a tensor passes when 95% of its gradients agree and none is off by more than a kink can move it.
void require_gradients(const NetworkSpec& spec, const TrainerOptions& options, std::uint64_t seed) {
  Differences differences(spec, options, seed);
  const auto gradients = differences.gradients();
  Rng pick(seed);
  for (const ParameterInfo& info : parameter_layout(spec)) {
    CAPTURE(info.name);
    double largest = 0;
    for (std::size_t i = 0; i < info.elements(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(gradients[info.offset + i])));
    }
    const std::size_t count = std::min<std::size_t>(info.elements(), 40);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t at = info.offset + (count == info.elements() ? i : pick.below(info.elements()));
      const double wanted = differences.difference(at, 0x1p-14f);
      const double off = std::abs(gradients[at] - wanted);
      CHECK(off <= 0.05 * largest + 1e-6);
      if (!(off <= 1e-5 * largest + 1e-9)) ++wrong;
    }
    CHECK(largest > 0);
    CHECK(wrong * 20 <= count);
  }
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
  const NetworkSpec spec = networks()[2].spec;
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
