// Q-values by the processor's matrix units. Where it has none each test says so and passes.
#include "nn/cpu/matrix_units.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "tests/nn/compare.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {
namespace {

NetworkSpec conv_network(TensorSpec input, std::int64_t stack, std::vector<LayerConfig> layers, bool dueling,
                         std::int64_t dueling_hidden, std::int64_t actions, double high = 255) {
  NetworkConfig config;
  config.preset = "custom";
  config.layers = std::move(layers);
  config.dueling = dueling;
  config.dueling_hidden = dueling_hidden;
  return build_network(config, input, stack, high, actions);
}

std::vector<NamedNetwork> image_networks() {
  NetworkConfig preset;
  preset.preset = "nature";
  preset.dueling = true;
  preset.dueling_hidden = 512;
  const auto frame = rows_of(DType::u8, {84, 84});
  std::vector<NamedNetwork> all;
  all.push_back({"nature, dueling", build_network(preset, frame, 4, 255, 18)});
  preset.dueling = false;
  preset.dueling_hidden = 0;
  all.push_back({"nature", build_network(preset, frame, 4, 255, 6)});
  preset.preset = "minatar";
  all.push_back({"minatar", build_network(preset, rows_of(DType::u8, {7, 10, 10}), 1, 1, 6)});
  all.push_back({"odd channels of a stack, odd outputs, no hidden layer",
                 conv_network(rows_of(DType::u8, {9, 7}), 3, {conv(5, 3, 2), relu(), conv(9, 2, 1)}, false, 0, 4)});
  all.push_back({"f32 images, strides that leave pixels over, runs longer than a piece",
                 conv_network(rows_of(DType::f32, {10, 19, 12}), 2,
                              {conv(33, 5, 3), relu(), conv(17, 2, 1), relu(), linear(35), relu()}, true, 0, 3, 1)});
  all.push_back({"one pixel left", conv_network(rows_of(DType::u8, {4, 8, 8}), 1,
                                                {conv(16, 8, 1), relu(), linear(20), relu()}, true, 6, 2)});
  return all;
}

bool absent() {
  const auto obstacle = matrix_obstacle(image_networks()[0].spec);
  if (!obstacle.empty()) WARN("skipped: " << obstacle);
  return !obstacle.empty();
}

std::vector<float> q_values(const std::string& backend, const NetworkSpec& spec, const std::vector<float>& parameters,
                            const ObservationRows& rows, std::int64_t batch, std::int64_t largest) {
  const auto inference = inference_on(backend, spec, largest);
  inference->set_parameters(parameters);
  std::vector<float> q(static_cast<std::size_t>(batch * spec.actions));
  inference->forward(rows, batch, q);
  return q;
}

}  // namespace

TEST_CASE("matrix units: Q-values agree with the oracle to bf16's rounding") {
  if (absent()) return;
  for (const auto& [name, spec] : image_networks()) {
    CAPTURE(name);
    const auto parameters = random_parameters(spec, 5);
    Rng rng(6);
    RandomBatch batch(spec, 70, false, rng);
    for (const std::int64_t size : {1, 15, 16, 17, 33, 70}) {
      CAPTURE(size);
      const auto wanted = q_values("reference64", spec, parameters, batch.view.state, size, 70);
      const auto seen = q_values("cpu bf16", spec, parameters, batch.view.state, size, 70);
      CHECK(relative_error(seen, wanted) < bf16.error);
      CHECK(relative_error(seen, wanted) > 1e-6);  // it is bf16 that was asked
    }
  }
}

TEST_CASE("matrix units: numbers that bf16 holds exactly give exact results, wherever each weight stands") {
  if (absent()) return;
  // All products and sums are small integers: a weight at a wrong place cannot hide in rounding.
  for (const auto& [name, made] : image_networks()) {
    CAPTURE(name);
    NetworkSpec spec = made;
    spec.input_scale = 1;
    Rng rng(8);
    std::vector<float> parameters(parameter_count(spec));
    const auto layout = parameter_layout(spec);
    for (const auto& info : layout) {
      // Few and small: what passes from layer to layer stays below 256.
      for (std::size_t i = 0; i < info.elements(); ++i) {
        const bool bias = info.shape.size() == 1;
        if (bias || rng.chance(2.0 / static_cast<double>(info.fan_in)))
          parameters[info.offset + i] = static_cast<float>(static_cast<int>(rng.below(3)) - 1);
      }
    }
    RandomBatch batch(spec, 20, false, rng);
    for (std::size_t i = 0; i < batch.rows.size(); i += spec.input.dtype == DType::u8 ? 1 : 4) {
      if (spec.input.dtype == DType::u8) {
        batch.rows[i] = static_cast<std::byte>(rng.below(4));
      } else {
        const auto value = static_cast<float>(static_cast<int>(rng.below(7)) - 3);
        std::memcpy(&batch.rows[i], &value, 4);
      }
    }
    const auto wanted = q_values("reference64", spec, parameters, batch.view.state, 20, 20);
    const auto seen = q_values("cpu bf16", spec, parameters, batch.view.state, 20, 20);
    CHECK(std::any_of(wanted.begin(), wanted.end(), [](float q) { return q != 0; }));
    // The mean over actions of the dueling streams is a division in f32.
    for (std::size_t i = 0; i < seen.size(); ++i) REQUIRE(seen[i] == Approx(wanted[i]).margin(1e-4));
  }
}

TEST_CASE("matrix units: a sample's values do not depend on the rest of its batch, nor on what was computed before") {
  if (absent()) return;
  for (const auto& [name, spec] : image_networks()) {
    CAPTURE(name);
    const auto parameters = random_parameters(spec, 15);
    Rng rng(16);
    RandomBatch batch(spec, 48, false, rng);
    const auto inference = inference_on("cpu bf16", spec, 48);
    inference->set_parameters(random_parameters(spec, 17));
    std::vector<float> all(static_cast<std::size_t>(48 * spec.actions));
    inference->forward(batch.view.next_state, 48, all);
    inference->set_parameters(parameters);
    inference->forward(batch.view.state, 48, all);
    for (const std::int64_t at : {0, 17, 47}) {
      std::vector<float> one(static_cast<std::size_t>(spec.actions));
      auto rows = batch.view.state;
      rows.index += at * spec.stack;
      inference->forward(rows, 1, one);
      CHECK(std::equal(one.begin(), one.end(), all.begin() + at * spec.actions));
    }
  }
}

TEST_CASE("matrix units: what is not a number stays so, with its sample, and only as long as it is there") {
  if (absent()) return;
  auto all = image_networks();
  all.push_back({"a run of less than a piece at the end of a panel",
                 conv_network(rows_of(DType::u8, {4, 16, 16}), 1, {conv(8, 3, 1), linear(20), relu()}, false, 0, 3)});
  for (const auto& [name, spec] : all) {
    CAPTURE(name);
    const auto parameters = random_parameters(spec, 25);
    Rng rng(26);
    RandomBatch batch(spec, 32, false, rng);
    const auto inference = inference_on("cpu bf16", spec, 32);
    std::vector<float> clean(static_cast<std::size_t>(32 * spec.actions)), seen = clean;
    inference->set_parameters(parameters);
    inference->forward(batch.view.state, 32, clean);
    // Weights that overflow leave infinities everywhere.
    auto large = parameters;
    for (float& value : large) value *= 1e36f;
    inference->set_parameters(large);
    inference->forward(batch.view.state, 32, seen);
    CHECK(std::any_of(seen.begin(), seen.end(), [](float q) { return !std::isfinite(q); }));
    inference->set_parameters(parameters);
    inference->forward(batch.view.state, 16, std::span(seen).first(static_cast<std::size_t>(16 * spec.actions)));
    CHECK(std::equal(seen.begin(), seen.begin() + 16 * spec.actions, clean.begin()));
    if (spec.input.dtype != DType::f32) continue;
    const float infinite = std::numeric_limits<float>::infinity();
    const auto row = batch.state_index[static_cast<std::size_t>(20 * spec.stack)];
    std::memcpy(batch.rows.data() + row * spec.input.bytes(), &infinite, 4);
    inference->forward(batch.view.state, 32, seen);
    for (std::int64_t b = 0; b < 32; ++b) {
      const auto* rows = &batch.state_index[static_cast<std::size_t>(b * spec.stack)];
      const bool touched = std::count(rows, rows + spec.stack, row) > 0;
      const auto first = seen.begin() + b * spec.actions;
      const bool finite = std::all_of(first, first + spec.actions, [](float q) { return std::isfinite(q); });
      CHECK(finite == !touched);
      if (!touched) CHECK(std::equal(first, first + spec.actions, clean.begin() + b * spec.actions));
    }
  }
}

TEST_CASE("matrix units: other networks are refused by what they have") {
  if (absent()) return;
  const auto refusal = [](const NetworkSpec& spec) {
    try {
      (void)make_backend("cpu")->inference(spec, 4, "bf16");
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const auto image = rows_of(DType::u8, {4, 10, 10});
  CHECK(refusal(networks()[0].spec).find("first layer is a convolution") != std::string::npos);
  CHECK(refusal(conv_network(image, 1, {conv(8, 3, 1), layer_norm(), relu()}, false, 0, 3)).find("layer 1") !=
        std::string::npos);
  CHECK(refusal(conv_network(image, 1, {conv(8, 3, 1), relu()}, true, 7, 3)).find("dueling_hidden is 7") !=
        std::string::npos);
  CHECK_THROWS_AS(make_backend("reference")->inference(image_networks()[0].spec, 4, "bf16"), ConfigError);
  CHECK_THROWS_AS(make_backend("cpu")->inference(image_networks()[0].spec, 4, "tf32"), ConfigError);
}

}  // namespace qanat::nn::test
