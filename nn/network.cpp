#include "nn/network.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>
#include <numeric>

#include "core/checksum.h"
#include "core/error.h"

namespace qanat::nn {
namespace {

std::int64_t product(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>{});
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return out + "]";
}

LayerConfig layer(std::string kind, std::int64_t out = 0, std::int64_t kernel = 0, std::int64_t stride = 1) {
  return {.kind = std::move(kind), .out = out, .kernel = kernel, .stride = stride};
}

// With a hidden layer in the dueling streams the published conv networks fork right after their convolutions: the
// streams' hidden layers take the place of the trunk's last linear layer.
std::vector<LayerConfig> trunk_of(const NetworkConfig& config) {
  const bool fork_after_conv = config.dueling && config.dueling_hidden > 0;
  std::vector<LayerConfig> layers;
  if (config.preset == "mlp") {
    for (const std::int64_t width : config.hidden) {
      layers.push_back(layer("linear", width));
      layers.push_back(layer("relu"));
    }
  } else if (config.preset == "minatar") {
    layers = {layer("conv2d", 16, 3, 1), layer("relu")};
    if (!fork_after_conv) layers.insert(layers.end(), {layer("linear", 128), layer("relu")});
  } else if (config.preset == "nature") {
    layers = {layer("conv2d", 32, 8, 4), layer("relu"), layer("conv2d", 64, 4, 2), layer("relu"),
              layer("conv2d", 64, 3),    layer("relu")};
    if (!fork_after_conv) layers.insert(layers.end(), {layer("linear", 512), layer("relu")});
  } else if (config.preset == "custom") {
    layers = config.layers;
  } else {
    throw ConfigError(text("network preset '", config.preset, "' is none of mlp, minatar, nature, custom"));
  }
  return layers;
}

Layer build_layer(const LayerConfig& config, std::size_t index, const std::vector<std::int64_t>& in) {
  Layer built{.kind = LayerKind::linear, .in = in, .out = in};
  const auto wrong = [&](const std::string& why) {
    return ConfigError(text("network layer ", index, " (", config.kind, ") with input ", shape_text(in), ": ", why));
  };
  if (config.kind == "relu" || config.kind == "layer_norm") {
    built.kind = config.kind == "relu" ? LayerKind::relu : LayerKind::layer_norm;
    return built;
  }
  if (config.kind != "linear" && config.kind != "conv2d" && config.kind != "lstm") {
    throw wrong("the kind is none of linear, conv2d, relu, layer_norm, lstm");
  }
  if (config.out < 1) throw wrong(text("out is ", config.out, ", it must be at least 1"));
  if (config.kind != "conv2d") {
    built.kind = config.kind == "lstm" ? LayerKind::lstm : LayerKind::linear;
    built.out = {config.out};
    return built;
  }
  if (in.size() != 3) throw wrong("a convolution needs an input [C, H, W]");
  if (config.kernel < 1 || config.stride < 1) {
    throw wrong(text("kernel ", config.kernel, " and stride ", config.stride, " must be at least 1"));
  }
  if (config.kernel > in[1] || config.kernel > in[2]) {
    throw wrong(text("the kernel of ", config.kernel, " is larger than the input"));
  }
  built.kind = LayerKind::conv2d;
  built.kernel = config.kernel;
  built.stride = config.stride;
  built.out = {config.out, (in[1] - config.kernel) / config.stride + 1, (in[2] - config.kernel) / config.stride + 1};
  return built;
}

void add(std::vector<ParameterInfo>& layout, const std::string& name, std::vector<std::int64_t> weight,
         std::int64_t bias, std::int64_t fan_in) {
  const std::size_t offset = layout.empty() ? 0 : layout.back().offset + layout.back().elements();
  const auto weight_elements = static_cast<std::size_t>(product(weight));
  layout.push_back({name + ".weight", std::move(weight), offset, fan_in});
  layout.push_back({name + ".bias", {bias}, offset + weight_elements, fan_in});
}

}  // namespace

void LayerConfig::describe(ConfigVisitor& v) {
  v.field("kind", kind, "What the layer does.", {"linear", "conv2d", "relu", "layer_norm"});
  v.field("out", out, "Features of a linear layer, channels of a convolution; 0 for the others.", {.low = 0});
  v.field("kernel", kernel, "Side of a convolution's square window, in pixels; 0 for the others.", {.low = 0});
  v.field("stride", stride, "Stride of a convolution, in pixels.", {.low = 1});
}

void NetworkConfig::describe(ConfigVisitor& v) {
  v.field("preset", preset,
          "mlp: `hidden` linear layers with relu. minatar: conv 16 3x3, linear 128. nature: the Atari network of 2015. "
          "custom: `layers`.",
          {"mlp", "minatar", "nature", "custom"});
  v.field("hidden", hidden, "Widths of the mlp preset's layers.", {.low = 1});
  v.field("dueling", dueling, "Separate streams for the state's value and the actions' advantages.");
  v.field("dueling_hidden", dueling_hidden,
          "Width of a hidden layer in each dueling stream, 0 for none. In minatar and nature it takes the place of the "
          "trunk's last linear layer.",
          {.low = 0});
  v.field("input_scale", input_scale,
          "Multiplies observations. 0: 1 / upper bound of u8 observations, 1 for f32 observations.", {.low = 0});
  v.list("layers", layers, "The custom preset's trunk, first layer first; the head is added to it.");
}

std::vector<std::int64_t> NetworkSpec::stacked_shape() const {
  const auto& shape = input.shape;
  if (shape.empty()) return {stack};
  if (shape.size() == 1) return {stack * shape[0]};
  if (shape.size() == 2) return {stack, shape[0], shape[1]};
  return {stack * shape[0], shape[1], shape[2]};
}

std::int64_t NetworkSpec::stacked_features() const { return product(stacked_shape()); }

std::optional<std::size_t> NetworkSpec::lstm_layer() const {
  const auto found =
      std::find_if(layers.begin(), layers.end(), [](const Layer& l) { return l.kind == LayerKind::lstm; });
  if (found == layers.end()) return std::nullopt;
  return static_cast<std::size_t>(found - layers.begin());
}

std::int64_t NetworkSpec::trunk_features() const {
  return layers.empty() ? stacked_features() : product(layers.back().out);
}

NetworkSpec build_network(const NetworkConfig& config, const TensorSpec& input, std::int64_t stack, double input_high,
                          std::int64_t actions) {
  if (input.dtype != DType::u8 && input.dtype != DType::f32) {
    throw ConfigError(text("a network reads u8 or f32 observations, not ", input.describe()));
  }
  if (input.shape.size() > 3 || input.elements() == 0) {
    throw ConfigError(text("a network reads [F], [H, W] or [C, H, W] observations, not ", input.describe()));
  }
  if (stack < 1 || actions < 1) {
    throw ConfigError(text("stack ", stack, " and actions ", actions, " must be at least 1"));
  }
  if (config.input_scale == 0 && input.dtype == DType::u8 && !(input_high > 0)) {
    throw ConfigError(text("input_scale 0 needs an upper bound of the observation above 0, not ", input_high));
  }
  const double automatic = input.dtype == DType::u8 ? 1 / input_high : 1;
  NetworkSpec spec{.input = input,
                   .stack = stack,
                   .input_scale = static_cast<float>(config.input_scale != 0 ? config.input_scale : automatic),
                   .layers = {},
                   .dueling = config.dueling,
                   .dueling_hidden = config.dueling ? config.dueling_hidden : 0,
                   .actions = actions};
  std::vector<std::int64_t> shape = spec.stacked_shape();
  for (const LayerConfig& entry : trunk_of(config)) {
    const bool after_lstm = !spec.layers.empty() && spec.layers.back().kind == LayerKind::lstm;
    if (entry.kind == "lstm" && spec.lstm_layer()) {
      throw ConfigError(text("network layer ", spec.layers.size(), " is a second lstm, one is the most"));
    }
    if (entry.kind == "relu" && after_lstm) {
      throw ConfigError(text("network layer ", spec.layers.size(), " is a relu on an lstm, which is not supported"));
    }
    spec.layers.push_back(build_layer(entry, spec.layers.size(), shape));
    shape = spec.layers.back().out;
  }
  return spec;
}

std::size_t ParameterInfo::elements() const { return static_cast<std::size_t>(product(shape)); }

std::vector<ParameterInfo> parameter_layout(const NetworkSpec& spec) {
  std::vector<ParameterInfo> layout;
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const Layer& l = spec.layers[i];
    const std::string name = "layers." + std::to_string(i);
    const std::int64_t in = product(l.in);
    if (l.kind == LayerKind::linear) add(layout, name, {in, l.out[0]}, l.out[0], in);
    if (l.kind == LayerKind::conv2d) {
      add(layout, name, {l.out[0], l.in[0], l.kernel, l.kernel}, l.out[0], l.in[0] * l.kernel * l.kernel);
    }
    if (l.kind == LayerKind::layer_norm) add(layout, name, {in}, in, 0);
    if (l.kind == LayerKind::lstm) {
      const std::int64_t hidden = l.out[0];
      add(layout, name + ".input", {in + spec.actions + 1, 4 * hidden}, 4 * hidden, hidden);
      add(layout, name + ".recurrent", {hidden, 4 * hidden}, 4 * hidden, hidden);
    }
  }
  const std::int64_t trunk = spec.trunk_features();
  if (!spec.dueling) {
    add(layout, "q", {trunk, spec.actions}, spec.actions, trunk);
    return layout;
  }
  std::int64_t stream = trunk;
  if (spec.dueling_hidden > 0) {
    stream = spec.dueling_hidden;
    add(layout, "value_hidden", {trunk, stream}, stream, trunk);
    add(layout, "advantage_hidden", {trunk, stream}, stream, trunk);
  }
  add(layout, "value", {stream, 1}, 1, stream);
  add(layout, "advantage", {stream, spec.actions}, spec.actions, stream);
  return layout;
}

std::size_t parameter_count(const NetworkSpec& spec) {
  const auto layout = parameter_layout(spec);
  return layout.back().offset + layout.back().elements();
}

std::uint64_t layout_hash(const NetworkSpec& spec) {
  std::string words;
  for (const auto& tensor : parameter_layout(spec)) {
    words += tensor.name;
    for (const auto extent : tensor.shape) words += text(' ', extent);
    words += ';';
  }
  return checksum(std::as_bytes(std::span(words)));
}

void initialise(const NetworkSpec& spec, Rng& rng, std::span<float> parameters) {
  assert(parameters.size() == parameter_count(spec));
  for (const ParameterInfo& info : parameter_layout(spec)) {
    const auto values = parameters.subspan(info.offset, info.elements());
    if (info.fan_in == 0) {
      std::fill(values.begin(), values.end(), info.name.ends_with(".weight") ? 1.0f : 0.0f);
      continue;
    }
    const double bound = 1 / std::sqrt(static_cast<double>(info.fan_in));
    for (float& value : values) value = static_cast<float>(rng.uniform(-bound, bound));
  }
}

}  // namespace qanat::nn
