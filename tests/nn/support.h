// Networks, random batches and error norms that the nn tests share.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "nn/backend.h"
#include "nn/cuda_loader.h"

namespace qanat::nn::test {

// Backends by name; after a GPU's may stand the precision, and the kernels: "cuda:0 fp32", "cuda:0 bf16 fused".
struct Where {
  std::string device, precision = "auto", kernels = "auto";
};
inline Where parse_backend(const std::string& backend) {
  Where where;
  std::istringstream words(backend);
  words >> where.device >> where.precision >> where.kernels;
  if (where.precision.empty()) where.precision = "auto";
  if (where.kernels.empty()) where.kernels = "auto";
  return where;
}
inline std::unique_ptr<QTrainer> trainer_on(const std::string& backend, const NetworkSpec& spec,
                                            TrainerOptions options) {
  const Where where = parse_backend(backend);
  options.precision = where.precision;
  options.kernels = where.kernels;
  return make_backend(where.device)->trainer(spec, options);
}
inline std::unique_ptr<Inference> inference_on(const std::string& backend, const NetworkSpec& spec,
                                               std::int64_t max_batch) {
  const Where where = parse_backend(backend);
  return make_backend(where.device)->inference(spec, max_batch, where.precision);
}

inline bool gpu_usable() { return find_cuda().usable(); }
// The fused kernels of the Nature network are for capability 9.0.
inline bool fused_usable() { return gpu_usable() && find_cuda().report.gpus.front().capability == 90; }
// These, and a GPU in fp32 where one can be used.
inline std::vector<std::string> with_gpu(std::vector<std::string> backends) {
  if (gpu_usable()) backends.push_back("cuda:0 fp32");
  return backends;
}

struct NamedNetwork {
  std::string name;
  NetworkSpec spec;
};

inline TensorSpec rows_of(DType dtype, std::vector<std::int64_t> shape) {
  return {.name = "observation", .dtype = dtype, .shape = std::move(shape)};
}

inline LayerConfig conv(std::int64_t out, std::int64_t kernel, std::int64_t stride) {
  return {.kind = "conv2d", .out = out, .kernel = kernel, .stride = stride};
}
inline LayerConfig linear(std::int64_t out) { return {.kind = "linear", .out = out}; }
inline LayerConfig relu() { return {.kind = "relu"}; }
inline LayerConfig layer_norm() { return {.kind = "layer_norm"}; }

// Small networks that between them reach every kind of layer, head and awkward shape: widths below, at and above
// the lane count, strides that leave pixels over, stacks, u8 rows whose length is no multiple of four.
inline std::vector<NamedNetwork> networks() {
  const auto custom = [](std::vector<LayerConfig> layers) {
    NetworkConfig config;
    config.preset = "custom";
    config.layers = std::move(layers);
    return config;
  };
  std::vector<NamedNetwork> all;
  NetworkConfig mlp;
  mlp.hidden = {33, 17};
  all.push_back({"mlp of odd widths", build_network(mlp, rows_of(DType::f32, {5}), 1, 1, 3)});

  NetworkConfig wide;
  wide.hidden = {48, 256};
  all.push_back({"mlp with padded rows, stacked", build_network(wide, rows_of(DType::f32, {3}), 2, 1, 2)});

  NetworkConfig dueling = mlp;
  dueling.dueling = true;
  all.push_back({"dueling", build_network(dueling, rows_of(DType::f32, {4}), 1, 1, 5)});
  dueling.dueling_hidden = 40;
  all.push_back({"dueling with hidden streams", build_network(dueling, rows_of(DType::f32, {4}), 1, 1, 5)});

  NetworkConfig minatar;
  minatar.preset = "minatar";
  all.push_back({"minatar", build_network(minatar, rows_of(DType::u8, {4, 10, 10}), 1, 1, 6)});

  auto convs = custom({conv(5, 3, 2), relu(), conv(9, 2, 1), relu(), linear(34), relu()});
  convs.dueling = true;
  convs.dueling_hidden = 16;
  all.push_back({"two convolutions of a stack", build_network(convs, rows_of(DType::u8, {9, 7}), 3, 255, 4)});

  NetworkConfig one;
  one.hidden = {37};
  all.push_back({"one input", build_network(one, rows_of(DType::f32, {1}), 1, 1, 3)});

  all.push_back(
      {"convolutions of many channels",
       build_network(custom({conv(40, 3, 1), relu(), conv(34, 2, 2), relu()}), rows_of(DType::u8, {7, 6}), 2, 255, 3)});
  all.push_back({"strides that leave pixels over", build_network(custom({conv(4, 2, 3), relu(), conv(3, 2, 1)}),
                                                                 rows_of(DType::f32, {2, 9, 12}), 1, 1, 18)});

  all.push_back(
      {"layer norms", build_network(custom({linear(37), layer_norm(), relu(), linear(20), relu(), layer_norm()}),
                                    rows_of(DType::f32, {6}), 1, 1, 3)});

  all.push_back({"relu and norm on the observation",
                 build_network(custom({relu(), layer_norm(), linear(12)}), rows_of(DType::f32, {7}), 1, 1, 2)});

  all.push_back({"head only, 40 actions", build_network(custom({}), rows_of(DType::u8, {11}), 1, 10, 40)});

  NetworkConfig small;
  small.hidden = {24, 16};
  all.push_back({"mlp of four inputs and two actions", build_network(small, rows_of(DType::f32, {4}), 1, 1, 2)});
  return all;
}

inline NetworkSpec network_named(const std::string& name) {
  for (auto& network : networks()) {
    if (network.name == name) return network.spec;
  }
  throw std::out_of_range("no network " + name);
}

// A batch that owns its columns. Rows are shared by states and next states.
struct RandomBatch {
  std::vector<std::byte> rows;
  std::vector<std::uint32_t> state_index, next_index;
  std::vector<std::int32_t> action;
  std::vector<float> returns, bootstrap, weight;
  std::vector<std::uint8_t> mask;
  QBatch view;

  RandomBatch(const NetworkSpec& spec, std::int64_t size, bool masked, Rng& rng) {
    const std::int64_t count = size * 2 + 3;
    const std::size_t elements = static_cast<std::size_t>(count) * spec.input.elements();
    rows.resize(static_cast<std::size_t>(count) * spec.input.bytes());
    for (std::size_t i = 0; i < elements; ++i) {
      if (spec.input.dtype == DType::u8) {
        const double high = 1 / static_cast<double>(spec.input_scale);
        rows[i] = static_cast<std::byte>(rng.below(static_cast<std::uint64_t>(std::lround(high)) + 1));
      } else {
        const auto value = static_cast<float>(rng.normal());
        std::memcpy(&rows[i * 4], &value, 4);
      }
    }
    for (std::int64_t i = 0; i < size * spec.stack; ++i) {
      state_index.push_back(static_cast<std::uint32_t>(rng.below(static_cast<std::uint64_t>(count))));
      next_index.push_back(static_cast<std::uint32_t>(rng.below(static_cast<std::uint64_t>(count))));
    }
    for (std::int64_t b = 0; b < size; ++b) {
      action.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(spec.actions))));
      returns.push_back(static_cast<float>(2 * rng.normal()));
      bootstrap.push_back(rng.chance(0.2) ? 0.0f : 0.97f);
      weight.push_back(static_cast<float>(rng.uniform(0.1, 1)));
      const auto allowed = rng.below(static_cast<std::uint64_t>(spec.actions));  // at least one
      for (std::int64_t a = 0; a < spec.actions; ++a) {
        mask.push_back(a == static_cast<std::int64_t>(allowed) || rng.chance(0.5) ? 1 : 0);
      }
    }
    view = {.size = size,
            .state = {.data = rows.data(), .rows = count, .index = state_index.data()},
            .next_state = {.data = rows.data(), .rows = count, .index = next_index.data()},
            .action = action.data(),
            .returns = returns.data(),
            .bootstrap = bootstrap.data(),
            .weight = weight.data(),
            .next_mask = masked ? mask.data() : nullptr};
  }
  RandomBatch(const RandomBatch&) = delete;
  RandomBatch& operator=(const RandomBatch&) = delete;
};

// Layer norms get gains and biases that are not 1 and 0, so that a lost one shows.
inline std::vector<float> random_parameters(const NetworkSpec& spec, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> parameters(parameter_count(spec));
  initialise(spec, rng, parameters);
  for (const ParameterInfo& info : parameter_layout(spec)) {
    for (std::size_t i = 0; i < info.elements(); ++i) {
      float& value = parameters[info.offset + i];
      if (value == 0.0f || value == 1.0f) value += static_cast<float>(rng.uniform(-0.3, 0.3));
    }
  }
  return parameters;
}

// Euclidean.
inline double size_of(std::span<const float> values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

// |a - b| / |b|, Euclidean; NaN anywhere makes it NaN, which fails every comparison.
inline double relative_error(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return std::nan("");
  double difference = 0;
  double size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return size == 0 ? std::sqrt(difference) : std::sqrt(difference / size);
}

inline std::vector<float> copy(std::span<const float> values) { return {values.begin(), values.end()}; }

}  // namespace qanat::nn::test
