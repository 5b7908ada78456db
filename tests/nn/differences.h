// Gradients of a trainer against finite differences of its loss.
#pragma once

#include "tests/nn/support.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {

// A trainer of either kind with one batch and fixed networks.
template <class Trainer, class Batch>
class Differences {
 public:
  // `size`: priorities that the trainer hands out for the batch.
  Differences(const NetworkSpec& spec, std::unique_ptr<Trainer> trainer, const Batch& batch, std::int64_t size,
              std::uint64_t seed)
      : batch_(batch),
        trainer_(std::move(trainer)),
        online_(random_parameters(spec, seed + 1)),
        target_(random_parameters(spec, seed + 2)),
        priorities_(static_cast<std::size_t>(size)) {}

  double loss(std::span<const float> online) {
    trainer_->set_parameters(online, target_);
    trainer_->submit(batch_.view, {.learning_rate = 0});
    return trainer_->collect(priorities_).loss;
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
  const Batch& batch_;
  std::unique_ptr<Trainer> trainer_;
  std::vector<float> online_, target_;
  std::vector<float> priorities_;
};

// Losses are doubles near 1: a step of 2^-14 leaves 1e-16 / 1e-4 of rounding and 1e-8 of curvature. What remains are
// the kinks of relu, Huber and the argmax, which a step may cross: those few differences are off by a visible amount,
// so a tensor passes when 95% of its gradients agree and none is off by more than a kink can move it. At most `most` of
// each tensor are looked at.
template <class Trainer, class Batch>
void require_gradients(const NetworkSpec& spec, Differences<Trainer, Batch> differences, std::size_t most,
                       std::uint64_t seed) {
  const auto gradients = differences.gradients();
  Rng pick(seed);
  for (const ParameterInfo& info : parameter_layout(spec)) {
    CAPTURE(info.name);
    double largest = 0;
    for (std::size_t i = 0; i < info.elements(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(gradients[info.offset + i])));
    }
    const std::size_t count = std::min<std::size_t>(info.elements(), most);
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

}  // namespace qanat::nn::test
