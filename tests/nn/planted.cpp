// Planted errors: what a plausible mistake does to the numbers must be far above the tolerance of conformance.cpp,
// else that tolerance proves nothing.
#include <algorithm>

#include "tests/nn/support.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {
namespace {

std::vector<float> q_values(const NetworkSpec& spec, std::span<const float> parameters, const ObservationRows& rows,
                            std::int64_t size) {
  std::vector<float> q(static_cast<std::size_t>(size * spec.actions));
  const auto inference = make_backend("cpu")->inference(spec, size);
  inference->set_parameters(parameters);
  inference->forward(rows, size, q);
  return q;
}

constexpr double visible = 1e-3;  // 30 times the tolerance

NetworkSpec conv_network() { return network_named("two convolutions of a stack"); }

TEST_CASE("planted: one swapped pair of convolution taps shows") {
  const NetworkSpec spec = conv_network();
  Rng rng(1);
  const RandomBatch batch(spec, 32, false, rng);
  auto parameters = random_parameters(spec, 2);
  const auto right = q_values(spec, parameters, batch.view.state, 32);
  std::swap(parameters[4], parameters[5]);
  CHECK(relative_error(q_values(spec, parameters, batch.view.state, 32), right) > visible);
}

TEST_CASE("planted: a missing 1/255 shows") {
  NetworkSpec spec = conv_network();
  Rng rng(1);
  const RandomBatch batch(spec, 32, false, rng);
  const auto parameters = random_parameters(spec, 2);
  const auto right = q_values(spec, parameters, batch.view.state, 32);
  spec.input_scale = 1;
  CHECK(relative_error(q_values(spec, parameters, batch.view.state, 32), right) > visible);
}

TEST_CASE("planted: a stack gathered newest first shows") {
  const NetworkSpec spec = conv_network();
  Rng rng(1);
  RandomBatch batch(spec, 32, false, rng);
  const auto parameters = random_parameters(spec, 2);
  const auto right = q_values(spec, parameters, batch.view.state, 32);
  for (auto first = batch.state_index.begin(); first != batch.state_index.end(); first += spec.stack) {
    std::reverse(first, first + spec.stack);
  }
  CHECK(relative_error(q_values(spec, parameters, batch.view.state, 32), right) > visible);
}

TEST_CASE("planted: swapped dueling streams and a lost layer norm gain show") {
  const auto planted = [](const NetworkSpec& spec, const std::string& a, const std::string& b) {
    Rng rng(1);
    const RandomBatch batch(spec, 32, false, rng);
    auto parameters = random_parameters(spec, 2);
    const auto right = q_values(spec, parameters, batch.view.state, 32);
    const auto layout = parameter_layout(spec);
    const auto find = [&](const std::string& name) {
      return *std::find_if(layout.begin(), layout.end(), [&](const auto& info) { return info.name == name; });
    };
    const auto from = parameters.begin() + static_cast<std::ptrdiff_t>(find(a).offset);
    const auto elements = static_cast<std::ptrdiff_t>(find(a).elements());
    if (b.empty()) {
      std::fill(from, from + elements, 1.0f);
    } else {
      std::swap_ranges(from, from + elements, parameters.begin() + static_cast<std::ptrdiff_t>(find(b).offset));
    }
    CHECK(relative_error(q_values(spec, parameters, batch.view.state, 32), right) > visible);
  };
  planted(network_named("dueling with hidden streams"), "value_hidden.weight", "advantage_hidden.weight");
  planted(network_named("layer norms"), "layers.1.weight", "");
}

TEST_CASE("planted: a weight, a mask or a switch that is ignored shows in the gradients") {
  const NetworkSpec spec = network_named("dueling");
  Rng rng(1);
  const RandomBatch batch(spec, 32, true, rng);
  const auto gradients = [&](const QBatch& view, const TdOptions& td) {
    TrainerOptions options;
    options.batch = 32;
    options.td = td;
    const auto trainer = make_backend("cpu")->trainer(spec, options);
    trainer->set_parameters(random_parameters(spec, 2), random_parameters(spec, 3));
    std::vector<float> td_abs(32);
    trainer->submit(view, {});
    trainer->collect(td_abs);
    return copy(trainer->gradients());
  };
  const auto right = gradients(batch.view, {});
  const std::vector<float> ones(32, 1.0f);
  QBatch wrong = batch.view;
  wrong.weight = ones.data();
  CHECK(relative_error(gradients(wrong, {}), right) > visible);
  wrong = batch.view;
  wrong.next_mask = nullptr;
  CHECK(relative_error(gradients(wrong, {}), right) > visible);
  CHECK(relative_error(gradients(batch.view, {.double_q = false}), right) > visible);
  CHECK(relative_error(gradients(batch.view, {.huber = false}), right) > visible);
  CHECK(relative_error(gradients(batch.view, {.rescale = true}), right) > visible);
}

}  // namespace
}  // namespace qanat::nn::test
