// The GPU backend beyond what conformance.cpp asks of every backend: bf16 and tf32 within their rounding, graphs that
// replay what uncaptured launches compute, updates two deep, and planted errors that these checks catch.
//
// Where no GPU can be used each test says so and passes: the processor's tests have covered what is shared.
#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "nn/cuda/architectures.h"
#include "nn/optimizer.h"
#include "tests/nn/compare.h"
#include "tests/nn/decisive.h"

namespace qanat::nn::test {
namespace {

const std::pair<const char*, Bounds> precisions[] = {
    {"cuda:0 fp32", fp32}, {"cuda:0 tf32", tf32}, {"cuda:0 bf16 general", bf16}};

TEST_CASE(
    "cuda: Q-values, td errors and every gradient of the Nature network agree with the oracle in each precision") {
  NEEDS_GPU();
  const NetworkSpec spec = nature();
  TrainerOptions options{.batch = 32};
  Rng rng(11);
  RandomBatch batch(spec, options.batch, false, rng);
  const auto online = decisive_parameters(spec, 12);
  const auto target = decisive_parameters(spec, 13);
  settle_choices(spec, batch, online, 0.01);
  const Seen wanted = one_update("reference64", spec, options, batch.view, online, target);
  for (const auto& [backend, bounds] : precisions) {
    CAPTURE(backend);
    require_close(spec, one_update(backend, spec, options, batch.view, online, target), wanted, bounds);
  }
}

TEST_CASE("cuda: by itself a network with convolutions is computed in bf16, another in tf32") {
  NEEDS_GPU();
  const auto all = networks();
  for (const auto& [index, chosen, other] : {std::tuple{0, "tf32", "bf16"}, std::tuple{5, "bf16", "tf32"}}) {
    const auto& [name, spec] = all[static_cast<std::size_t>(index)];
    CAPTURE(name);
    Rng rng(15);
    RandomBatch batch(spec, 32, false, rng);
    const auto online = random_parameters(spec, 16);
    const auto update = [&](const std::string& precision) {
      return one_update("cuda:0 " + precision + " general", spec, {.batch = 32}, batch.view, online, online).gradients;
    };
    CHECK(update("auto") == update(chosen));
    CHECK(update("auto") != update(other));
  }
}

const std::pair<const char*, Bounds> rounded[] = {{"cuda:0 bf16 general", bf16}, {"cuda:0 tf32 general", tf32}};

// Calls check(spec, options, online, target): every network, in batches of 1, 8 and 40, with double Q and without.
template <class Parameters, class Check>
void for_every_network(const Parameters& parameters, const Check& check) {
  for (const auto& [name, spec] : networks()) {
    for (const std::int64_t size : {1, 8, 40}) {
      for (const bool double_q : {true, false}) {
        CAPTURE(name, size, double_q);
        TrainerOptions options{.batch = size};
        options.td.double_q = double_q;
        check(spec, options, parameters(spec, 26), parameters(spec, 27));
      }
    }
  }
}

// Rewards of 0 leave nothing but Q-values in an error, the target network's among them. Of one sample's error little
// may be left, so what rounding does is compared with the Q-values too.
TEST_CASE("cuda: every network's td errors are those of the oracle in bf16 and tf32, of whichever network they are") {
  NEEDS_GPU();
  for_every_network(random_parameters, [](const NetworkSpec& spec, const TrainerOptions& options, const auto& online,
                                          const auto& target) {
    const auto batch = settled_batch(spec, options.batch, options.td.double_q ? online : target, 0.02, 25);
    std::fill(batch->returns.begin(), batch->returns.end(), 0.0f);
    const auto seen = [&](const char* where) { return one_update(where, spec, options, batch->view, online, target); };
    const Seen wanted = seen("reference64");
    const double q_size = size_of(wanted.q) / std::sqrt(static_cast<double>(spec.actions));
    for (const auto& [backend, bounds] : rounded) {
      CAPTURE(backend);
      const auto errors = seen(backend).td_abs;
      CHECK(relative_error(errors, wanted.td_abs) * size_of(wanted.td_abs) <
            bounds.error * (size_of(wanted.td_abs) + q_size));
    }
  });
}

TEST_CASE("cuda: every network's outputs and gradients are those of the oracle in bf16 and tf32") {
  NEEDS_GPU();
  for_every_network(decisive_parameters, [](const NetworkSpec& spec, const TrainerOptions& options, const auto& online,
                                            const auto& target) {
    const auto batch = settled_batch(spec, options.batch, options.td.double_q ? online : target, 0.02, 25);
    one_sided(*batch);
    positive_rows(spec, *batch);
    const auto seen = [&](const char* where) { return one_update(where, spec, options, batch->view, online, target); };
    const Seen wanted = seen("reference64");
    for (const auto& [backend, bounds] : rounded) {
      CAPTURE(backend);
      require_close(spec, seen(backend), wanted, bounds);
    }
  });
}

TEST_CASE("cuda: large batches agree with the processor in fp32") {
  NEEDS_GPU();
  const NetworkSpec spec = nature();
  TrainerOptions options{.batch = 512};
  Rng rng(21);
  RandomBatch batch(spec, options.batch, true, rng);
  const auto online = decisive_parameters(spec, 22);
  const auto target = decisive_parameters(spec, 23);
  const Seen wanted = one_update("cpu", spec, options, batch.view, online, target);
  require_close(spec, one_update("cuda:0 fp32", spec, options, batch.view, online, target), wanted, fp32);
}

TEST_CASE("cuda: planted errors are far outside the bounds of bf16") {
  NEEDS_GPU();
  const NetworkSpec spec = nature();
  TrainerOptions options{.batch = 32};
  Rng rng(31);
  RandomBatch batch(spec, options.batch, false, rng);
  const auto online = decisive_parameters(spec, 32);
  const auto target = decisive_parameters(spec, 33);
  const Seen right = one_update("cuda:0 bf16 general", spec, options, batch.view, online, target);
  const auto layout = parameter_layout(spec);
  const auto find = [&](const std::string& name) {
    return *std::find_if(layout.begin(), layout.end(), [&](const auto& info) { return info.name == name; });
  };
  const auto wrong = [&](const NetworkSpec& network, const std::vector<float>& parameters) {
    const Seen seen = one_update("cuda:0 bf16 general", network, options, batch.view, parameters, target);
    double worst = relative_error(seen.q, right.q);
    for (const ParameterInfo& info : layout) {
      const auto cut = [&](const std::vector<float>& all) {
        return std::span(all).subspan(info.offset, info.elements());
      };
      worst = std::max(worst, relative_error(cut(seen.gradients), cut(right.gradients)));
    }
    return worst;
  };
  const double visible = 5 * bf16.error;
  {  // one tap of each of the second convolution's kernels is not read
    auto parameters = online;
    const auto conv = find("layers.2.weight");
    for (std::size_t i = 5; i < conv.elements(); i += 16) parameters[conv.offset + i] = 0;
    CHECK(wrong(spec, parameters) > visible);
  }
  {
    NetworkSpec unscaled = spec;
    unscaled.input_scale = 1;
    CHECK(wrong(unscaled, online) > visible);
  }
  {
    auto parameters = online;
    const auto value = find("value_hidden.weight"), advantage = find("advantage_hidden.weight");
    std::swap_ranges(parameters.begin() + static_cast<std::ptrdiff_t>(value.offset),
                     parameters.begin() + static_cast<std::ptrdiff_t>(value.offset + value.elements()),
                     parameters.begin() + static_cast<std::ptrdiff_t>(advantage.offset));
    CHECK(wrong(spec, parameters) > visible);
  }
}

TEST_CASE("cuda: ten steps of gradient descent end where the oracle's end, in each precision") {
  NEEDS_GPU();
  const NetworkSpec spec = network_named("two convolutions of a stack");
  const auto start = random_parameters(spec, 41);
  const auto target = random_parameters(spec, 42);
  const auto way = [&](const std::string& backend) { return ten_steps(backend, spec, 64, 1e-3, start, target); };
  const auto wanted = way("reference64");
  for (const auto& [backend, bounds] : precisions) {
    CAPTURE(backend);
    require_same_way(spec, start, way(backend), wanted, 2 * bounds.error);  // ten batches' choices of actions
  }
}

TEST_CASE("cuda: Adam's step is the rule, element by element, and one with a frozen count is not") {
  NEEDS_GPU();
  const NetworkSpec spec = networks()[5].spec;
  TrainerOptions options{.batch = 16, .max_grad_norm = 0.05};
  const auto trainer = trainer_on("cuda:0 bf16 general", spec, options);
  auto expected = random_parameters(spec, 51);
  trainer->set_parameters(expected, expected);
  std::vector<float> mean(expected.size()), square(expected.size()), frozen = expected;
  Rng rng(52);
  double off = 0, frozen_off = 0, step_size = 0;
  for (int t = 1; t <= 5; ++t) {
    const RandomBatch batch(spec, options.batch, false, rng);
    std::vector<float> td_abs(batch.action.size());
    trainer->submit(batch.view, {.learning_rate = 1e-3 * t});
    const UpdateResult result = trainer->collect(td_abs);
    const auto gradients = copy(trainer->gradients());
    const auto seen = copy(trainer->parameters());
    const auto rule = optimizer_rule(options);
    auto right = step_scalars<float>(rule, 1e-3 * t, t);
    auto stuck = step_scalars<float>(rule, 1e-3 * t, 1);  // the bias corrections of a step that was captured at t = 1
    complete_scalars(right, rule, false, result.grad_norm);
    complete_scalars(stuck, rule, false, result.grad_norm);
    for (std::size_t i = 0; i < seen.size(); ++i) {
      frozen[i] = expected[i];
      float frozen_mean = mean[i], frozen_square = square[i];
      adam_rule(frozen[i], gradients[i], frozen_mean, frozen_square, stuck);
      const float before = expected[i];
      adam_rule(expected[i], gradients[i], mean[i], square[i], right);
      step_size = std::max(step_size, std::abs(static_cast<double>(expected[i]) - before));
      off = std::max(off, std::abs(static_cast<double>(seen[i]) - expected[i]));
      frozen_off = std::max(frozen_off, std::abs(static_cast<double>(seen[i]) - frozen[i]));
      expected[i] = seen[i];  // rounding does not add up
    }
  }
  // The device fuses multiplications with additions: a few units in the last place of parameters below 1, and of the
  // moments.
  CHECK(off < 3e-7);
  CHECK(step_size > 1e-3);
  CHECK(frozen_off > 100 * off);
}

TEST_CASE("cuda: 1,000 replays equal 1,000 uncaptured updates bit for bit, through schedules and syncs") {
  NEEDS_GPU();
  const NetworkSpec spec = networks()[5].spec;
  for (const std::string precision : {"cuda:0 bf16 general", "cuda:0 fp32"}) {
    CAPTURE(precision);
    std::vector<std::vector<float>> ends;
    std::vector<double> losses[2];
    for (const bool capture : {true, false}) {
      TrainerOptions options{.batch = 32, .max_grad_norm = 1, .capture = capture};
      const auto trainer = trainer_on(precision, spec, options);
      trainer->set_parameters(random_parameters(spec, 61), random_parameters(spec, 62));
      Rng rng(63);
      std::vector<float> td_abs(32);
      for (int i = 0; i < 1000; ++i) {
        RandomBatch batch(spec, options.batch, i % 3 == 0, rng);
        const double beta = 0.4 + 0.6 * i / 1000;
        for (float& weight : batch.weight) weight = static_cast<float>(std::pow(weight, beta));
        trainer->submit(batch.view, {.learning_rate = 1e-3 * (1 - 0.9 * i / 1000), .sync_target = i % 100 == 50});
        losses[capture ? 0 : 1].push_back(trainer->collect(td_abs).loss);
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
}

TEST_CASE("cuda: two updates in flight give what one after the other gives, and borrow nothing") {
  NEEDS_GPU();
  const NetworkSpec spec = networks()[5].spec;
  TrainerOptions options{.batch = 32};
  const int updates = 20;
  const auto run = [&](bool deep) {
    const auto trainer = trainer_on("cuda:0 bf16 general", spec, options);
    REQUIRE(trainer->depth() == 2);
    trainer->set_parameters(random_parameters(spec, 71), random_parameters(spec, 72));
    Rng rng(73);
    std::vector<float> all, td_abs(32);
    int in_flight = 0;
    const auto take = [&] {
      trainer->collect(td_abs);
      all.insert(all.end(), td_abs.begin(), td_abs.end());
      --in_flight;
    };
    for (int i = 0; i < updates; ++i) {
      {
        RandomBatch batch(spec, options.batch, false, rng);
        trainer->submit(batch.view, {.learning_rate = 1e-3, .sync_target = i % 5 == 4});
        batch.rows.assign(batch.rows.size(), std::byte{255});
        batch.weight.assign(batch.weight.size(), 1e9f);
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

TEST_CASE("cuda: batches of any number of rows, shared or apart, with and without a mask") {
  NEEDS_GPU();
  const NetworkSpec spec = networks()[5].spec;
  TrainerOptions options{.batch = 16};
  const auto apart = trainer_on("cuda:0 fp32", spec, options);
  const auto oracle = make_backend("reference64")->trainer(spec, options);
  for (QTrainer* trainer : {apart.get(), oracle.get()}) {
    trainer->set_parameters(random_parameters(spec, 81), random_parameters(spec, 82));
  }
  Rng rng(83);
  std::vector<float> seen(16), wanted(16);
  for (const std::size_t more : {0, 500, 3, 2000, 1}) {  // rows that nobody names: the buffers grow, and stay larger
    RandomBatch batch(spec, options.batch, more % 2 == 1, rng);
    std::vector<std::byte> next_rows(batch.rows.size() + more * spec.input.bytes());
    std::copy(batch.rows.begin(), batch.rows.end(), next_rows.begin());
    QBatch view = batch.view;
    if (more != 3) {
      view.next_state.data = next_rows.data();
      view.next_state.rows += static_cast<std::int64_t>(more);
    }
    apart->submit(view, {.learning_rate = 1e-3});
    apart->collect(seen);
    oracle->submit(view, {.learning_rate = 1e-3});
    oracle->collect(wanted);
    CAPTURE(more);
    CHECK(relative_error(seen, wanted) < fp32.error);
  }
}

TEST_CASE("cuda: what cannot be had is refused by name") {
  const NetworkSpec spec = networks()[0].spec;
  CHECK_THROWS_AS(make_backend("cuda:x"), ConfigError);
  CHECK_THROWS_AS(make_backend("cuda:99"), ConfigError);
  CHECK_THROWS_AS(make_backend("cpu")->trainer(spec, {.precision = "bf16"}), ConfigError);
  CHECK_THROWS_AS(make_backend("cpu")->trainer(spec, {.kernels = "fused"}), ConfigError);
  CHECK_THROWS_AS(make_backend("cpu")->inference(spec, 1, "tf32"), ConfigError);
  CHECK(choose_device("auto").device == (gpu_usable() ? "cuda:0" : "cpu"));
  CHECK(choose_device("reference").device == "reference");
  const FoundCuda nothing = open_cuda({"/nowhere/libqanat_cuda.so", "/proc/self/exe"});
  CHECK_FALSE(nothing.usable());
  CHECK(nothing.obstacle().find("/nowhere/libqanat_cuda.so: no such file") != std::string::npos);
  CHECK(nothing.tried.size() == 2);
  CHECK(nothing.advice.find("LD_LIBRARY_PATH") != std::string::npos);
  CHECK(open_cuda({"/nowhere/libqanat_cuda.so"}).advice.find("QANAT_CUDA_LIBRARY names it elsewhere") !=
        std::string::npos);
}

TEST_CASE("cuda: of several GPUs the first one that can be used is taken, and the others are refused by name") {
  FoundCuda found;
  found.report.gpus = {{.name = "old", .capability = 75, .problem = "compute capability 7.5, wanted 8.0 or above"},
                       {.name = "new", .capability = 90},
                       {.name = "newer", .capability = 100}};
  CHECK(found.first_gpu() == 1);
  CHECK(found.obstacle_of(0) == "old: compute capability 7.5, wanted 8.0 or above");
  CHECK(found.obstacle_of(1).empty());
  CHECK(found.obstacle_of(3) == "this machine has 3 GPU(s), numbered from 0");
}

TEST_CASE("cuda: which GPUs a build is for follows from its architectures") {
  const auto serves = [](const char* architectures) {
    std::string out;
    for (const int capability : {80, 86, 89, 90, 100}) {
      if (cuda::built_for(architectures, capability)) out += text(out.empty() ? "" : " ", capability);
    }
    return out;
  };
  CHECK(serves("80-real 90") == "80 86 89 90 100");
  CHECK(serves("80-real") == "80 86 89");
  CHECK(serves("86-real") == "86 89");
  CHECK(serves("86-virtual") == "86 89 90 100");
  CHECK(serves("90") == "90 100");
  CHECK(serves("90a") == "90");
  CHECK(serves("native") == "80 86 89 90 100");
  CHECK(serves("") == "");
}

TEST_CASE("cuda: a library of another source tree is told apart before it is used") {
  const char* elsewhere = std::getenv("QANAT_FOREIGN_LIBRARY");  // where the build is not
  const FoundCuda found = open_cuda({elsewhere != nullptr ? elsewhere : QANAT_FOREIGN_LIBRARY});
  CHECK(found.library == nullptr);
  CHECK(found.obstacle().find("its interface is qanat 0.0.0 another tree, this program's is qanat") !=
        std::string::npos);
}

}  // namespace
}  // namespace qanat::nn::test
