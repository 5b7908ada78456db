// A Q-network as plain data: settings, the checked description made from them, and the canonical layout of
// its parameters.
//
// Everything here is values and pure functions: thread safe, nothing owned. Backends (nn/backend.h) run a
// NetworkSpec; they never see settings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/rng.h"
#include "core/tensor.h"

namespace qanat::nn {

// One entry of a custom network's trunk.
struct LayerConfig {
  std::string kind = "linear";  // linear | conv2d | relu | layer_norm; from code also lstm
  std::int64_t out = 0;         // linear, lstm: features; conv2d: channels
  std::int64_t kernel = 0;      // conv2d: side of the square window
  std::int64_t stride = 1;      // conv2d
  void describe(ConfigVisitor& v);
};

struct NetworkConfig {
  std::string preset = "mlp";  // mlp | minatar | nature | custom
  std::vector<std::int64_t> hidden = {256, 256};
  bool dueling = false;
  std::int64_t dueling_hidden = 0;
  double input_scale = 0;  // 0: 1 / upper bound of u8 observations, 1 for f32
  std::vector<LayerConfig> layers = {};
  void describe(ConfigVisitor& v);
};

enum class LayerKind : std::uint8_t { linear, conv2d, relu, layer_norm, lstm };

// Shapes without the batch: [F] or [C, H, W]. A linear layer, a layer norm and an lstm read a [C, H, W] input flat, in
// that order. An lstm (Gers et al., "Learning to Forget", 2000, gates as PyTorch orders them: input, forget, cell,
// output) also reads the last action, one-hot, and the last reward: actions + 1 more features. At most one a network.
struct Layer {
  LayerKind kind = LayerKind::linear;
  std::vector<std::int64_t> in = {};
  std::vector<std::int64_t> out = {};
  std::int64_t kernel = 0;  // conv2d: square window, no padding
  std::int64_t stride = 1;
};

// What a backend builds. The network maps a stacked observation to one Q-value an action:
//   trunk layers, then  q = linear(trunk)                                         without dueling
//                   or  q = v + a - mean(a), v and a linear(relu(linear(trunk)))   with dueling
// where the inner linear and relu are left out when dueling_hidden is 0 (Wang et al., "Dueling Network
// Architectures for Deep Reinforcement Learning", 2016, eq. 9).
struct NetworkSpec {
  TensorSpec input;        // one stored row: [F], [H, W] or [C, H, W], u8 or f32
  std::int64_t stack = 1;  // rows a sample is made of, oldest first
  float input_scale = 1;   // multiplies every element of the input
  std::vector<Layer> layers;
  bool dueling = false;
  std::int64_t dueling_hidden = 0;
  std::int64_t actions = 0;

  // [F*K], or [K*C, H, W] where an [H, W] row counts as one channel.
  [[nodiscard]] std::vector<std::int64_t> stacked_shape() const;
  [[nodiscard]] std::int64_t stacked_features() const;
  // The index of the lstm among the layers; none in a feed-forward network.
  [[nodiscard]] std::optional<std::size_t> lstm_layer() const;
  // What leaves the trunk, flat.
  [[nodiscard]] std::int64_t trunk_features() const;
};

// `input_high` is the upper bound of u8 observations (255 for pixels, 1 for MinAtar's planes).
// Throws ConfigError, naming the layer's index and the shapes, when the parts do not fit.
[[nodiscard]] NetworkSpec build_network(const NetworkConfig& config, const TensorSpec& input, std::int64_t stack,
                                        double input_high, std::int64_t actions);

// One tensor of the canonical layout: a flat f32 block, conv2d weights OIHW, linear weights [in, out].
// Names: "layers.I.weight" and ".bias" (I indexes NetworkSpec::layers), then "q" or "value_hidden",
// "advantage_hidden", "value" and "advantage". An lstm of H features has "layers.I.input.weight" [in + actions + 1, 4
// H], "layers.I.recurrent.weight" [H, 4 H] and a bias after each, as PyTorch has; columns are gates times features.
struct ParameterInfo {
  std::string name;
  std::vector<std::int64_t> shape;
  std::size_t offset = 0;   // elements from the block's start
  std::int64_t fan_in = 0;  // initial values are from U(-1/sqrt(fan_in), 1/sqrt(fan_in)); 0: a layer norm's 1 and 0

  [[nodiscard]] std::size_t elements() const;
};

[[nodiscard]] std::vector<ParameterInfo> parameter_layout(const NetworkSpec& spec);
[[nodiscard]] std::size_t parameter_count(const NetworkSpec& spec);

// Hash of the layout's names and shapes: weights of another network are told apart by it.
[[nodiscard]] std::uint64_t layout_hash(const NetworkSpec& spec);

// PyTorch's default: weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)); layer norm 1 and 0. All of an lstm
// counts its hidden features as fan_in.
// Precondition: parameters.size() == parameter_count(spec).
void initialise(const NetworkSpec& spec, Rng& rng, std::span<float> parameters);

}  // namespace qanat::nn
