// What an update promises beside its numbers: refusals, skipped updates, targets, saved optimisers.
#include <limits>

#include "core/error.h"
#include "tests/nn/support.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {
namespace {

const std::vector<std::string> all_backends = with_gpu({"cpu", "reference", "reference64"});
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

NetworkSpec small_network() {
  NetworkConfig config;
  config.hidden = {40, 9};
  return build_network(config, rows_of(DType::f32, {4}), 1, 1, 3);
}

TrainerOptions options_of(std::int64_t batch) {
  TrainerOptions options;
  options.batch = batch;
  return options;
}

UpdateResult update(QTrainer& trainer, const QBatch& batch, const UpdateControls& controls = {}) {
  std::vector<float> td_abs(static_cast<std::size_t>(batch.size));
  trainer.submit(batch, controls);
  return trainer.collect(td_abs);
}

TEST_CASE("update: a batch that is not finite changes nothing, and a sync asked for with it comes with the next") {
  const NetworkSpec spec = small_network();
  for (const std::string& backend : all_backends) {
    for (const std::string where : {"state", "return", "weight", "infinite return"}) {
      CAPTURE(backend, where);
      const auto trainer = trainer_on(backend, spec, options_of(20));
      trainer->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
      Rng rng(3);
      RandomBatch good(spec, 20, false, rng);
      RandomBatch bad(spec, 20, false, rng);
      REQUIRE(update(*trainer, good.view).finite);
      const auto online = copy(trainer->parameters());
      const auto target = copy(trainer->target_parameters());
      const auto optimizer = trainer->save_optimizer();
      if (where == "state") std::memcpy(&bad.rows[bad.state_index[7] * spec.input.bytes()], &nan, 4);
      if (where == "return") bad.returns[7] = nan;
      if (where == "weight") bad.weight[7] = nan;
      if (where == "infinite return") bad.returns[7] = std::numeric_limits<float>::infinity();
      CHECK_FALSE(update(*trainer, bad.view, {.learning_rate = 0.1, .sync_target = true}).finite);
      CHECK(copy(trainer->parameters()) == online);
      CHECK(copy(trainer->target_parameters()) == target);
      CHECK(trainer->save_optimizer() == optimizer);
      CHECK(update(*trainer, good.view).finite);
      CHECK(copy(trainer->parameters()) != online);
      CHECK(copy(trainer->target_parameters()) == copy(trainer->parameters()));
    }
  }
}

TEST_CASE("update: NaN in a next state that is not bootstrapped from never leaks") {
  const NetworkSpec spec = small_network();
  for (const std::string& backend : all_backends) {
    CAPTURE(backend);
    Rng rng(3);
    RandomBatch batch(spec, 6, false, rng);
    // Row 14 belongs to sample 2's next state only.
    for (auto* index : {&batch.state_index, &batch.next_index}) {
      for (auto& row : *index) row = row % 14;
    }
    batch.next_index[2] = 14;
    batch.bootstrap[2] = 0;
    std::vector<std::vector<float>> after;
    for (const float value : {0.5f, nan}) {
      std::memcpy(&batch.rows[14 * spec.input.bytes()], &value, 4);
      const auto trainer = trainer_on(backend, spec, options_of(6));
      trainer->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
      CHECK(update(*trainer, batch.view).finite);
      after.push_back(copy(trainer->parameters()));
    }
    CHECK(after[0] == after[1]);
  }
}

TEST_CASE("update: a hard sync copies after the step, without one the target stays, a soft target follows") {
  const NetworkSpec spec = small_network();
  for (const std::string& backend : all_backends) {
    CAPTURE(backend);
    const auto online = random_parameters(spec, 1);
    const auto target = random_parameters(spec, 2);
    Rng rng(3);
    const RandomBatch batch(spec, 8, false, rng);
    const auto hard = trainer_on(backend, spec, options_of(8));
    hard->set_parameters(online, target);
    update(*hard, batch.view);
    CHECK(copy(hard->target_parameters()) == target);
    update(*hard, batch.view, {.learning_rate = 1e-3, .sync_target = true});
    CHECK(copy(hard->target_parameters()) == copy(hard->parameters()));

    TrainerOptions options = options_of(8);
    options.target_tau = 0.25;
    const auto soft = trainer_on(backend, spec, options);
    soft->set_parameters(online, target);
    update(*soft, batch.view);
    const auto moved = copy(soft->parameters());
    const auto followed = copy(soft->target_parameters());
    for (std::size_t i = 0; i < moved.size(); ++i) {
      // Two f32 roundings of numbers below 1.
      CHECK(followed[i] == Approx(target[i] + 0.25 * (moved[i] - target[i])).margin(2e-7));
    }
  }
}

TEST_CASE("optimiser: the first Adam step moves every parameter with a gradient by the learning rate") {
  // m / (1 - beta1) = g and v / (1 - beta2) = g^2, so the step is rate * g / (|g| + epsilon).
  const NetworkSpec spec = small_network();
  for (const std::string& backend : all_backends) {
    const auto trainer = trainer_on(backend, spec, options_of(8));
    const auto before = random_parameters(spec, 1);
    trainer->set_parameters(before, before);
    Rng rng(3);
    const RandomBatch batch(spec, 8, false, rng);
    update(*trainer, batch.view, {.learning_rate = 0.125});
    const auto after = copy(trainer->parameters());
    const auto gradients = copy(trainer->gradients());
    for (std::size_t i = 0; i < after.size(); ++i) {
      const double g = gradients[i];
      if (g != 0 && std::abs(g) < 1e-12) continue;  // g^2 is at the edge of f32's range
      CHECK(after[i] - before[i] == Approx(-0.125 * g / (std::abs(g) + 1e-8)).margin(1e-6));
    }
  }
}

TEST_CASE("optimiser: clipping scales the step's gradient to the given norm") {
  // RMSprop without memory (decay 0): the step is rate * g / (|g| + epsilon), so with a huge epsilon rate / epsilon *
  // g.
  const NetworkSpec spec = small_network();
  for (const std::string& backend : all_backends) {
    TrainerOptions options = options_of(8);
    options.optimizer = "rmsprop";
    options.rms_decay = 0;
    options.epsilon = 1e6;
    options.max_grad_norm = 0.125;
    const auto trainer = trainer_on(backend, spec, options);
    const std::vector<float> zero(parameter_count(spec), 0.0f);
    const auto online = random_parameters(spec, 1);
    trainer->set_parameters(online, zero);
    Rng rng(3);
    const RandomBatch batch(spec, 8, false, rng);
    const UpdateResult result = update(*trainer, batch.view, {.learning_rate = 1e6});
    CHECK(result.grad_norm > 0.25);
    const auto after = copy(trainer->parameters());
    double norm = 0;
    for (std::size_t i = 0; i < after.size(); ++i) norm += std::pow(after[i] - online[i], 2);
    CHECK(std::sqrt(norm) == Approx(0.125).epsilon(1e-5));
  }
}

TEST_CASE("optimiser: saved state continues the exact sequence, on its own backend and moves to another") {
  const NetworkSpec spec = small_network();
  for (const std::string kind : {"adam", "rmsprop"}) {
    TrainerOptions options = options_of(8);
    options.optimizer = kind;
    options.rms_centered = true;
    Rng rng(3);
    const RandomBatch first(spec, 8, false, rng);
    const RandomBatch second(spec, 8, false, rng);
    for (const std::string& backend : with_gpu({"cpu", "reference"})) {
      const auto straight = trainer_on(backend, spec, options);
      straight->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
      update(*straight, first.view);
      const auto resumed = trainer_on(backend, spec, options);
      const auto moved = make_backend("reference64")->trainer(spec, options);
      for (QTrainer* trainer : {resumed.get(), moved.get()}) {
        trainer->set_parameters(copy(straight->parameters()), copy(straight->target_parameters()));
        trainer->load_optimizer(straight->save_optimizer());
        update(*trainer, second.view);
      }
      update(*straight, second.view);
      CHECK(copy(resumed->parameters()) == copy(straight->parameters()));
      CHECK(relative_error(moved->parameters(), copy(straight->parameters())) < 1e-5);
    }
  }
}

TEST_CASE("optimiser: foreign bytes are refused and change nothing") {
  const NetworkSpec spec = small_network();
  for (const std::string& backend : all_backends) {
    const auto trainer = trainer_on(backend, spec, options_of(8));
    TrainerOptions other = options_of(8);
    other.optimizer = "rmsprop";
    const auto before = trainer->save_optimizer();
    auto bytes = before;
    bytes[0] ^= std::byte{1};
    CHECK_THROWS_AS(trainer->load_optimizer(bytes), InputError);
    CHECK_THROWS_AS(trainer->load_optimizer(std::span(before).first(before.size() - 1)), InputError);
    CHECK_THROWS_AS(trainer->load_optimizer({}), InputError);
    CHECK_THROWS_AS(trainer->load_optimizer(trainer_on(backend, spec, other)->save_optimizer()), InputError);
    CHECK(trainer->save_optimizer() == before);
  }
}

TEST_CASE("update: what does not fit is refused before anything changes") {
  const NetworkSpec spec = small_network();
  for (const std::string& backend : all_backends) {
    const auto trainer = trainer_on(backend, spec, options_of(8));
    const auto before = random_parameters(spec, 1);
    trainer->set_parameters(before, before);
    Rng rng(3);
    RandomBatch batch(spec, 8, false, rng);
    QBatch wrong = batch.view;
    wrong.size = 7;
    CHECK_THROWS_AS(trainer->submit(wrong, {}), InputError);
    wrong = batch.view;
    wrong.action = nullptr;
    CHECK_THROWS_AS(trainer->submit(wrong, {}), InputError);
    wrong = batch.view;
    wrong.next_state.rows = 1;
    CHECK_THROWS_AS(trainer->submit(wrong, {}), InputError);
    batch.action[3] = 3;
    CHECK_THROWS_AS(trainer->submit(batch.view, {}), InputError);
    batch.action[3] = -1;
    CHECK_THROWS_AS(trainer->submit(batch.view, {}), InputError);
    CHECK_THROWS_AS(trainer->set_parameters(std::span(before).first(5), before), InputError);
    CHECK(copy(trainer->parameters()) == before);
  }
}

TEST_CASE("options: what is out of range is refused by name") {
  const NetworkSpec spec = small_network();
  const auto refuses = [&](auto change) {
    TrainerOptions options;
    change(options);
    CHECK_THROWS_AS(make_backend("cpu")->trainer(spec, options), ConfigError);
  };
  refuses([](TrainerOptions& o) { o.batch = 0; });
  refuses([](TrainerOptions& o) { o.beta1 = 1; });
  refuses([](TrainerOptions& o) { o.epsilon = 0; });
  refuses([](TrainerOptions& o) { o.target_tau = 0; });
  refuses([](TrainerOptions& o) { o.td.huber_delta = 0; });
  refuses([](TrainerOptions& o) { o.optimizer = "sgd"; });
  CHECK_THROWS_AS(make_backend("tpu"), ConfigError);
}

}  // namespace
}  // namespace qanat::nn::test
