// The recurrent update on a GPU against the oracle in double precision. Runs where a GPU can be used; says so
// elsewhere.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "tests/nn/compare.h"
#include "tests/nn/decisive.h"
#include "tests/nn/sequence_support.h"

namespace qanat::nn::test {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

void require_equal(const NetworkSpec& spec, const SequenceUpdated& seen, const SequenceUpdated& wanted,
                   const Bounds& allowed) {
  CHECK(seen.result.finite);
  CHECK(relative_error(seen.priorities, wanted.priorities) < allowed.error);
  CHECK(seen.result.loss == Approx(wanted.result.loss).epsilon(allowed.error));
  CHECK(seen.result.grad_norm == Approx(wanted.result.grad_norm).epsilon(allowed.error));
  require_close_gradients(spec, seen.gradients, wanted.gradients, allowed);
}

SequenceUpdated updated(const std::string& device, const NetworkSpec& spec, const SequenceOptions& options,
                        const SequenceBatch& batch, const UpdateControls& controls = {}) {
  const auto trainer = make_backend(device)->sequence_trainer(spec, options);
  trainer->set_parameters(decisive_parameters(spec, 1), decisive_parameters(spec, 2));
  return update(*trainer, batch, controls);
}

TEST_CASE("cuda sequence: fp32 agrees with the oracle for every network, batch size and switch") {
  NEEDS_GPU();
  int bits = 0;
  for (const auto& [name, spec] : recurrent_networks()) {
    for (const std::int64_t size : {1, 2, 8, 11}) {
      SequenceOptions options = sequence_options(size);
      options.burn_in = bits % 3 == 0 ? 0 : 3;
      options.update.td.double_q = (bits & 1) != 0;
      options.update.td.huber = (bits & 2) != 0;
      options.update.td.huber_delta = 0.7f;
      options.update.td.rescale = (bits & 4) == 0;
      CAPTURE(name, size, bits);
      Rng rng(static_cast<std::uint64_t>(size));
      const RandomSequences batch(spec, options, rng, size % 2 == 0);
      require_equal(spec, updated("cuda", spec, with(options, "fp32"), batch.view),
                    updated("reference64", spec, options, batch.view), fp32);
      ++bits;
    }
  }
}

TEST_CASE("cuda sequence: bf16 agrees with the oracle for every network and batch size") {
  NEEDS_GPU();
  for (const auto& [name, spec] : recurrent_networks()) {
    for (const std::int64_t size : {1, 8, 11}) {
      const SequenceOptions options = sequence_options(size);
      CAPTURE(name, size);
      Rng rng(static_cast<std::uint64_t>(size));
      RandomSequences batch(spec, options, rng);
      allow_one(batch, spec, rng);
      // Large against the values, so that no td error is a small difference of large numbers.
      for (float& reward : batch.reward) reward *= 20;
      require_equal(spec, updated("cuda", spec, with(options, "bf16"), batch.view),
                    updated("reference64", spec, options, batch.view), bf16);
    }
  }
}

TEST_CASE("cuda sequence: R2D2's network agrees with the oracle, in fp32 and in bf16 with either kind of kernels") {
  NEEDS_GPU();
  const NetworkSpec spec = r2d2_network();
  for (const std::int64_t size : {3, 8}) {  // 3: no multiple of 8, so no clusters
    SequenceOptions options = sequence_options(size);
    options.burn_in = 2;
    options.unroll = size == 3 ? 3 : 4;
    options.update.td.rescale = true;
    Rng rng(static_cast<std::uint64_t>(size));
    RandomSequences batch(spec, options, rng);
    allow_one(batch, spec, rng);
    const SequenceUpdated wanted = updated("reference64", spec, options, batch.view);
    CAPTURE(size);
    require_equal(spec, updated("cuda", spec, with(options, "fp32"), batch.view), wanted, fp32);
    for (const std::string kernels : {"general", "auto"}) {
      CAPTURE(kernels);
      require_equal(spec, updated("cuda", spec, with(options, "bf16", kernels), batch.view), wanted, bf16);
    }
  }
}

TEST_CASE("cuda sequence: forty steps and several clusters agree with fp32") {
  NEEDS_GPU();
  NetworkConfig config;
  config.preset = "custom";
  config.layers = {linear(64), relu(), lstm(512)};
  config.dueling = true;
  config.dueling_hidden = 32;
  const NetworkSpec spec = build_network(config, rows_of(DType::f32, {6}), 1, 1, 5);
  for (const std::int64_t size : {16, 72}) {
    CAPTURE(size);
    SequenceOptions options = sequence_options(size);
    options.burn_in = 11;
    options.unroll = 29;
    options.n_step = 5;
    Rng rng(static_cast<std::uint64_t>(size));
    RandomSequences batch(spec, options, rng);
    allow_one(batch, spec, rng);
    require_equal(spec, updated("cuda", spec, with(options, "bf16"), batch.view),
                  updated("cuda", spec, with(options, "fp32"), batch.view), bf16);
  }
}

TEST_CASE("cuda sequence: one stream of an odd number of steps agrees with fp32") {
  NEEDS_GPU();
  NetworkConfig config;
  config.preset = "custom";
  config.layers = {lstm(512)};
  const NetworkSpec spec = build_network(config, rows_of(DType::f32, {6}), 1, 1, 5);
  SequenceOptions options = sequence_options(8);
  options.burn_in = 0;
  options.unroll = 3;
  options.n_step = 1;
  Rng rng(1);
  RandomSequences batch(spec, options, rng);
  allow_one(batch, spec, rng);
  require_equal(spec, updated("cuda", spec, with(options, "bf16"), batch.view),
                updated("cuda", spec, with(options, "fp32"), batch.view), bf16);
}

TEST_CASE("cuda sequence: planted errors show in bf16 too") {
  NEEDS_GPU();
  const NetworkSpec spec = recurrent_networks()[2].spec;
  const SequenceOptions options = with(sequence_options(8), "bf16");
  const auto gradients = [&](auto change, const NetworkSpec& network) {
    Rng rng(9);
    RandomSequences batch(spec, options, rng);
    allow_one(batch, spec, rng);
    auto online = decisive_parameters(spec, 1);
    change(batch, online);
    const auto trainer = make_backend("cuda")->sequence_trainer(network, options);
    trainer->set_parameters(online, decisive_parameters(spec, 2));
    return update(*trainer, batch.view, {}).gradients;
  };
  const auto right = gradients([](auto&, auto&) {}, spec);
  // What is planted differs from what is right, in the tensor where it shows most, by far more than what bf16 may.
  const auto shows = [&](const std::string& planted, auto change, const NetworkSpec& network) {
    CAPTURE(planted);
    const auto seen = gradients(change, network);
    double most = 0;
    for (const ParameterInfo& info : parameter_layout(spec)) {
      most = std::max(most, relative_error(std::span(seen).subspan(info.offset, info.elements()),
                                           std::span(right).subspan(info.offset, info.elements())));
    }
    CHECK(most > 4 * bf16.error);
  };
  shows(
      "no stored cell", [](RandomSequences& b, auto&) { std::fill(b.cell.begin(), b.cell.end(), 0.0f); }, spec);
  shows(
      "no last reward",
      [](RandomSequences& b, auto&) { std::fill(b.previous_reward.begin(), b.previous_reward.end(), 0.0f); }, spec);
  shows(
      "no importance weights", [](RandomSequences& b, auto&) { std::fill(b.weight.begin(), b.weight.end(), 1.0f); },
      spec);
  shows(
      "terminal states bootstrapped from",
      [](RandomSequences& b, auto&) { std::fill(b.end.begin(), b.end.end(), SequenceEnd::truncated); }, spec);
  shows(
      "forget and input gates swapped",
      [&](auto&, std::vector<float>& online) {
        for (const ParameterInfo& info : parameter_layout(spec)) {
          if (info.name.find("put.weight") == std::string::npos) continue;
          const auto first = online.begin() + static_cast<std::ptrdiff_t>(info.offset);
          for (std::int64_t k = 0; k < info.shape[0]; ++k) {
            std::swap_ranges(first + k * 36, first + k * 36 + 9, first + k * 36 + 9);
          }
        }
      },
      spec);
  NetworkSpec unscaled = spec;
  unscaled.input_scale = 1;
  shows(
      "a missing 1/255", [](auto&, auto&) {}, unscaled);
  shows(
      "swapped dueling streams",
      [&](auto&, std::vector<float>& online) {
        const auto layout = parameter_layout(spec);
        const auto first_of = [&](const char* name) {
          const auto found =
              std::find_if(layout.begin(), layout.end(), [&](const auto& info) { return info.name == name; });
          return std::pair(online.begin() + static_cast<std::ptrdiff_t>(found->offset), found->elements());
        };
        const auto [value, size] = first_of("value_hidden.weight");
        std::swap_ranges(value, value + static_cast<std::ptrdiff_t>(size), first_of("advantage_hidden.weight").first);
      },
      spec);
}

// Updates with fresh batches, schedules of learning rates and of the importance weights' beta, and ten target syncs;
// the answer is all that they leave behind.
std::vector<float> many_updates(const NetworkSpec& spec, const SequenceOptions& options, int updates,
                                std::size_t depth) {
  const auto trainer = make_backend("cuda")->sequence_trainer(spec, options);
  trainer->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
  Rng rng(17);
  std::vector<float> all;
  std::vector<float> priorities(static_cast<std::size_t>(options.update.batch));
  std::size_t in_flight = 0;
  const auto collect = [&] {
    const UpdateResult result = trainer->collect(priorities);
    CHECK(result.finite);
    all.insert(all.end(), priorities.begin(), priorities.end());
    all.push_back(static_cast<float>(result.loss));
    --in_flight;
  };
  for (int i = 0; i < updates; ++i) {
    RandomSequences batch(spec, options, rng);
    const double beta = 0.4 + 0.6 * i / updates;
    for (float& weight : batch.weight) weight = static_cast<float>(std::pow(weight, beta));
    if (in_flight == depth) collect();
    const bool sync = i % (updates / 10) == updates / 20;
    trainer->submit(batch.view, {.learning_rate = 1e-3 / (1 + i % 7), .sync_target = sync});
    ++in_flight;
  }
  while (in_flight > 0) collect();
  for (const auto& part : {trainer->parameters(), trainer->target_parameters()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

TEST_CASE("cuda sequence: a thousand replays of the graph equal a thousand uncaptured updates, bit for bit") {
  NEEDS_GPU();
  const NetworkSpec spec = recurrent_networks()[1].spec;
  for (const std::string precision : {"fp32", "bf16"}) {
    CAPTURE(precision);
    SequenceOptions options = with(sequence_options(8), precision);
    options.update.max_grad_norm = 1;
    const auto captured = many_updates(spec, options, 1000, 1);
    CHECK((many_updates(spec, options, 1000, 2) == captured));
    options.update.capture = false;
    CHECK((many_updates(spec, options, 1000, 1) == captured));
  }
}

TEST_CASE("cuda sequence: replays of an lstm in clusters equal uncaptured updates, bit for bit") {
  NEEDS_GPU();
  NetworkConfig config;
  config.preset = "custom";
  config.layers = {linear(16), relu(), lstm(512)};
  const NetworkSpec spec = build_network(config, rows_of(DType::f32, {6}), 1, 1, 5);
  SequenceOptions options = with(sequence_options(16), "bf16");
  const auto captured = many_updates(spec, options, 40, 2);
  options.update.capture = false;
  CHECK((many_updates(spec, options, 40, 1) == captured));
}

TEST_CASE("cuda sequence: a thousand replays of R2D2's network equal a thousand uncaptured updates, bit for bit") {
  NEEDS_GPU();
  SequenceOptions options = with(sequence_options(8), "bf16");
  const auto captured = many_updates(r2d2_network(), options, 1000, 2);
  options.update.capture = false;
  CHECK((many_updates(r2d2_network(), options, 1000, 1) == captured));
}

TEST_CASE("cuda sequence: ten updates follow the oracle") {
  NEEDS_GPU();
  const NetworkSpec spec = recurrent_networks()[2].spec;
  for (const std::string kind : {"adam", "rmsprop"}) {
    CAPTURE(kind);
    SequenceOptions options = with(sequence_options(6), "fp32");
    options.update.optimizer = kind;
    options.update.epsilon = 1e-3;  // so that a tiny gradient's rounding is not blown up into a whole step
    options.update.max_grad_norm = 0.5;
    const auto trainer = make_backend("cuda")->sequence_trainer(spec, options);
    const auto oracle = make_backend("reference64")->sequence_trainer(spec, options);
    for (SequenceTrainer* one : {trainer.get(), oracle.get()}) {
      one->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
    }
    Rng rng(3);
    SequenceUpdated seen, wanted;
    for (int i = 0; i < 10; ++i) {
      const RandomSequences batch(spec, options, rng);
      const UpdateControls controls{.learning_rate = 1e-3 * (i + 1), .sync_target = i == 6};
      seen = update(*trainer, batch.view, controls);
      wanted = update(*oracle, batch.view, controls);
      CHECK(seen.result.loss == Approx(wanted.result.loss).epsilon(10 * fp32.error));
    }
    CHECK(relative_error(seen.parameters, wanted.parameters) < fp32.error);
    CHECK(relative_error(seen.target, wanted.target) < fp32.error);
    const auto resumed = make_backend("reference64")->sequence_trainer(spec, options);
    resumed->set_parameters(seen.parameters, seen.target);
    resumed->load_optimizer(trainer->save_optimizer());
    const RandomSequences batch(spec, options, rng);
    CHECK(relative_error(update(*resumed, batch.view, {}).parameters, update(*trainer, batch.view, {}).parameters) <
          fp32.error);
  }
}

TEST_CASE("cuda sequence: an update that is not finite changes nothing") {
  NEEDS_GPU();
  const NetworkSpec spec = recurrent_networks()[1].spec;
  for (const std::string precision : {"fp32", "bf16"}) {
    const SequenceOptions options = with(sequence_options(4), precision);
    for (const std::string where : {"reward", "state", "weight", "observation", "previous reward"}) {
      CAPTURE(precision, where);
      Rng rng(9);
      RandomSequences batch(spec, options, rng);
      const auto trainer = make_backend("cuda")->sequence_trainer(spec, options);
      trainer->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
      REQUIRE(update(*trainer, batch.view, {}).result.finite);
      const auto online = copy(trainer->parameters());
      const auto target = copy(trainer->target_parameters());
      const auto optimizer = trainer->save_optimizer();
      float* const places[] = {&batch.reward[static_cast<std::size_t>(options.burn_in * 4 + 1)], &batch.hidden[5],
                               &batch.weight[2], &batch.previous_reward[6]};
      float* place = places[where == "reward" ? 0 : where == "state" ? 1 : where == "weight" ? 2 : 3];
      const float kept = *place;
      std::byte* row = &batch.rows[batch.index[8] * spec.input.bytes()];
      float pixel = 0;
      std::memcpy(&pixel, row, 4);
      if (where == "observation") {
        std::memcpy(row, &nan, 4);
      } else {
        *place = nan;
      }
      CHECK_FALSE(update(*trainer, batch.view, {.sync_target = true}).result.finite);
      CHECK(copy(trainer->parameters()) == online);
      CHECK(copy(trainer->target_parameters()) == target);
      CHECK(trainer->save_optimizer() == optimizer);
      *place = kept;
      std::memcpy(row, &pixel, 4);
      CHECK(update(*trainer, batch.view, {}).result.finite);
      CHECK(copy(trainer->target_parameters()) == copy(trainer->parameters()));  // the sync that was asked for
    }
  }
}

TEST_CASE("cuda sequence: what stands beyond a sequence's length changes nothing") {
  NEEDS_GPU();
  const NetworkSpec spec = recurrent_networks()[2].spec;
  const SequenceOptions options = with(sequence_options(5), "fp32");
  Rng rng(8);
  RandomSequences batch(spec, options, rng);
  batch.length = {7, 10, 8, 6, 9};
  batch.end = {SequenceEnd::terminated, SequenceEnd::open, SequenceEnd::truncated, SequenceEnd::open,
               SequenceEnd::truncated};
  std::vector<SequenceUpdated> seen;
  for (int run = 0; run < 2; ++run) {
    seen.push_back(updated("cuda", spec, options, batch.view));
    for (std::int64_t at = 0; at < options.steps() * 5; ++at) {
      if (at / 5 >= batch.length[at % 5] - 1) batch.reward[at] = nan;
      if (at / 5 < batch.length[at % 5]) continue;
      batch.previous_action[at] = -1;
      batch.previous_reward[at] = 100;
      for (std::int64_t k = 0; k < spec.stack; ++k) batch.index[at * spec.stack + k] = 0;
    }
  }
  CHECK((seen[0].priorities == seen[1].priorities));
  CHECK((seen[0].gradients == seen[1].gradients));
}

TEST_CASE("cuda sequence: rows in the trainer's own memory give the same bits") {
  NEEDS_GPU();
  const NetworkSpec spec = recurrent_networks()[2].spec;
  const SequenceOptions options = sequence_options(4);
  Rng rng(8);
  const RandomSequences batch(spec, options, rng);
  const auto trainer = make_backend("cuda")->sequence_trainer(spec, options);
  trainer->set_parameters(decisive_parameters(spec, 1), decisive_parameters(spec, 2));
  const auto rows = trainer->row_memory(batch.rows.size());
  std::copy(batch.rows.begin(), batch.rows.end(), rows.begin());
  SequenceBatch view = batch.view;
  view.observations.data = rows.data();
  const SequenceUpdated seen = update(*trainer, view, {});
  CHECK((seen.gradients == updated("cuda", spec, options, batch.view).gradients));
}

}  // namespace
}  // namespace qanat::nn::test
