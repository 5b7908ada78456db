// A network as the sequence of steps a backend takes: buffers of activations, and for each step where it reads,
// where it writes and which parameters it uses. Made once, from a NetworkSpec; every backend runs the same plan.
//
// Plain data and a pure function. Thread safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "nn/network.h"

namespace qanat::nn {

// Some features of one buffer. Two dueling streams are two views of one buffer.
struct View {
  std::size_t buffer = 0;
  std::int64_t offset = 0;
  std::int64_t features = 0;
};

struct ConvShape {
  std::int64_t in_channels = 0, in_height = 0, in_width = 0;
  std::int64_t out_channels = 0, out_height = 0, out_width = 0;
  std::int64_t kernel = 0, stride = 1;
};

enum class StepKind : std::uint8_t { linear, conv2d, layer_norm, relu, dueling, lstm };

struct Step {
  StepKind kind = StepKind::linear;
  View in = {};
  View out = {};
  ConvShape conv = {};     // conv2d only
  std::size_t weight = 0;  // index into Plan::parameters; layer norm: the gain; lstm: the input's
  std::size_t bias = 0;
  std::size_t recurrent_weight = 0;  // lstm only
  std::size_t recurrent_bias = 0;
  bool relu = false;  // max(0, .) in the epilogue of this step

  // Backward: whether the gradient with respect to `in` is needed (not for the observation), whether `in` holds
  // values that went through a relu (then the gradient is masked by in > 0), and whether it adds to what a step
  // after this one has left there.
  bool input_gradient = false;
  bool input_is_relu = false;
  bool accumulate = false;
};

struct Plan {
  std::vector<std::int64_t> buffers;  // features of each; buffer 0 is the scaled, stacked observation
  std::vector<Step> steps;            // in forward order
  View q;                             // [actions], written by the last step
  std::vector<ParameterInfo> parameters;
  std::size_t parameter_count = 0;
};

// What a buffer of one pass holds: what the steps computed, or the gradients with respect to that.
enum class Holds : std::uint8_t { values, gradients };

[[nodiscard]] Plan make_plan(const NetworkSpec& spec);

}  // namespace qanat::nn
