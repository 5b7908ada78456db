#include "nn/plan.h"

#include <set>

namespace qanat::nn {
namespace {

class Builder {
 public:
  explicit Builder(const NetworkSpec& spec) {
    plan_.parameters = parameter_layout(spec);
    plan_.parameter_count = parameter_count(spec);
    View at = new_buffer(spec.stacked_features());
    for (const Layer& layer : spec.layers) at = add_layer(layer, at);
    if (spec.dueling) {
      add_dueling(spec, at);
    } else {
      plan_.q = new_buffer(spec.actions);
      add({.kind = StepKind::linear, .in = at, .out = plan_.q}, true);
    }
    mark_backward();
  }

  Plan take() { return std::move(plan_); }

 private:
  View new_buffer(std::int64_t features) {
    plan_.buffers.push_back(features);
    return {.buffer = plan_.buffers.size() - 1, .offset = 0, .features = features};
  }

  void add(Step step, bool parameters) {
    if (parameters) {
      step.weight = next_parameter_++;
      step.bias = next_parameter_++;
    }
    if (step.kind == StepKind::lstm) {
      step.recurrent_weight = next_parameter_++;
      step.recurrent_bias = next_parameter_++;
    }
    plan_.steps.push_back(step);
  }

  View add_layer(const Layer& layer, View in) {
    // A relu is folded into the step before it, whatever that is; only one on the bare observation stands alone.
    if (layer.kind == LayerKind::relu && !plan_.steps.empty()) {
      plan_.steps.back().relu = true;
      return in;
    }
    std::int64_t features = 1;
    for (const std::int64_t side : layer.out) features *= side;
    Step step{.in = in, .out = new_buffer(features)};
    switch (layer.kind) {
      case LayerKind::linear:
        step.kind = StepKind::linear;
        break;
      case LayerKind::layer_norm:
        step.kind = StepKind::layer_norm;
        break;
      case LayerKind::relu:
        step.kind = StepKind::relu;
        step.relu = true;
        break;
      case LayerKind::lstm:
        step.kind = StepKind::lstm;
        break;
      case LayerKind::conv2d:
        step.kind = StepKind::conv2d;
        step.conv = {.in_channels = layer.in[0],
                     .in_height = layer.in[1],
                     .in_width = layer.in[2],
                     .out_channels = layer.out[0],
                     .out_height = layer.out[1],
                     .out_width = layer.out[2],
                     .kernel = layer.kernel,
                     .stride = layer.stride};
        break;
    }
    add(step, layer.kind != LayerKind::relu);
    return step.out;
  }

  // Both streams write one buffer, value first, so that the combining step reads one view.
  void add_dueling(const NetworkSpec& spec, View trunk) {
    View value = trunk;
    View advantage = trunk;
    if (spec.dueling_hidden > 0) {
      const std::int64_t width = spec.dueling_hidden;
      const View hidden = new_buffer(2 * width);
      value = {.buffer = hidden.buffer, .offset = 0, .features = width};
      advantage = {.buffer = hidden.buffer, .offset = width, .features = width};
      add({.kind = StepKind::linear, .in = trunk, .out = value, .relu = true}, true);
      add({.kind = StepKind::linear, .in = trunk, .out = advantage, .relu = true}, true);
    }
    const View streams = new_buffer(1 + spec.actions);
    const View v{.buffer = streams.buffer, .offset = 0, .features = 1};
    const View a{.buffer = streams.buffer, .offset = 1, .features = spec.actions};
    add({.kind = StepKind::linear, .in = value, .out = v}, true);
    add({.kind = StepKind::linear, .in = advantage, .out = a}, true);
    plan_.q = new_buffer(spec.actions);
    add({.kind = StepKind::dueling, .in = streams, .out = plan_.q}, false);
  }

  void mark_backward() {
    std::set<std::size_t> relu_buffers;
    for (const Step& step : plan_.steps) {
      if (step.relu) relu_buffers.insert(step.out.buffer);
    }
    std::set<std::pair<std::size_t, std::int64_t>> written;
    for (auto step = plan_.steps.rbegin(); step != plan_.steps.rend(); ++step) {
      step->input_gradient = step->in.buffer != 0;
      step->input_is_relu = relu_buffers.contains(step->in.buffer);
      step->accumulate = !written.insert({step->in.buffer, step->in.offset}).second;
    }
  }

  Plan plan_;
  std::size_t next_parameter_ = 0;
};

}  // namespace

Plan make_plan(const NetworkSpec& spec) { return Builder(spec).take(); }

}  // namespace qanat::nn
