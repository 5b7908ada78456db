// Every backend against the reference in double precision: outputs, losses, gradients, optimiser steps.
#include <hwy/targets.h>

#include <algorithm>

#include "core/error.h"
#include "tests/nn/support.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {
namespace {

// The longest sum here has 1,024 terms (minatar's linear layer). Rounding in f32 of a sum of n terms of random sign
// grows as sqrt(n) * 2^-24 relative to the terms' norm: 2e-6. Three layers, forward and back, and some cancellation
// in the outputs: an order above that. A wrong tap or scale is above 1e-2 (see planted.cpp).
constexpr double f32_tolerance = 3e-5;

const std::vector<std::string> f32_backends = with_gpu({"cpu", "reference"});

struct Updated {
  UpdateResult result;
  std::vector<float> td_abs, gradients, parameters, target;
};

Updated update(QTrainer& trainer, const QBatch& batch, const UpdateControls& controls) {
  Updated out;
  out.td_abs.resize(static_cast<std::size_t>(batch.size));
  trainer.submit(batch, controls);
  out.result = trainer.collect(out.td_abs);
  out.gradients = copy(trainer.gradients());
  out.parameters = copy(trainer.parameters());
  out.target = copy(trainer.target_parameters());
  return out;
}

// Gradients tensor by tensor: a small tensor's error must not hide behind a large one.
void require_equal_tensors(const NetworkSpec& spec, std::span<const float> seen, std::span<const float> wanted) {
  for (const ParameterInfo& info : parameter_layout(spec)) {
    CAPTURE(info.name);
    CHECK(relative_error(seen.subspan(info.offset, info.elements()), wanted.subspan(info.offset, info.elements())) <
          f32_tolerance);
  }
}

void require_equal_updates(const std::string& backend, const NetworkSpec& spec, const TrainerOptions& options,
                           bool masked, std::uint64_t seed) {
  Rng rng(seed);
  const RandomBatch batch(spec, options.batch, masked, rng);
  const auto online = random_parameters(spec, seed + 1);
  const auto target = random_parameters(spec, seed + 2);
  const auto trainer = trainer_on(backend, spec, options);
  const auto oracle = make_backend("reference64")->trainer(spec, options);
  trainer->set_parameters(online, target);
  oracle->set_parameters(online, target);
  // Larger than any rounding, smaller than what would leave the linear range.
  const UpdateControls controls{.learning_rate = 1e-3};
  const Updated seen = update(*trainer, batch.view, controls);
  const Updated wanted = update(*oracle, batch.view, controls);
  CHECK(relative_error(seen.td_abs, wanted.td_abs) < f32_tolerance);
  CHECK(seen.result.loss == Approx(wanted.result.loss).epsilon(f32_tolerance));
  CHECK(seen.result.grad_norm == Approx(wanted.result.grad_norm).epsilon(f32_tolerance));
  CHECK(seen.result.mean_q == Approx(wanted.result.mean_q).epsilon(f32_tolerance).margin(1e-6));
  CHECK(seen.result.finite);
  require_equal_tensors(spec, seen.gradients, wanted.gradients);
}

TEST_CASE("inference: every backend gives the oracle's Q-values for every network and batch size") {
  for (const auto& [name, spec] : networks()) {
    for (const std::string& backend : f32_backends) {
      const auto parameters = random_parameters(spec, 7);
      const auto inference = inference_on(backend, spec, 70);
      const auto oracle = make_backend("reference64")->inference(spec, 70);
      inference->set_parameters(parameters);
      oracle->set_parameters(parameters);
      // Falling sizes: what a larger batch left behind must not show.
      for (const std::int64_t size : {70, 64, 33, 32, 31, 17, 16, 9, 8, 7, 3, 1, 0}) {
        CAPTURE(name, backend, size);
        Rng rng(static_cast<std::uint64_t>(size));
        const RandomBatch batch(spec, size, false, rng);
        std::vector<float> seen(static_cast<std::size_t>(size * spec.actions));
        std::vector<float> wanted(seen.size());
        inference->forward(batch.view.state, size, seen);
        oracle->forward(batch.view.state, size, wanted);
        CHECK(relative_error(seen, wanted) < f32_tolerance);
      }
    }
  }
}

TEST_CASE("inference: a sample's values do not depend on its batch, bit for bit") {
  for (const auto& [name, spec] : networks()) {
    for (const std::string& backend : f32_backends) {
      CAPTURE(name, backend);
      const auto inference = inference_on(backend, spec, 64);
      inference->set_parameters(random_parameters(spec, 3));
      Rng rng(5);
      const RandomBatch batch(spec, 64, false, rng);
      const auto actions = static_cast<std::size_t>(spec.actions);
      std::vector<float> together(64 * actions);
      inference->forward(batch.view.state, 64, together);
      for (const std::int64_t size : {1, 2, 7, 8, 12, 20, 40}) {
        ObservationRows last = batch.view.state;
        last.index += (64 - size) * spec.stack;
        std::vector<float> alone(static_cast<std::size_t>(size) * actions);
        inference->forward(last, size, alone);
        const auto from = together.end() - static_cast<std::ptrdiff_t>(alone.size());
        CHECK(std::equal(alone.begin(), alone.end(), from));
      }
    }
  }
}

TEST_CASE("inference: without an index row b is sample b") {
  const NetworkSpec spec = build_network({}, rows_of(DType::f32, {4}), 1, 1, 2);
  Rng rng(1);
  const RandomBatch batch(spec, 5, false, rng);
  const std::vector<std::uint32_t> counting = {0, 1, 2, 3, 4};
  for (const std::string& backend : f32_backends) {
    const auto inference = inference_on(backend, spec, 5);
    inference->set_parameters(random_parameters(spec, 3));
    std::vector<float> with(10), without(10);
    inference->forward({batch.rows.data(), 13, counting.data()}, 5, with);
    inference->forward({batch.rows.data(), 13, nullptr}, 5, without);
    CHECK(with == without);
  }
}

TEST_CASE("update: every backend agrees with the oracle for every network and awkward batch size") {
  for (const auto& [name, spec] : networks()) {
    for (const std::string& backend : f32_backends) {
      for (const std::int64_t size : {1, 5, 16, 32, 45}) {
        CAPTURE(name, backend, size);
        require_equal_updates(backend, spec, {.batch = size}, size % 2 == 1, static_cast<std::uint64_t>(size));
      }
    }
  }
}

TEST_CASE("update: every backend agrees with the oracle with each switch on and off") {
  const auto all = networks();
  for (const std::string& backend : f32_backends) {
    for (int bits = 0; bits < 16; ++bits) {
      TrainerOptions options{.batch = 32};
      options.td.double_q = (bits & 1) != 0;
      options.td.huber = (bits & 2) != 0;
      options.td.huber_delta = 0.7f;
      options.td.rescale = (bits & 4) != 0;
      CAPTURE(backend, bits);
      require_equal_updates(backend, all[2].spec, options, (bits & 8) != 0, static_cast<std::uint64_t>(100 + bits));
    }
  }
}

TEST_CASE("update: ten updates follow the oracle's losses and parameters with every optimiser") {
  const NetworkSpec spec = networks()[5].spec;
  for (const std::string& backend : f32_backends) {
    for (const std::string kind : {"adam", "rmsprop", "centred rmsprop", "adam with soft target and clipping"}) {
      CAPTURE(backend, kind);
      TrainerOptions options{.batch = 24};
      options.epsilon = 1e-3;  // so that a tiny gradient's rounding is not blown up into a whole step
      if (kind.find("rmsprop") != std::string::npos) options.optimizer = "rmsprop";
      options.rms_centered = kind == "centred rmsprop";
      if (kind.find("soft") != std::string::npos) {
        options.target_tau = 0.05;
        options.max_grad_norm = 0.1;
      }
      const auto trainer = trainer_on(backend, spec, options);
      const auto oracle = make_backend("reference64")->trainer(spec, options);
      const auto start = random_parameters(spec, 1);
      const auto target = random_parameters(spec, 2);
      trainer->set_parameters(start, target);
      oracle->set_parameters(start, target);
      Rng rng(9);
      Updated seen, wanted;
      for (int i = 0; i < 10; ++i) {
        const RandomBatch batch(spec, options.batch, true, rng);
        const UpdateControls controls{.learning_rate = 1e-3 * (i + 1), .sync_target = i == 6};
        seen = update(*trainer, batch.view, controls);
        wanted = update(*oracle, batch.view, controls);
        // Ten steps' rounding adds up; still far below one step's effect, which is above 1e-3.
        CHECK(seen.result.loss == Approx(wanted.result.loss).epsilon(10 * f32_tolerance));
      }
      CHECK(relative_error(seen.parameters, wanted.parameters) < f32_tolerance);
      CHECK(relative_error(seen.target, wanted.target) < f32_tolerance);
      CHECK(relative_error(seen.parameters, start) > 1e-2);
      CHECK(relative_error(seen.target, target) > 1e-2);
    }
  }
}

// While one lives, kernels are chosen as on a processor whose best instruction set is `target`.
class Downgrade {
 public:
  explicit Downgrade(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(hwy::SupportedTargets() & ~(target - 1));  // better sets have lower bits
    hwy::GetChosenTarget().DeInit();
  }
  ~Downgrade() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }
  Downgrade(const Downgrade&) = delete;
  Downgrade& operator=(const Downgrade&) = delete;
};

TEST_CASE("update: the fast backend agrees with the oracle on every instruction set this machine has") {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    const Downgrade downgrade(target);
    for (const auto& [name, spec] : networks()) {
      for (const std::int64_t size : {7, 32, 45}) {
        CAPTURE(hwy::TargetName(target), name, size);
        require_equal_updates("cpu", spec, {.batch = size}, false, static_cast<std::uint64_t>(size));
      }
    }
  }
}

TEST_CASE("update: the same updates give the same bits") {
  const NetworkSpec spec = networks()[4].spec;
  std::vector<float> first;
  for (int run = 0; run < 2; ++run) {
    const auto trainer = make_backend("cpu")->trainer(spec, {.batch = 45});
    trainer->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
    Rng rng(4);
    for (int i = 0; i < 5; ++i) {
      const RandomBatch batch(spec, 45, false, rng);
      update(*trainer, batch.view, {.learning_rate = 1e-3});
    }
    if (run == 0) first = copy(trainer->parameters());
    CHECK(first == copy(trainer->parameters()));
  }
}

}  // namespace
}  // namespace qanat::nn::test
