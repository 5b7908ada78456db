// The recurrent update: its maths by hand, the oracle's gradients against finite differences, what a sequence's end
// means, and what is refused.
#include "nn/sequence.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "tests/nn/differences.h"
#include "tests/nn/sequence_support.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {
namespace {

const std::vector<std::string> references = {"reference", "reference64"};
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

TEST_CASE("sequence: an open end trains only whole windows, an episode's end shortens them") {
  const auto window = [](std::int64_t t, SequenceEnd end) { return sequence_window(t, 6, end, 3); };
  for (const SequenceEnd end : {SequenceEnd::open, SequenceEnd::terminated, SequenceEnd::truncated}) {
    CAPTURE(static_cast<int>(end));
    CHECK(window(1, end).steps == 3);
    CHECK(window(1, end).bootstrap);
    CHECK(window(2, end).steps == 3);
    CHECK(window(2, end).bootstrap == (end != SequenceEnd::terminated));  // from the last observation
    CHECK(window(3, end).steps == (end == SequenceEnd::open ? 0 : 2));
    CHECK(window(4, end).steps == (end == SequenceEnd::open ? 0 : 1));
    CHECK(window(3, end).bootstrap == (end == SequenceEnd::truncated));
    CHECK(window(5, end).steps == 0);  // the last observation has no action
    CHECK(window(6, end).steps == 0);
  }
}

TEST_CASE("sequence: the return is discounted within the window and its bootstrap by the window's length") {
  const float reward[] = {1, 9, 2, 9, 4, 9};
  const auto whole = sequence_return<double>(reward, 2, {3, true}, 0.5);
  CHECK(whole.returns == 1 + 0.5 * 2 + 0.25 * 4);
  CHECK(whole.bootstrap == 0.125);
  CHECK(sequence_return<double>(reward, 2, {2, true}, 0.5).bootstrap == 0.25);
  CHECK(sequence_return<double>(reward, 2, {2, false}, 0.5).bootstrap == 0);
  CHECK(sequence_priority(4.0, 6.0, 3, 0.75) == 3.5);
}

TEST_CASE("sequence: an lstm's layout, names and initial values are PyTorch's, and its hash its own") {
  const NetworkSpec spec = recurrent_networks()[1].spec;
  const auto layout = parameter_layout(spec);
  REQUIRE(layout[2].name == "layers.2.input.weight");
  CHECK(layout[2].shape == std::vector<std::int64_t>{12 + 4 + 1, 32});
  CHECK(layout[3].name == "layers.2.input.bias");
  CHECK(layout[4].name == "layers.2.recurrent.weight");
  CHECK(layout[4].shape == std::vector<std::int64_t>{8, 32});
  CHECK(layout[5].name == "layers.2.recurrent.bias");
  CHECK(layout[5].shape == std::vector<std::int64_t>{32});
  std::vector<float> parameters(parameter_count(spec));
  Rng rng(3);
  initialise(spec, rng, parameters);
  for (int i = 2; i < 6; ++i) {
    const auto first = parameters.begin() + static_cast<std::ptrdiff_t>(layout[i].offset);
    const auto [low, high] = std::minmax_element(first, first + static_cast<std::ptrdiff_t>(layout[i].elements()));
    CHECK(*low >= -1 / std::sqrt(8.0));
    CHECK(*high <= 1 / std::sqrt(8.0));
    CHECK(*high - *low > 1 / std::sqrt(8.0));  // of 32 or more uniforms, fixed seed
  }
  NetworkConfig linear_config;
  linear_config.preset = "custom";
  linear_config.layers = {linear(12), relu(), linear(8), linear(9), relu()};
  linear_config.dueling = true;
  CHECK(layout_hash(build_network(linear_config, rows_of(DType::f32, {4}), 2, 1, 4)) != layout_hash(spec));
}

TEST_CASE("sequence: R2D2's network has as many parameters as the peer's") {
  // Convolutions 77,984; 3136*512+512; (531+512)*2048+2*2048; 2*(512*512+512); 512+1; 512*18+18.
  CHECK(parameter_count(r2d2_network()) == 77984 + 1606144 + 2140160 + 525312 + 513 + 9234);
}

// Targets do not depend on the online network otherwise, and the burn-in's part of a gradient is left out on purpose:
// without burn-in both agree.
void require_gradients(const NetworkSpec& spec, const SequenceOptions& options, std::uint64_t seed) {
  Rng rng(seed);
  const RandomSequences batch(spec, options, rng, seed % 2 == 0);
  require_gradients(
      spec,
      Differences(spec, make_backend("reference64")->sequence_trainer(spec, options), batch, batch.view.size, seed), 30,
      seed);
}

TEST_CASE("sequence: the oracle's gradients agree with finite differences for every network and switch") {
  std::uint64_t seed = 20;
  for (const auto& [name, spec] : recurrent_networks()) {
    for (int bits = 0; bits < 4; ++bits) {
      CAPTURE(name, bits);
      SequenceOptions options = sequence_options(4);
      options.burn_in = 0;
      options.update.td.double_q = (bits & 1) != 0;
      options.update.td.huber = (bits & 2) != 0;
      require_gradients(spec, options, seed++);
    }
  }
}

TEST_CASE("sequence: a burn-in is the same as starting from the state it leads to") {
  // Without layers below the lstm the burn-in's result can be had from a second trainer's Q-values alone when the rest
  // of the sequence is kept: here the state is computed by the maths of nn/lstm.h.
  const NetworkSpec spec = recurrent_networks()[0].spec;
  const std::int64_t hidden = 7;
  SequenceOptions options = sequence_options(3);
  Rng rng(5);
  RandomSequences batch(spec, options, rng);
  const auto parameters = random_parameters(spec, 6);
  const auto layout = parameter_layout(spec);
  const auto tensor = [&](const std::string& name) {
    return parameters.data() +
           std::find_if(layout.begin(), layout.end(), [&](const auto& i) { return i.name == name; })->offset;
  };
  std::vector<double> h(batch.hidden.begin(), batch.hidden.end());
  std::vector<double> c(batch.cell.begin(), batch.cell.end());
  const std::int64_t inputs = 5 + 3 + 1;
  for (std::int64_t t = 0; t < options.burn_in; ++t) {
    for (std::int64_t b = 0; b < 3; ++b) {
      std::vector<double> x(static_cast<std::size_t>(inputs));
      const std::int64_t at = t * 3 + b;
      for (int i = 0; i < 5; ++i) {
        float value = 0;
        std::memcpy(&value, &batch.rows[(batch.index[at] * 5 + i) * 4], 4);
        x[i] = value;
      }
      if (batch.previous_action[at] >= 0) x[5 + batch.previous_action[at]] = 1;
      x[8] = batch.previous_reward[at];
      double sums[4][7] = {};
      for (int r = 0; r < 4 * hidden; ++r) {
        double& sum = sums[r / hidden][r % hidden];
        sum = tensor("layers.0.input.bias")[r] + tensor("layers.0.recurrent.bias")[r];
        for (int i = 0; i < inputs; ++i) sum += x[i] * tensor("layers.0.input.weight")[i * 4 * hidden + r];
        for (int k = 0; k < hidden; ++k)
          sum += h[b * hidden + k] * tensor("layers.0.recurrent.weight")[k * 4 * hidden + r];
      }
      for (int j = 0; j < hidden; ++j) {
        const auto gate = [&](int q) { return 1 / (1 + std::exp(-sums[q][j])); };
        double& cell = c[b * hidden + j];
        cell = gate(1) * cell + gate(0) * std::tanh(sums[2][j]);
        h[b * hidden + j] = gate(3) * std::tanh(cell);
      }
    }
  }
  const auto from_start = make_backend("reference64")->sequence_trainer(spec, options);
  from_start->set_parameters(parameters, parameters);
  const SequenceUpdated wanted = update(*from_start, batch.view, {.learning_rate = 0});

  SequenceOptions later = options;
  later.burn_in = 0;
  const std::vector<float> hidden_later(h.begin(), h.end());
  const std::vector<float> cell_later(c.begin(), c.end());
  SequenceBatch rest = batch.view;
  const std::int64_t skip = options.burn_in * 3;
  std::vector<std::int32_t> length = batch.length;
  for (auto& l : length) l -= static_cast<std::int32_t>(options.burn_in);
  rest.observations.index += skip;
  rest.previous_action += skip;
  rest.previous_reward += skip;
  rest.action += skip;
  rest.reward += skip;
  rest.length = length.data();
  rest.hidden = hidden_later.data();
  rest.cell = cell_later.data();
  const auto from_state = make_backend("reference64")->sequence_trainer(spec, later);
  from_state->set_parameters(parameters, parameters);
  const SequenceUpdated seen = update(*from_state, rest, {.learning_rate = 0});
  // The state was rounded to f32 on the way.
  CHECK(relative_error(seen.priorities, wanted.priorities) < 1e-6);
  CHECK(relative_error(seen.gradients, wanted.gradients) < 1e-6);
}

TEST_CASE("sequence: what stands beyond a sequence's length changes nothing") {
  for (const auto& [name, spec] : recurrent_networks()) {
    for (const std::string& backend : references) {
      CAPTURE(name, backend);
      const SequenceOptions options = sequence_options(5);
      Rng rng(8);
      RandomSequences batch(spec, options, rng);
      batch.length = {7, 10, 8, 6, 9};
      batch.end = {SequenceEnd::terminated, SequenceEnd::open, SequenceEnd::truncated, SequenceEnd::open,
                   SequenceEnd::truncated};
      std::vector<SequenceUpdated> seen;
      for (int run = 0; run < 2; ++run) {
        const auto trainer = make_backend(backend)->sequence_trainer(spec, options);
        trainer->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
        seen.push_back(update(*trainer, batch.view, {}));
        for (std::int64_t t = 0; t < options.steps(); ++t) {
          for (std::int64_t b = 0; b < 5; ++b) {
            const std::int64_t at = t * 5 + b;
            if (t >= batch.length[b] - 1) batch.action[at] = (batch.action[at] + 1) % 3;  // the last one has none
            if (t >= batch.length[b] - 1) batch.reward[at] = nan;
            if (t < batch.length[b]) continue;
            batch.previous_action[at] = -1;
            batch.previous_reward[at] = 100;
            for (std::int64_t k = 0; k < spec.stack; ++k) batch.index[at * spec.stack + k] = 0;
          }
        }
      }
      CHECK(seen[0].priorities == seen[1].priorities);
      CHECK(seen[0].gradients == seen[1].gradients);
      CHECK(seen[0].parameters == seen[1].parameters);
    }
  }
}

TEST_CASE("sequence: every input of a step shows in the gradients") {
  const NetworkSpec spec = recurrent_networks()[2].spec;
  const SequenceOptions options = sequence_options(6);
  const auto gradients = [&](auto change) {
    Rng rng(9);
    RandomSequences batch(spec, options, rng, true);
    SequenceOptions changed = options;
    change(batch, changed);
    const auto trainer = make_backend("reference64")->sequence_trainer(spec, changed);
    trainer->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
    return update(*trainer, batch.view, {}).gradients;
  };
  const auto right = gradients([](auto&, auto&) {});
  const auto shows = [&](auto change) { CHECK(relative_error(gradients(change), right) > 1e-3); };
  shows([](RandomSequences& b, auto&) { b.view.mask = nullptr; });
  shows([](RandomSequences& b, auto&) { std::fill(b.previous_action.begin(), b.previous_action.end(), -1); });
  shows([](RandomSequences& b, auto&) { std::fill(b.previous_reward.begin(), b.previous_reward.end(), 0.0f); });
  shows([](RandomSequences& b, auto&) { std::fill(b.hidden.begin(), b.hidden.end(), 0.0f); });
  shows([](RandomSequences& b, auto&) { std::fill(b.cell.begin(), b.cell.end(), 0.0f); });
  shows([](RandomSequences& b, auto&) { std::fill(b.weight.begin(), b.weight.end(), 1.0f); });
  shows([](RandomSequences& b, auto&) { std::fill(b.end.begin(), b.end.end(), SequenceEnd::truncated); });
  shows([](RandomSequences& b, auto&) {
    for (std::size_t i = 0; i < b.index.size(); i += 3) std::reverse(&b.index[i], &b.index[i] + 3);
  });
  shows([](auto&, SequenceOptions& o) { o.n_step = 1; });
  shows([](auto&, SequenceOptions& o) { o.gamma = 0.8; });
  shows([](auto&, SequenceOptions& o) { o.update.td.rescale = false; });
}

TEST_CASE("sequence: the oracle in f32 agrees with itself in f64 for every network and batch size") {
  for (const auto& [name, spec] : recurrent_networks()) {
    for (const std::int64_t size : {1, 2, 8, 11}) {
      CAPTURE(name, size);
      const SequenceOptions options = sequence_options(size);
      Rng rng(static_cast<std::uint64_t>(size));
      const RandomSequences batch(spec, options, rng, size % 2 == 0);
      std::vector<SequenceUpdated> seen;
      for (const std::string& backend : references) {
        const auto trainer = make_backend(backend)->sequence_trainer(spec, options);
        trainer->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
        seen.push_back(update(*trainer, batch.view, {.learning_rate = 1e-3}));
      }
      // f32 storage over ten steps of a contracting recurrence: some tens of roundings of 6e-8.
      CHECK(relative_error(seen[0].priorities, seen[1].priorities) < 1e-5);
      for (const ParameterInfo& info : parameter_layout(spec)) {
        CAPTURE(info.name);
        const auto tensor = [&](const std::vector<float>& all) {
          return std::span(all).subspan(info.offset, info.elements());
        };
        CHECK(relative_error(tensor(seen[0].gradients), tensor(seen[1].gradients)) < 1e-5);
      }
    }
  }
}

TEST_CASE("sequence: an update that is not finite changes nothing") {
  const NetworkSpec spec = recurrent_networks()[1].spec;
  const SequenceOptions options = sequence_options(4);
  for (const std::string& backend : references) {
    for (const std::string where : {"reward", "state", "weight"}) {
      CAPTURE(backend, where);
      Rng rng(9);
      RandomSequences batch(spec, options, rng);
      const auto trainer = make_backend(backend)->sequence_trainer(spec, options);
      trainer->set_parameters(random_parameters(spec, 1), random_parameters(spec, 2));
      REQUIRE(update(*trainer, batch.view, {}).result.finite);
      const auto online = copy(trainer->parameters());
      const auto optimizer = trainer->save_optimizer();
      if (where == "reward") batch.reward[static_cast<std::size_t>(options.burn_in * 4 + 1)] = nan;
      if (where == "state") batch.hidden[5] = nan;
      if (where == "weight") batch.weight[2] = nan;
      CHECK_FALSE(update(*trainer, batch.view, {.sync_target = true}).result.finite);
      CHECK(copy(trainer->parameters()) == online);
      CHECK(trainer->save_optimizer() == optimizer);
    }
  }
}

TEST_CASE("sequence: what does not fit is refused before anything changes") {
  const NetworkSpec spec = recurrent_networks()[1].spec;
  const SequenceOptions options = sequence_options(4);
  const auto trainer = make_backend("reference")->sequence_trainer(spec, options);
  const auto refuses = [&](auto change) {
    Rng rng(9);
    RandomSequences batch(spec, options, rng);
    change(batch);
    CHECK_THROWS_AS(trainer->submit(batch.view, {}), InputError);
  };
  refuses([](RandomSequences& b) { b.view.size = 3; });
  refuses([](RandomSequences& b) { b.view.cell = nullptr; });
  refuses([](RandomSequences& b) { b.action[7] = 4; });
  refuses([](RandomSequences& b) { b.previous_action[7] = -2; });
  refuses([](RandomSequences& b) { b.length[1] = 0; });
  refuses([](RandomSequences& b) { b.length[1] = 11; });
  refuses([](RandomSequences& b) { b.end[1] = static_cast<SequenceEnd>(3); });
  refuses([](RandomSequences& b) { b.view.observations.rows = 20; });
  refuses([](RandomSequences& b) {
    b.length[2] = 5;
    b.end[2] = SequenceEnd::open;
  });
}

TEST_CASE("sequence: options out of range and the wrong kind of network are refused by name") {
  const NetworkSpec spec = recurrent_networks()[1].spec;
  const auto refuses = [&](auto change) {
    SequenceOptions options = sequence_options(4);
    change(options);
    CHECK_THROWS_AS(make_backend("reference")->sequence_trainer(spec, options), ConfigError);
  };
  refuses([](SequenceOptions& o) { o.burn_in = -1; });
  refuses([](SequenceOptions& o) { o.n_step = 0; });
  refuses([](SequenceOptions& o) { o.unroll = 2; });
  refuses([](SequenceOptions& o) { o.gamma = 0; });
  refuses([](SequenceOptions& o) { o.priority_eta = 1.5; });
  refuses([](SequenceOptions& o) { o.update.batch = 0; });
  CHECK_THROWS_AS(make_backend("reference")->sequence_trainer(networks()[0].spec, sequence_options(4)), ConfigError);
  CHECK_THROWS_AS(make_backend("cpu")->sequence_trainer(spec, sequence_options(4)), ConfigError);
  CHECK_THROWS_AS(make_backend("cpu")->trainer(spec, {}), ConfigError);
  CHECK_THROWS_AS(make_backend("cpu")->inference(spec, 4), ConfigError);
  NetworkConfig config;
  config.preset = "custom";
  config.layers = {lstm(4), linear(3), lstm(4)};
  CHECK_THROWS_AS(build_network(config, rows_of(DType::f32, {4}), 1, 1, 2), ConfigError);
  config.layers = {lstm(4), relu()};
  CHECK_THROWS_AS(build_network(config, rows_of(DType::f32, {4}), 1, 1, 2), ConfigError);
}

}  // namespace
}  // namespace qanat::nn::test
