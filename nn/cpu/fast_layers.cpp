// The fast backend's layers: each is a problem of tiles or dots, described and handed to the kernels.
#include <algorithm>

#include "nn/cpu/fast.h"

namespace qanat::nn {

using cpu::panel_lanes;

namespace {

constexpr std::int64_t no_offset = 0;
constexpr std::int64_t inputs_at_once = 128;  // 16 KB of a panel

std::int64_t panels_of(std::int64_t samples) { return (samples + panel_lanes - 1) / panel_lanes; }

void set_delta_epilogue(const Step& step, const float* in, cpu::TileProblem& problem) {
  problem.mask = step.input_is_relu ? in : nullptr;
  problem.add = step.accumulate;
}

// Calls work(first panel, samples from there on) for two panels at a time, the widest tile's columns.
template <class Work>
void for_panel_pairs(std::int64_t samples, Work work) {
  constexpr std::int64_t pair = 2 * panel_lanes;
  for (std::int64_t first = 0; first < samples; first += pair) {
    work(first / panel_lanes, std::min(samples - first, pair));
  }
}

}  // namespace

// The sum over inputs is cut into blocks that fit the nearest cache with their weights; a block goes on from where the
// last one stopped, so that the order of the sum is that of one long one.
void FastOps::linear(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples) {
  const std::int64_t weight_row = slots_[step.weight].row;
  cpu::TileProblem problem{.reduction = {.weight_offset = &no_offset,
                                         .x_offset = &no_offset,
                                         .segments = 1,
                                         .weight_step = weight_row,
                                         .x_step = panel_lanes},
                           .rows = step.out.features,
                           .x_group = in.panel_step(),
                           .y_group = out.panel_step(),
                           .weight_row = 1,
                           .y_row = panel_lanes,
                           .bias = parameter(p, step.bias)};
  for_panel_pairs(samples, [&](std::int64_t panel, std::int64_t lanes) {
    if (lanes <= few_samples && cpu::wide_row(step.out.features)) {
      linear_of_few(step, p, in.at(panel, step.in), out.at(panel, step.out), lanes);
      return;
    }
    problem.y = out.at(panel, step.out);
    problem.columns = lanes;
    for (std::int64_t first = 0; first < step.in.features; first += inputs_at_once) {
      problem.x = in.at(panel, step.in) + first * panel_lanes;
      problem.weight = parameter(p, step.weight) + first * weight_row;
      problem.reduction.count = std::min(step.in.features - first, inputs_at_once);
      problem.resume = first > 0;
      problem.relu = step.relu && first + inputs_at_once >= step.in.features;
      cpu::run_tiles(problem);
    }
  });
}

// The other way round: samples are the tile's rows, outputs its lanes. Half-empty vectors of samples would cost as much
// as full ones; and weights are read in whole cache lines. The order of each sum is the same.
void FastOps::linear_of_few(const Step& step, const Block& p, const float* in, float* out, std::int64_t samples) {
  const std::int64_t row = slots_[step.weight].row;
  begin_few(parameter(p, step.bias), step.out.features, row, samples);
  for (std::int64_t first = 0; first < step.in.features; first += inputs_at_once) {
    cpu::run_tiles({.weight = in + first * panel_lanes,
                    .x = parameter(p, step.weight) + first * row,
                    .y = few_outputs_,
                    .reduction = {.weight_offset = &no_offset,
                                  .x_offset = &no_offset,
                                  .segments = 1,
                                  .count = std::min(step.in.features - first, inputs_at_once),
                                  .weight_step = panel_lanes,
                                  .x_step = row},
                    .rows = samples,
                    .columns = step.out.features,
                    .weight_row = 1,
                    .y_row = row,
                    .relu = step.relu && first + inputs_at_once >= step.in.features,
                    .resume = true});
  }
  end_few(step.out.features, 1, row, samples, out);
}

void FastOps::begin_few(const float* bias, std::int64_t outputs, std::int64_t row, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) std::copy_n(bias, outputs, few_outputs_ + i * row);
}

void FastOps::end_few(std::int64_t outputs, std::int64_t pixels, std::int64_t row, std::int64_t samples, float* out) {
  for (std::int64_t o = 0; o < outputs; ++o) {
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
      float* to = out + (o * pixels + pixel) * panel_lanes;
      for (std::int64_t b = 0; b < samples; ++b) to[b] = few_outputs_[(b * pixels + pixel) * row + o];
    }
  }
}

void FastOps::linear_input_gradient(const Step& step, const Block& p, const Activations& in,
                                    const Activations& out_delta, Activations& in_delta, std::int64_t samples) {
  cpu::TileProblem problem{.weight = parameter(p, step.weight),
                           .reduction = {.weight_offset = &no_offset,
                                         .x_offset = &no_offset,
                                         .segments = 1,
                                         .count = step.out.features,
                                         .weight_step = 1,
                                         .x_step = panel_lanes},
                           .rows = step.in.features,
                           .x_group = out_delta.panel_step(),
                           .y_group = in_delta.panel_step(),
                           .weight_row = slots_[step.weight].row,
                           .y_row = panel_lanes};
  for_panel_pairs(samples, [&](std::int64_t panel, std::int64_t lanes) {
    problem.x = out_delta.at(panel, step.out);
    problem.y = in_delta.at(panel, step.in);
    problem.columns = lanes;
    set_delta_epilogue(step, in.at(panel, step.in), problem);
    cpu::run_tiles(problem);
  });
}

void FastOps::linear_weight_gradient(const Step& step, const Activations& in, const Activations& out_delta,
                                     Block& gradients, std::int64_t samples) {
  const std::int64_t panels = panels_of(samples);
  const Slot& slot = slots_[step.weight];
  cpu::sum_lanes(out_delta.at(0, step.out), step.out.features, 1, panels, out_delta.panel_step(),
                 parameter(gradients, step.bias));
  if (!cpu::wide_row(step.out.features)) {
    // Too few outputs to fill vectors: lanes stay samples, and are summed at the end.
    std::vector<std::int64_t> columns(static_cast<std::size_t>(step.out.features));
    for (std::size_t o = 0; o < columns.size(); ++o) columns[o] = static_cast<std::int64_t>(o) * panel_lanes;
    cpu::run_dots({.a = in.at(0, step.in),
                   .b = out_delta.at(0, step.out),
                   .y = parameter(gradients, step.weight),
                   .rows = step.in.features,
                   .columns = step.out.features,
                   .a_row = panel_lanes,
                   .b_column = columns.data(),
                   .a_point = &no_offset,
                   .b_point = &no_offset,
                   .panels = panels,
                   .a_panel = in.panel_step(),
                   .b_panel = out_delta.panel_step(),
                   .y_row = slot.row});
    return;
  }
  // Outputs become the lanes: the deltas are turned over, samples first, in dense groups of 32 outputs, and one
  // segment is one panel.
  constexpr std::int64_t square = panel_lanes * panel_lanes;
  std::vector<std::int64_t> in_panel, delta_panel;
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    for (std::int64_t o = 0; o < step.out.features; o += panel_lanes) {
      float* turned = transposed_ + (o / panel_lanes * panels + panel) * square;
      const std::int64_t width = std::min(step.out.features - o, panel_lanes);
      cpu::transpose_panel(out_delta.at(panel, step.out) + o * panel_lanes, width, turned, panel_lanes);
      for (std::int64_t lane = 0; lane < panel_lanes && width < panel_lanes; ++lane) {
        std::fill(turned + lane * panel_lanes + width, turned + (lane + 1) * panel_lanes, 0.0f);
      }
    }
    in_panel.push_back(panel * in.panel_step());
    delta_panel.push_back(panel * square);
  }
  cpu::run_tiles({.weight = in.at(0, step.in),
                  .x = transposed_,
                  .y = parameter(gradients, step.weight),
                  .reduction = {.weight_offset = in_panel.data(),
                                .x_offset = delta_panel.data(),
                                .segments = panels,
                                .count = panel_lanes,
                                .weight_step = 1,
                                .x_step = panel_lanes},
                  .rows = step.in.features,
                  .columns = step.out.features,
                  .x_group = panels * square,
                  .weight_row = panel_lanes,
                  .y_row = slot.row});
}

void FastOps::conv2d(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples) {
  const ConvTables& t = tables(step);
  const ConvShape& c = step.conv;
  cpu::TileProblem problem{.weight = parameter(p, step.weight),
                           .reduction = {.weight_offset = t.tap_weight.data(),
                                         .x_offset = t.tap_in.data(),
                                         .segments = static_cast<std::int64_t>(t.tap_weight.size()),
                                         .count = c.kernel,
                                         .weight_step = 1,
                                         .x_step = panel_lanes},
                           .rows = c.out_channels,
                           .x_group = in.panel_step(),
                           .y_group = out.panel_step(),
                           .weight_row = c.in_channels * c.kernel * c.kernel,
                           .y_row = c.out_height * c.out_width * panel_lanes,
                           .points = c.out_height * c.out_width,
                           .x_point = t.in_pixel.data(),
                           .y_point = t.out_pixel.data(),
                           .bias = parameter(p, step.bias),
                           .relu = step.relu};
  for_panel_pairs(samples, [&](std::int64_t panel, std::int64_t lanes) {
    if (lanes <= few_images && cpu::wide_row(c.out_channels)) {
      conv2d_of_few(step, p, in.at(panel, step.in), out.at(panel, step.out), lanes);
      return;
    }
    problem.x = in.at(panel, step.in);
    problem.y = out.at(panel, step.out);
    problem.columns = lanes;
    cpu::run_tiles(problem);
  });
}

// As linear_of_few: an image's pixels are the tile's rows, their channels the lanes. The weights are turned over each
// time, since an update may have changed them.
void FastOps::conv2d_of_few(const Step& step, const Block& p, const float* in, float* out, std::int64_t samples) {
  const ConvTables& t = tables(step);
  const ConvShape& c = step.conv;
  const std::int64_t row = cpu::padded_row(c.out_channels);
  const std::int64_t taps = c.in_channels * c.kernel * c.kernel;
  const std::int64_t inputs = c.in_channels * c.in_height * c.in_width;
  const std::int64_t pixels = c.out_height * c.out_width;
  const float* weight = parameter(p, step.weight);
  for (std::int64_t o = 0; o < c.out_channels; ++o) {
    for (std::int64_t tap = 0; tap < taps; ++tap) few_weights_[tap * row + o] = weight[o * taps + tap];
  }
  for (std::int64_t i = 0; i < inputs; ++i) {
    for (std::int64_t b = 0; b < samples; ++b) few_inputs_[b * inputs + i] = in[i * panel_lanes + b];
  }
  begin_few(parameter(p, step.bias), c.out_channels, row, samples * pixels);
  for (std::int64_t b = 0; b < samples; ++b) {
    float* image = few_outputs_ + b * pixels * row;
    for (std::int64_t y = 0; y < c.out_height; ++y) {
      cpu::run_tiles({.weight = few_inputs_ + b * inputs + y * c.stride * c.in_width,
                      .x = few_weights_,
                      .y = image + y * c.out_width * row,
                      .reduction = {.weight_offset = t.few_in.data(),
                                    .x_offset = t.few_weight.data(),
                                    .segments = c.in_channels * c.kernel,
                                    .count = c.kernel,
                                    .weight_step = 1,
                                    .x_step = row},
                      .rows = c.out_width,
                      .columns = c.out_channels,
                      .weight_row = c.stride,
                      .y_row = row,
                      .relu = step.relu,
                      .resume = true});
    }
  }
  end_few(c.out_channels, pixels, row, samples, out);
}

void FastOps::conv2d_weight_gradient(const Step& step, const Activations& in, const Activations& out_delta,
                                     Block& gradients, std::int64_t samples) {
  const ConvTables& t = tables(step);
  const ConvShape& c = step.conv;
  const std::int64_t pixels = c.out_height * c.out_width;
  const std::int64_t taps = c.in_channels * c.kernel * c.kernel;
  cpu::sum_lanes(out_delta.at(0, step.out), c.out_channels, pixels, panels_of(samples), out_delta.panel_step(),
                 parameter(gradients, step.bias));
  cpu::run_dots({.a = out_delta.at(0, step.out),
                 .b = in.at(0, step.in),
                 .y = parameter(gradients, step.weight),
                 .rows = c.out_channels,
                 .columns = taps,
                 .a_row = pixels * panel_lanes,
                 .b_column = t.tap_each.data(),
                 .a_point = t.out_pixel.data(),
                 .b_point = t.in_pixel.data(),
                 .points = pixels,
                 .panels = panels_of(samples),
                 .a_panel = out_delta.panel_step(),
                 .b_panel = in.panel_step(),
                 .y_row = taps});
}

// Each pixel of the input gathers from the outputs it took part in; which those are differs from pixel to pixel.
void FastOps::conv2d_input_gradient(const Step& step, const Block& p, const Activations& in,
                                    const Activations& out_delta, Activations& in_delta, std::int64_t samples) {
  const ConvTables& t = tables(step);
  const ConvShape& c = step.conv;
  const std::int64_t window = c.kernel * c.kernel;
  cpu::TileProblem problem{.weight = parameter(p, step.weight),
                           .reduction = {.count = c.out_channels,
                                         .weight_step = c.in_channels * window,
                                         .x_step = c.out_height * c.out_width * panel_lanes},
                           .rows = c.in_channels,
                           .x_group = out_delta.panel_step(),
                           .y_group = in_delta.panel_step(),
                           .weight_row = window,
                           .y_row = c.in_height * c.in_width * panel_lanes};
  for_panel_pairs(samples, [&](std::int64_t panel, std::int64_t lanes) {
    problem.x = out_delta.at(panel, step.out);
    problem.columns = lanes;
    for (std::int64_t pixel = 0; pixel < c.in_height * c.in_width; ++pixel) {
      const std::size_t first = t.first[static_cast<std::size_t>(pixel)];
      problem.reduction.segments = static_cast<std::int64_t>(t.first[static_cast<std::size_t>(pixel) + 1] - first);
      problem.reduction.weight_offset = t.back_weight.data() + first;
      problem.reduction.x_offset = t.back_out.data() + first;
      problem.y = in_delta.at(panel, step.in) + pixel * panel_lanes;
      set_delta_epilogue(step, in.at(panel, step.in) + pixel * panel_lanes, problem);
      cpu::run_tiles(problem);
    }
  });
}

void FastOps::layer_norm(const Step& step, const Block& p, const Activations& in, Activations& out,
                         std::int64_t samples) {
  for (std::int64_t panel = 0; panel < panels_of(samples); ++panel) {
    cpu::layer_norm_panel({.x = in.at(panel, step.in),
                           .features = step.in.features,
                           .gain = parameter(p, step.weight),
                           .bias = parameter(p, step.bias)},
                          step.relu, out.at(panel, step.out));
  }
}

void FastOps::layer_norm_gradient(const Step& step, const Block& p, const Activations& in, const Activations& out_delta,
                                  Activations& in_delta, Block& gradients, std::int64_t samples) {
  float* gain_gradient = parameter(gradients, step.weight);
  float* bias_gradient = parameter(gradients, step.bias);
  std::fill_n(gain_gradient, step.in.features, 0.0f);
  std::fill_n(bias_gradient, step.in.features, 0.0f);
  for (std::int64_t panel = 0; panel < panels_of(samples); ++panel) {
    cpu::layer_norm_gradient_panel({.x = in.at(panel, step.in),
                                    .features = step.in.features,
                                    .gain = parameter(p, step.weight),
                                    .bias = parameter(p, step.bias)},
                                   out_delta.at(panel, step.out),
                                   step.input_gradient ? in_delta.at(panel, step.in) : nullptr, step.input_is_relu,
                                   step.accumulate, gain_gradient, bias_gradient);
  }
}

void FastOps::relu(const Step& step, const Activations& in, Activations& out, std::int64_t samples) {
  for (std::int64_t panel = 0; panel < panels_of(samples); ++panel) {
    cpu::relu_panel(in.at(panel, step.in), step.in.features, out.at(panel, step.out));
  }
}

// in: value, then advantages. A few numbers a sample: plain loops, which the compiler turns into vectors.
void FastOps::dueling(const Step& step, const Activations& in, Activations& out, std::int64_t samples) {
  const std::int64_t actions = step.out.features;
  for (std::int64_t panel = 0; panel < panels_of(samples); ++panel) {
    const float* value = in.at(panel, step.in);
    const float* advantage = value + panel_lanes;
    float* q = out.at(panel, step.out);
    float mean[panel_lanes] = {};
    for (std::int64_t i = 0; i < actions * panel_lanes; ++i) mean[i % panel_lanes] += advantage[i];
    for (float& m : mean) m /= static_cast<float>(actions);
    for (std::int64_t i = 0; i < actions * panel_lanes; ++i) {
      q[i] = value[i % panel_lanes] + (advantage[i] - mean[i % panel_lanes]);
    }
  }
}

void FastOps::dueling_gradient(const Step& step, const Activations& out_delta, Activations& in_delta,
                               std::int64_t samples) {
  const std::int64_t actions = step.out.features;
  for (std::int64_t panel = 0; panel < panels_of(samples); ++panel) {
    const float* dq = out_delta.at(panel, step.out);
    float* value = in_delta.at(panel, step.in);
    float* advantage = value + panel_lanes;
    std::fill_n(value, panel_lanes, 0.0f);
    for (std::int64_t i = 0; i < actions * panel_lanes; ++i) value[i % panel_lanes] += dq[i];
    for (std::int64_t i = 0; i < actions * panel_lanes; ++i) {
      advantage[i] = dq[i] - value[i % panel_lanes] / static_cast<float>(actions);
    }
  }
}

}  // namespace qanat::nn
