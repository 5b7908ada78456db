#include "nn/cuda/layout.h"

#include "nn/cuda/nature/layout.h"

namespace qanat::nn::cuda {
namespace {

ViewLayout flat(std::int64_t features) {
  return {.pixels = 1, .channels = features, .padded_channels = padded(features)};
}

ViewLayout image(std::int64_t channels, std::int64_t height, std::int64_t width) {
  return {.pixels = height * width, .channels = channels, .padded_channels = padded(channels)};
}

bool keeps_layout(const Step& step) { return step.kind == StepKind::relu || step.kind == StepKind::layer_norm; }

std::pair<std::size_t, std::int64_t> key(const View& view) { return {view.buffer, view.offset}; }

}  // namespace

NetworkLayout::NetworkLayout(const NetworkSpec& spec, const Plan& plan, bool nature_torso)
    : nature_torso_(nature_torso),
      widths_(plan.buffers.size()),
      offsets_(plan.parameters.size()),
      elements_(plan.parameter_count) {
  lay_out_views(spec, plan);
  lay_out_buffers();
  lay_out_linears(plan);
  lay_out_parameters(spec, plan);
}

// Convolutions decide; layers that work element by element pass the decision on; the rest is flat.
void NetworkLayout::lay_out_views(const NetworkSpec& spec, const Plan& plan) {
  lay_out_input(spec, plan);
  for (const Step& step : plan.steps) {
    if (step.kind != StepKind::conv2d) continue;
    const ConvShape& c = step.conv;
    views_.insert({key(step.in), image(c.in_channels, c.in_height, c.in_width)});
    const auto out = views_.insert({key(step.out), image(c.out_channels, c.out_height, c.out_width)});
    out.first->second.planes = nature_torso_;
    ConvLayout conv{.in_height = c.in_height,
                    .in_width = c.in_width,
                    .in_channels = padded(c.in_channels),
                    .out_height = c.out_height,
                    .out_width = c.out_width,
                    .out_channels = padded(c.out_channels),
                    .kernel = c.kernel,
                    .stride = c.stride};
    if (step.in.buffer == 0 && input_.block > 1) {
      conv.in_height = input_.rows;
      conv.in_width = input_.columns;
      conv.in_channels = views_.at(key(step.in)).padded_channels;
      conv.kernel = c.kernel / c.stride;
      conv.stride = 1;
    }
    convs_[step.weight] = conv;
  }
  for (auto step = plan.steps.rbegin(); step != plan.steps.rend(); ++step) {
    const auto out = views_.find(key(step->out));
    if (keeps_layout(*step) && out != views_.end()) views_.insert({key(step->in), out->second});
  }
  for (const Step& step : plan.steps) {
    views_.insert({key(step.in), flat(step.in.features)});
    const ViewLayout in = views_.at(key(step.in));
    views_.insert({key(step.out), keeps_layout(step) ? in : flat(step.out.features)});
  }
}

void NetworkLayout::lay_out_input(const NetworkSpec& spec, const Plan& plan) {
  const std::vector<std::int64_t> shape = spec.stacked_shape();
  const Step* conv = nullptr;
  for (const Step& step : plan.steps) {
    if (step.kind == StepKind::conv2d) conv = &step;
    if (!keeps_layout(step)) break;
  }
  if (conv == nullptr) return;
  input_ = {.image = true,
            .channels = shape[0],
            .height = shape[1],
            .width = shape[2],
            .block = 1,
            .rows = shape[1],
            .columns = shape[2]};
  const ConvShape& c = conv->conv;
  if (conv->in.buffer != 0 || c.stride == 1 || c.kernel % c.stride != 0) return;
  input_.block = c.stride;
  input_.rows = c.out_height - 1 + c.kernel / c.stride;
  input_.columns = c.out_width - 1 + c.kernel / c.stride;
  views_.insert({key(conv->in), image(shape[0] * c.stride * c.stride, input_.rows, input_.columns)});
}

// Offsets: views of a buffer stand one after the other in the order of their features. A step that reads two of them as
// one (dueling) starts where the first does, and is no view of its own.
void NetworkLayout::lay_out_buffers() {
  for (auto& [where, layout] : views_) {
    layout.offset = widths_[where.first];
    widths_[where.first] += layout.width();
  }
}

void NetworkLayout::lay_out_linears(const Plan& plan) {
  const Step* first = nullptr;
  for (const Step& step : plan.steps) {
    if (step.kind != StepKind::linear) {
      first = nullptr;
      continue;
    }
    const ViewLayout in = view(step.in);
    const ViewLayout out = view(step.out);
    LinearLayout layout{.in = in, .out = out, .accumulate = step.accumulate};
    const bool joins = first != nullptr && key(first->in) == key(step.in) && first->out.buffer == step.out.buffer &&
                       first->relu == step.relu;
    if (joins) {
      LinearLayout& group = linears_.at(first->weight);
      group.out.padded_channels += out.padded_channels;
      group.accumulate = step.accumulate;  // backward this step comes first
      layout.absorbed = true;
    } else {
      first = &step;
    }
    linears_[step.weight] = layout;
  }
}

std::size_t NetworkLayout::take(std::int64_t elements) {
  const std::size_t start = block_size_;
  block_size_ += static_cast<std::size_t>((elements + 63) / 64 * 64);
  return start;
}

void NetworkLayout::lay_out_parameters(const NetworkSpec& spec, const Plan& plan) {
  LinearLayout* group = nullptr;
  if (nature_torso_) {
    const std::size_t start = take(nature::dense);
    for (std::size_t i = 0; i < nature::dense; ++i) elements_[i] = static_cast<std::uint32_t>(start + i);
  }
  for (const Step& step : plan.steps) {
    switch (step.kind) {
      case StepKind::linear: {
        LinearLayout& own = linears_.at(step.weight);
        if (!own.absorbed) {
          group = &own;
          group->weight = take(own.in.width() * own.out.width());
          group->bias = take(own.out.width());
        } else {
          own.bias = group->bias + static_cast<std::size_t>(own.out.offset - group->out.offset);
        }
        map_linear(plan, step, *group, own.out.offset - group->out.offset);
        break;
      }
      case StepKind::conv2d: {
        if (nature_torso_) break;  // there are no others
        const ConvLayout& c = conv(step);
        offsets_[step.weight] = take(c.out_channels * c.kernel * c.kernel * c.in_channels);
        offsets_[step.bias] = take(c.out_channels);
        map_conv(plan, step);
        break;
      }
      case StepKind::layer_norm:
        offsets_[step.weight] = take(view(step.in).width());
        offsets_[step.bias] = take(view(step.in).width());
        map_norm(plan, step);
        break;
      case StepKind::lstm:
        lay_out_lstm(spec, plan, step);
        break;
      case StepKind::relu:
      case StepKind::dueling:
        break;
    }
  }
}

// Canonical columns are gate * features + feature.
void NetworkLayout::lay_out_lstm(const NetworkSpec& spec, const Plan& plan, const Step& step) {
  const std::int64_t features = step.out.features;
  lstm_ = {.in = view(step.in), .features = features, .row = padded(features)};
  const std::int64_t below = lstm_.in.width();
  const std::int64_t gates = 4 * lstm_.row;
  lstm_.input = take(lstm_input_rows(below, spec.actions) * gates);
  lstm_.recurrent = take(gates * lstm_.row);
  const auto elements_of = [&](std::size_t parameter) { return elements_.data() + plan.parameters[parameter].offset; };
  const auto map_row = [&](std::uint32_t* to, std::int64_t row) {
    for (std::int64_t c = 0; c < 4 * features; ++c) {
      const std::int64_t column = c % features * 4 + c / features;
      to[c] = static_cast<std::uint32_t>(lstm_.input + static_cast<std::size_t>(row * gates + column));
    }
  };
  std::uint32_t* input = elements_of(step.weight);
  for (std::int64_t i = 0; i < step.in.features + spec.actions + 1; ++i) {
    const bool extra = i >= step.in.features;
    map_row(input + i * 4 * features, extra ? below + i - step.in.features : lstm_.in.position(i));
  }
  map_row(elements_of(step.bias), below + spec.actions + 1);
  map_row(elements_of(step.recurrent_bias), below + spec.actions + 2);
  std::uint32_t* recurrent = elements_of(step.recurrent_weight);
  for (std::int64_t k = 0; k < features; ++k) {
    for (std::int64_t c = 0; c < 4 * features; ++c) {
      const std::int64_t row = c % features * 4 + c / features;
      *recurrent++ = static_cast<std::uint32_t>(lstm_.recurrent + static_cast<std::size_t>(row * lstm_.row + k));
    }
  }
}

void NetworkLayout::map_linear(const Plan& plan, const Step& step, const LinearLayout& group,
                               std::int64_t first_column) {
  std::uint32_t* weight = elements_.data() + plan.parameters[step.weight].offset;  // [in, out]
  std::uint32_t* bias = elements_.data() + plan.parameters[step.bias].offset;
  const std::int64_t outputs = step.out.features;
  for (std::int64_t i = 0; i < step.in.features; ++i) {
    const std::size_t row = group.weight + static_cast<std::size_t>(group.in.position(i) * group.out.width());
    for (std::int64_t o = 0; o < outputs; ++o) {
      weight[i * outputs + o] = static_cast<std::uint32_t>(row + static_cast<std::size_t>(first_column + o));
    }
  }
  for (std::int64_t o = 0; o < outputs; ++o) {
    bias[o] = static_cast<std::uint32_t>(group.bias + static_cast<std::size_t>(first_column + o));
  }
}

// Canonical [O, I, k, k]; ours [O][ky][kx][I], each kernel position split into block and place in the block.
void NetworkLayout::map_conv(const Plan& plan, const Step& step) {
  const ConvShape& c = step.conv;
  const ConvLayout& l = conv(step);
  const std::int64_t block = c.kernel / l.kernel;
  std::uint32_t* weight = elements_.data() + plan.parameters[step.weight].offset;
  std::uint32_t* bias = elements_.data() + plan.parameters[step.bias].offset;
  for (std::int64_t o = 0; o < c.out_channels; ++o) {
    for (std::int64_t i = 0; i < c.in_channels; ++i) {
      for (std::int64_t ky = 0; ky < c.kernel; ++ky) {
        for (std::int64_t kx = 0; kx < c.kernel; ++kx) {
          const std::int64_t channel = (ky % block * block + kx % block) * c.in_channels + i;
          const std::int64_t at = ((o * l.kernel + ky / block) * l.kernel + kx / block) * l.in_channels + channel;
          *weight++ = static_cast<std::uint32_t>(offsets_[step.weight] + static_cast<std::size_t>(at));
        }
      }
    }
    bias[o] = static_cast<std::uint32_t>(offsets_[step.bias] + static_cast<std::size_t>(o));
  }
}

void NetworkLayout::map_norm(const Plan& plan, const Step& step) {
  const ViewLayout in = view(step.in);
  for (const std::size_t parameter : {step.weight, step.bias}) {
    std::uint32_t* elements = elements_.data() + plan.parameters[parameter].offset;
    for (std::int64_t f = 0; f < step.in.features; ++f) {
      elements[f] = static_cast<std::uint32_t>(offsets_[parameter] + static_cast<std::size_t>(in.position(f)));
    }
  }
}

}  // namespace qanat::nn::cuda
