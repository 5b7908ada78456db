// Networks as data: shapes, layouts, refusals, initial values.
#include "nn/network.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "tests/nn/support.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {
namespace {

NetworkConfig preset(const std::string& name) {
  NetworkConfig config;
  config.preset = name;
  return config;
}

NetworkConfig custom(std::vector<LayerConfig> layers) {
  NetworkConfig config = preset("custom");
  config.layers = std::move(layers);
  return config;
}

std::string refusal(const NetworkConfig& config, const TensorSpec& input) {
  try {
    (void)build_network(config, input, 1, 255, 4);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST_CASE("network: the presets have their published parameter counts") {
  // 16*4*9+16 + 1024*128+128 + 128*6+6
  CHECK(parameter_count(build_network(preset("minatar"), rows_of(DType::u8, {4, 10, 10}), 1, 1, 6)) == 132566);
  // 4*256+256 + 256*256+256 + 256*2+2
  CHECK(parameter_count(build_network({}, rows_of(DType::f32, {4}), 1, 1, 2)) == 67586);
  // Mnih et al., 2015, 18 actions: 1,693,362.
  CHECK(parameter_count(build_network(preset("nature"), rows_of(DType::u8, {84, 84}), 4, 255, 18)) == 1693362);
}

TEST_CASE("network: a hidden dueling layer takes the place of the last linear layer of a conv preset") {
  NetworkConfig config = preset("nature");
  config.dueling = true;
  config.dueling_hidden = 512;
  const auto spec = build_network(config, rows_of(DType::u8, {84, 84}), 4, 255, 18);
  CHECK(spec.trunk_features() == 3136);
  std::vector<std::string> names;
  for (const auto& info : parameter_layout(spec)) names.push_back(info.name);
  CHECK(names == std::vector<std::string>{"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias",
                                          "layers.4.weight", "layers.4.bias", "value_hidden.weight",
                                          "value_hidden.bias", "advantage_hidden.weight", "advantage_hidden.bias",
                                          "value.weight", "value.bias", "advantage.weight", "advantage.bias"});
}

TEST_CASE("network: stacked rows become channels, oldest first") {
  CHECK(build_network({}, rows_of(DType::f32, {4}), 3, 1, 2).stacked_shape() == std::vector<std::int64_t>{12});
  CHECK(build_network({}, rows_of(DType::u8, {9, 7}), 3, 1, 2).stacked_shape() == std::vector<std::int64_t>{3, 9, 7});
  CHECK(build_network({}, rows_of(DType::u8, {2, 9, 7}), 3, 1, 2).stacked_shape() ==
        std::vector<std::int64_t>{6, 9, 7});
}

TEST_CASE("network: the automatic scale is 1 / the upper bound of bytes, and 1 for floats") {
  CHECK(build_network({}, rows_of(DType::u8, {4}), 1, 255, 2).input_scale == 1.0f / 255);
  CHECK(build_network({}, rows_of(DType::f32, {4}), 1, 255, 2).input_scale == 1.0f);
  NetworkConfig config;
  config.input_scale = 0.5;
  CHECK(build_network(config, rows_of(DType::u8, {4}), 1, 255, 2).input_scale == 0.5f);
}

TEST_CASE("network: what does not fit is refused with the layer's index and the shapes") {
  const auto image = rows_of(DType::u8, {2, 6, 6});
  CHECK(refusal(custom({conv(4, 3, 1), relu(), conv(4, 5, 1)}), image) ==
        "network layer 2 (conv2d) with input [4, 4, 4]: the kernel of 5 is larger than the input");
  CHECK(refusal(custom({linear(8), conv(4, 3, 1)}), image) ==
        "network layer 1 (conv2d) with input [8]: a convolution needs an input [C, H, W]");
  CHECK(refusal(custom({linear(0)}), image) ==
        "network layer 0 (linear) with input [2, 6, 6]: out is 0, it must be at least 1");
  CHECK(refusal(custom({{.kind = "pool"}}), image) ==
        "network layer 0 (pool) with input [2, 6, 6]: the kind is none of linear, conv2d, relu, layer_norm, lstm");
  CHECK(refusal(preset("resnet"), image) == "network preset 'resnet' is none of mlp, minatar, nature, custom");
  CHECK(refusal({}, rows_of(DType::i32, {4})) == "a network reads u8 or f32 observations, not observation i32 [4]");
}

TEST_CASE("network: the layout is dense and in order") {
  for (const auto& [name, spec] : networks()) {
    CAPTURE(name);
    std::size_t offset = 0;
    for (const ParameterInfo& info : parameter_layout(spec)) {
      CHECK(info.offset == offset);
      offset += info.elements();
    }
    CHECK(offset == parameter_count(spec));
  }
}

TEST_CASE("network: initial values fill U(-1/sqrt(fan_in), 1/sqrt(fan_in)), weights and biases alike") {
  const auto spec = build_network(preset("minatar"), rows_of(DType::u8, {4, 10, 10}), 1, 1, 6);
  std::vector<float> parameters(parameter_count(spec));
  Rng rng(3);
  initialise(spec, rng, parameters);
  const auto layout = parameter_layout(spec);
  const double fan_in[] = {36, 36, 1024, 1024, 128, 128};
  for (std::size_t i = 0; i < layout.size(); ++i) {
    CAPTURE(layout[i].name);
    const auto first = parameters.begin() + static_cast<std::ptrdiff_t>(layout[i].offset);
    const auto last = first + static_cast<std::ptrdiff_t>(layout[i].elements());
    const double bound = 1 / std::sqrt(fan_in[i]);
    const auto [low, high] = std::minmax_element(first, last);
    CHECK(*low >= -bound);
    CHECK(*high <= bound);
    // The extremes of n >= 6 uniforms: that both lie within half the bound has probability below 2^-n, fixed seed.
    CHECK(*high - *low > bound);
  }
}

TEST_CASE("network: a layer norm starts as the identity") {
  const auto spec = build_network(custom({layer_norm()}), rows_of(DType::f32, {3}), 1, 1, 2);
  std::vector<float> parameters(parameter_count(spec), -1.0f);
  Rng rng(3);
  initialise(spec, rng, parameters);
  CHECK(std::vector<float>(parameters.begin(), parameters.begin() + 6) == std::vector<float>{1, 1, 1, 0, 0, 0});
}

}  // namespace
}  // namespace qanat::nn::test
