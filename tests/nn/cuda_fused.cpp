// The fused kernels of the Nature network: held to the oracle and to the general path, replayed, skipped, saved and
// restored. They train only; inference is the general path's.
#include <algorithm>

#include "core/error.h"
#include "nn/optimizer.h"
#include "tests/nn/compare.h"
#include "tests/nn/decisive.h"

namespace qanat::nn::test {
namespace {

#define NEEDS_FUSED()                                          \
  NEEDS_GPU();                                                 \
  if (!fused_usable()) {                                       \
    WARN("skipped: the fused kernels are for capability 9.0"); \
    return;                                                    \
  }

const std::string fused = "cuda:0 bf16 fused";
const std::string general = "cuda:0 bf16 general";

NetworkSpec nature_with(bool dueling, std::int64_t actions) {
  NetworkConfig config;
  config.preset = "nature";
  config.dueling = dueling;
  config.dueling_hidden = dueling ? 512 : 0;
  return build_network(config, rows_of(DType::u8, {84, 84}), 4, 255, actions);
}

struct Case {
  std::int64_t batch;
  std::int64_t actions;
  bool dueling, masked, double_q, huber;
};

// Batches below, at and far above what one wave of blocks takes; few actions and the most; each switch both ways.
const Case cases[] = {{32, 18, true, true, true, false}, {1, 4, true, false, true, true},
                      {7, 6, false, false, true, true},  {160, 31, true, false, false, false},
                      {700, 18, true, true, true, true}, {133, 2, true, false, true, false},
                      {265, 9, false, true, false, true}};

TEST_CASE("fused: Q errors, td errors and every gradient agree with the oracle and with the general path") {
  NEEDS_FUSED();
  for (const Case& c : cases) {
    CAPTURE(c.batch, c.actions, c.dueling, c.masked);
    const NetworkSpec spec = nature_with(c.dueling, c.actions);
    TrainerOptions options{.batch = c.batch};
    options.td.double_q = c.double_q;
    options.td.huber = c.huber;
    Rng rng(static_cast<std::uint64_t>(c.batch));
    RandomBatch batch(spec, c.batch, c.masked, rng);
    one_sided(batch);
    const auto online = decisive_parameters(spec, 12);
    const auto target = decisive_parameters(spec, 13);
    settle_choices(spec, batch, c.double_q ? online : target, 0.01);
    const Seen seen = one_update(fused, spec, options, batch.view, online, target);
    require_close(spec, seen, one_update("cpu", spec, options, batch.view, online, target), bf16);
    // Both have roundings of their own.
    require_close(spec, seen, one_update(general, spec, options, batch.view, online, target),
                  {2 * bf16.error, bf16.cosine});
  }
}

TEST_CASE("fused: gradients keep their precision whatever the size of the errors") {
  NEEDS_FUSED();
  const NetworkSpec spec = nature_with(true, 6);
  TrainerOptions options{.batch = 32};
  options.td.huber = false;
  const auto online = decisive_parameters(spec, 12);
  // Beyond both ends of fp16, in which the first layer's gradient passes.
  for (const float weight : {1e-12f, 1.0f, 1e12f}) {
    CAPTURE(weight);
    Rng rng(5);
    RandomBatch batch(spec, options.batch, false, rng);
    std::fill(batch.weight.begin(), batch.weight.end(), weight);
    std::fill(batch.bootstrap.begin(), batch.bootstrap.end(), 0.0f);
    require_close(spec, one_update(fused, spec, options, batch.view, online, online),
                  one_update("cpu", spec, options, batch.view, online, online), bf16);
  }
}

TEST_CASE("fused: planted errors are far outside the bounds") {
  NEEDS_FUSED();
  const NetworkSpec spec = nature();
  TrainerOptions options{.batch = 32};
  Rng rng(31);
  RandomBatch batch(spec, options.batch, false, rng);
  const auto online = random_parameters(spec, 32);
  const auto target = random_parameters(spec, 33);
  const auto layout = parameter_layout(spec);
  const auto tensor = [&](const std::string& name) {
    return *std::find_if(layout.begin(), layout.end(), [&](const auto& info) { return info.name == name; });
  };
  const auto gradients = [&](const NetworkSpec& network, std::span<const float> parameters, const QBatch& view) {
    return one_update(fused, network, options, view, parameters, target).gradients;
  };
  const auto right = gradients(spec, online, batch.view);
  const auto worst = [&](const std::vector<float>& seen) {
    double error = 0;
    for (const ParameterInfo& info : layout) {
      const auto cut = [&](const std::vector<float>& all) {
        return std::span(all).subspan(info.offset, info.elements());
      };
      error = std::max(error, relative_error(cut(seen), cut(right)));
    }
    return error;
  };
  const double visible = 5 * bf16.error;
  NetworkSpec unscaled = spec;
  unscaled.input_scale = 1;
  CHECK(worst(gradients(unscaled, online, batch.view)) > visible);
  for (const auto& [name, kernel] :
       {std::pair{"layers.0.weight", 64}, {"layers.2.weight", 16}, {"layers.4.weight", 9}}) {
    CAPTURE(name);  // one tap of each of the layer's kernels is not read
    auto parameters = online;
    for (std::size_t i = 5; i < tensor(name).elements(); i += kernel) parameters[tensor(name).offset + i] = 0;
    CHECK(worst(gradients(spec, parameters, batch.view)) > visible);
  }
  auto swapped = online;
  const auto value = tensor("value_hidden.weight"), advantage = tensor("advantage_hidden.weight");
  std::swap_ranges(swapped.begin() + static_cast<std::ptrdiff_t>(value.offset),
                   swapped.begin() + static_cast<std::ptrdiff_t>(value.offset + value.elements()),
                   swapped.begin() + static_cast<std::ptrdiff_t>(advantage.offset));
  CHECK(worst(gradients(spec, swapped, batch.view)) > visible);
  QBatch newest_first = batch.view;
  std::vector<std::uint32_t> index = batch.state_index;
  for (auto first = index.begin(); first != index.end(); first += spec.stack) std::reverse(first, first + spec.stack);
  newest_first.state.index = index.data();
  CHECK(worst(gradients(spec, online, newest_first)) > visible);
}

TEST_CASE("fused: ten steps of gradient descent end where the processor's end") {
  NEEDS_FUSED();
  const NetworkSpec spec = nature_with(true, 6);
  const auto start = decisive_parameters(spec, 41);
  const auto target = decisive_parameters(spec, 42);
  const auto way = [&](const std::string& backend) { return ten_steps(backend, spec, 32, 3e-5, start, target); };
  require_same_way(spec, start, way(fused), way("cpu"), 2 * bf16.error);  // ten batches' choices of actions
}

TEST_CASE("fused: Adam's step is the rule, element by element, and one with a frozen count is not") {
  NEEDS_FUSED();
  const bool dueling = GENERATE(true, false);
  CAPTURE(dueling);
  const NetworkSpec spec = nature_with(dueling, 6);
  TrainerOptions options{.batch = 16, .max_grad_norm = 0.05};
  const auto trainer = trainer_on(fused, spec, options);
  auto expected = random_parameters(spec, 51);
  trainer->set_parameters(expected, expected);
  std::vector<float> mean(expected.size()), square(expected.size());
  Rng rng(52);
  double off = 0, frozen_off = 0;
  for (int t = 1; t <= 3; ++t) {
    const RandomBatch batch(spec, options.batch, false, rng);
    std::vector<float> td_abs(batch.action.size());
    trainer->submit(batch.view, {.learning_rate = 1e-3 * t});
    const UpdateResult result = trainer->collect(td_abs);
    const auto gradients = copy(trainer->gradients());
    const auto seen = copy(trainer->parameters());
    const auto rule = optimizer_rule(options);
    auto right = step_scalars<float>(rule, 1e-3 * t, t);
    auto stuck = step_scalars<float>(rule, 1e-3 * t, 1);
    complete_scalars(right, rule, false, result.grad_norm);
    complete_scalars(stuck, rule, false, result.grad_norm);
    for (std::size_t i = 0; i < seen.size(); ++i) {
      float frozen = expected[i], frozen_mean = mean[i], frozen_square = square[i];
      adam_rule(frozen, gradients[i], frozen_mean, frozen_square, stuck);
      adam_rule(expected[i], gradients[i], mean[i], square[i], right);
      off = std::max(off, std::abs(static_cast<double>(seen[i]) - expected[i]));
      frozen_off = std::max(frozen_off, std::abs(static_cast<double>(seen[i]) - frozen));
      expected[i] = seen[i];
    }
  }
  CHECK(off < 3e-7);  // as for the general path: the device fuses multiplications with additions
  CHECK(frozen_off > 100 * off);
}

TEST_CASE("fused: 1,000 replays equal 1,000 uncaptured updates bit for bit, through schedules and syncs") {
  NEEDS_FUSED();
  const NetworkSpec spec = nature_with(true, 4);
  std::vector<std::vector<float>> ends;
  std::vector<double> losses[2];
  for (const bool capture : {true, false}) {
    TrainerOptions options{.batch = 16, .max_grad_norm = 1, .capture = capture};
    const auto trainer = trainer_on(fused, spec, options);
    trainer->set_parameters(random_parameters(spec, 61), random_parameters(spec, 62));
    Rng rng(63);
    std::vector<float> td_abs(16);
    RandomBatch batch(spec, options.batch, true, rng);
    for (int i = 0; i < 1000; ++i) {
      for (auto* index : {&batch.state_index, &batch.next_index}) {
        for (auto& row : *index) row = static_cast<std::uint32_t>(rng.below(35));
      }
      const double beta = 0.4 + 0.6 * i / 1000;
      for (float& weight : batch.weight) weight = static_cast<float>(std::pow(rng.uniform(0.1, 1), beta));
      batch.view.next_mask = i % 3 == 0 ? batch.mask.data() : nullptr;
      trainer->submit(batch.view, {.learning_rate = 1e-4 * (1 - 0.9 * i / 1000), .sync_target = i % 100 == 50});
      const UpdateResult result = trainer->collect(td_abs);
      REQUIRE(result.finite);
      losses[capture ? 0 : 1].push_back(result.loss);
    }
    ends.push_back(copy(trainer->parameters()));
    ends.push_back(copy(trainer->target_parameters()));
  }
  CHECK(losses[0] == losses[1]);
  CHECK(ends[0] == ends[2]);
  CHECK(ends[1] == ends[3]);
  CHECK(relative_error(ends[0], random_parameters(spec, 61)) > 0.05);
  CHECK(ends[0] != ends[1]);
}

TEST_CASE("fused: a batch that is not finite changes nothing, and a sync asked for with it comes with the next") {
  NEEDS_FUSED();
  const NetworkSpec spec = nature_with(true, 4);
  TrainerOptions options{.batch = 16};
  const auto trainer = trainer_on(fused, spec, options);
  trainer->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
  Rng rng(3);
  RandomBatch batch(spec, options.batch, false, rng);
  std::vector<float> td_abs(16);
  const auto update = [&](const UpdateControls& controls) {
    trainer->submit(batch.view, controls);
    return trainer->collect(td_abs).finite;
  };
  REQUIRE(update({.learning_rate = 1e-3}));
  // The last leaves the loss finite: the squares of the gradients overflow.
  for (auto& [place, value] :
       {std::pair(&batch.returns[7], std::nanf("")), {&batch.returns[7], INFINITY}, {&batch.weight[7], 1e25f}}) {
    CAPTURE(value);
    const auto online = copy(trainer->parameters());
    const auto target = copy(trainer->target_parameters());
    const auto optimizer = trainer->save_optimizer();
    const float kept = std::exchange(*place, value);
    CHECK_FALSE(update({.learning_rate = 0.1, .sync_target = true}));
    CHECK(copy(trainer->parameters()) == online);
    CHECK(copy(trainer->target_parameters()) == target);
    CHECK(trainer->save_optimizer() == optimizer);
    *place = kept;
    CHECK(update({.learning_rate = 1e-3}));
    CHECK(copy(trainer->parameters()) != online);
    CHECK(copy(trainer->target_parameters()) == copy(trainer->parameters()));
  }
}

TEST_CASE("fused: saved state continues the exact sequence, and moves to the general path and to the processor") {
  NEEDS_FUSED();
  const NetworkSpec spec = nature_with(true, 4);
  for (const std::string kind : {"adam", "rmsprop"}) {
    CAPTURE(kind);
    TrainerOptions options{.batch = 16, .optimizer = kind, .epsilon = 1e-3, .rms_centered = true, .target_tau = 0.25};
    Rng rng(3);
    const RandomBatch first(spec, options.batch, false, rng);
    const RandomBatch second(spec, options.batch, false, rng);
    std::vector<float> td_abs(16);
    const auto update = [&](QTrainer& trainer, const RandomBatch& batch) {
      trainer.submit(batch.view, {.learning_rate = 1e-2});
      trainer.collect(td_abs);
    };
    const auto straight = trainer_on(fused, spec, options);
    straight->set_parameters(decisive_parameters(spec, 1), decisive_parameters(spec, 2));
    update(*straight, first);
    const auto before = copy(straight->parameters());
    const auto target = copy(straight->target_parameters());
    const auto state = straight->save_optimizer();
    update(*straight, second);
    const auto after = copy(straight->parameters());
    for (const std::string& backend : {fused, general, std::string("cpu")}) {
      CAPTURE(backend);
      const auto moved = trainer_on(backend, spec, options);
      moved->set_parameters(before, target);
      moved->load_optimizer(state);
      CHECK(copy(moved->parameters()) == before);
      CHECK(copy(moved->target_parameters()) == target);
      CHECK(moved->save_optimizer() == state);
      update(*moved, second);
      if (backend == fused) {
        CHECK(copy(moved->parameters()) == after);
        CHECK(copy(moved->target_parameters()) == copy(straight->target_parameters()));
      } else {
        // The step is what moved: two backends' steps differ as their gradients do.
        std::vector<float> step(after), other = copy(moved->parameters());
        for (std::size_t i = 0; i < step.size(); ++i) {
          step[i] -= before[i];
          other[i] -= before[i];
        }
        CHECK(relative_error(other, step) < 2 * bf16.error);
      }
    }
  }
}

TEST_CASE("fused: two updates in flight give what one after the other gives, and borrow nothing") {
  NEEDS_FUSED();
  const NetworkSpec spec = nature_with(true, 4);
  TrainerOptions options{.batch = 16};
  const auto run = [&](bool deep) {
    const auto trainer = trainer_on(fused, spec, options);
    REQUIRE(trainer->depth() == 2);
    trainer->set_parameters(random_parameters(spec, 71), random_parameters(spec, 72));
    Rng rng(73);
    std::vector<float> all, td_abs(16);
    int in_flight = 0;
    const auto take = [&] {
      trainer->collect(td_abs);
      all.insert(all.end(), td_abs.begin(), td_abs.end());
      --in_flight;
    };
    for (int i = 0; i < 12; ++i) {
      {
        RandomBatch batch(spec, options.batch, false, rng);
        trainer->submit(batch.view, {.learning_rate = 1e-4, .sync_target = i % 5 == 4});
        batch.rows.assign(batch.rows.size(), std::byte{255});
      }
      ++in_flight;
      if (!deep || in_flight == 2) take();
    }
    while (in_flight > 0) take();
    all.insert(all.end(), trainer->parameters().begin(), trainer->parameters().end());
    return all;
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("fused: what the kernels do not know is refused by name, or taken by the general path") {
  NEEDS_FUSED();
  const auto refused = [](const NetworkSpec& spec, const std::string& backend, const std::string& why) {
    CAPTURE(why);
    try {
      trainer_on(backend, spec, {.batch = 4});
      FAIL("not refused");
    } catch (const ConfigError& error) {
      CHECK(std::string(error.what()).find(why) != std::string::npos);
    }
  };
  refused(networks()[5].spec, fused, "wanted u8 [84, 84] in stacks of 4");
  refused(nature(256), fused, "dueling_hidden 256, wanted 512");
  refused(nature_with(true, 32), fused, "32 actions, wanted at most 31");
  refused(nature_with(true, 4), "cuda:0 fp32 fused", "compute in bf16, not fp32");
  CHECK(trainer_on("cuda:0 bf16 auto", nature(256), {.batch = 4}) != nullptr);
}

}  // namespace
}  // namespace qanat::nn::test
