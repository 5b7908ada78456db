// Memory, layout, batches and optimiser of the fast backend; its layers are in fast_layers.cpp.
#include "nn/cpu/fast.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace qanat::nn {

using cpu::max_vector;
using cpu::panel_lanes;

namespace {

std::int64_t round_up(std::int64_t value, std::int64_t to) { return (value + to - 1) / to * to; }
std::int64_t panels_of(std::int64_t samples) { return round_up(samples, panel_lanes) / panel_lanes; }

}  // namespace

FastOps::FastOps(const NetworkSpec& spec, const Plan& plan, const TrainerOptions& options)
    : CpuUpdate<float>(options), spec_(spec), plan_(plan), conv_tables_(plan.parameters.size()) {
  for (const ParameterInfo& info : plan.parameters) {
    const auto elements = static_cast<std::int64_t>(info.elements());
    Slot slot{.offset = block_size_, .columns = elements, .row = elements};
    if (info.shape.size() == 2) {
      slot.rows = info.shape[0];
      slot.columns = info.shape[1];
      slot.row = cpu::padded_row(slot.columns);
    }
    slots_.push_back(slot);
    block_size_ += static_cast<std::size_t>(round_up(slot.rows * slot.row, max_vector));
  }
  const std::int64_t images = std::min(few_images, options.batch);
  std::int64_t widest = 0, few_outputs = 0, few_weights = 0, few_inputs = 0;
  for (const Step& step : plan.steps) {
    if (step.kind == StepKind::linear) {
      widest = std::max(widest, round_up(step.out.features, panel_lanes));
      few_outputs = std::max(few_outputs, few_samples * cpu::padded_row(step.out.features));
    }
    if (step.kind == StepKind::conv2d) {
      const ConvShape& c = step.conv;
      conv_tables_[step.weight] = conv_tables(c);
      if (!cpu::wide_row(c.out_channels)) continue;
      const std::int64_t row = cpu::padded_row(c.out_channels);
      few_outputs = std::max(few_outputs, images * c.out_height * c.out_width * row);
      few_weights = std::max(few_weights, c.in_channels * c.kernel * c.kernel * row);
      few_inputs = std::max(few_inputs, images * c.in_channels * c.in_height * c.in_width);
    }
  }
  transposed_ = allocate(static_cast<std::size_t>(panels_of(options.batch) * panel_lanes * widest));
  few_outputs_ = allocate(static_cast<std::size_t>(few_outputs));
  few_weights_ = allocate(static_cast<std::size_t>(few_weights));
  few_inputs_ = allocate(static_cast<std::size_t>(few_inputs));
  mean_ = block();
  square_ = block();
}

float* FastOps::allocate(std::size_t count) {
  auto* memory = static_cast<float*>(::operator new[](count * sizeof(float), std::align_val_t{64}));
  memory_.emplace_back(memory);
  std::fill_n(memory, count, 0.0f);
  return memory;
}

auto FastOps::activations(std::size_t buffer, std::int64_t samples, Holds) -> Activations {
  const std::int64_t features = plan_.buffers[buffer];
  return {allocate(static_cast<std::size_t>(features * panels_of(samples) * panel_lanes)), features};
}

auto FastOps::part(const Activations& whole, std::int64_t first, std::int64_t) const -> Activations {
  return {whole.data + first / panel_lanes * whole.panel_step(), whole.features};
}

std::int64_t FastOps::align(std::int64_t samples) const { return panels_of(samples) * panel_lanes; }

auto FastOps::block() -> Block { return {allocate(block_size_)}; }

void FastOps::write(Block& block, std::span<const float> canonical) {
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    const float* from = canonical.data() + plan_.parameters[i].offset;
    for (std::int64_t r = 0; r < slot.rows; ++r) {
      std::copy_n(from + r * slot.columns, slot.columns, parameter(block, i) + r * slot.row);
    }
  }
}

void FastOps::read(const Block& block, std::span<float> canonical) const {
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    float* to = canonical.data() + plan_.parameters[i].offset;
    for (std::int64_t r = 0; r < slot.rows; ++r) {
      std::copy_n(parameter(block, i) + r * slot.row, slot.columns, to + r * slot.columns);
    }
  }
}

void FastOps::read(const Activations& from, std::int64_t samples, std::span<float> to) const {
  for (std::int64_t b = 0; b < samples; ++b) {
    const float* sample = from.data + b / panel_lanes * from.panel_step() + b % panel_lanes;
    for (std::int64_t f = 0; f < from.features; ++f) to[b * from.features + f] = sample[f * panel_lanes];
  }
}

void FastOps::load(const ObservationRows& rows, Activations& to, std::int64_t first, std::int64_t samples) {
  const auto row_features = static_cast<std::int64_t>(spec_.input.elements());
  const auto row_bytes = static_cast<std::int64_t>(spec_.input.bytes());
  const std::byte* pointers[panel_lanes];
  for (std::int64_t start = 0; start < samples; start += panel_lanes) {
    const std::int64_t used = std::min(samples - start, panel_lanes);
    float* panel = to.data + (first + start) / panel_lanes * to.panel_step();
    for (std::int64_t k = 0; k < spec_.stack; ++k) {
      for (std::int64_t lane = 0; lane < used; ++lane) {
        const std::int64_t b = start + lane;
        pointers[lane] = rows.data + (rows.index != nullptr ? rows.index[b * spec_.stack + k] : b) * row_bytes;
      }
      float* out = panel + k * row_features * panel_lanes;
      if (spec_.input.dtype == DType::u8) {
        cpu::gather_u8(reinterpret_cast<const std::uint8_t* const*>(pointers), used, row_features, spec_.input_scale,
                       out);
      } else {
        cpu::gather_f32(pointers, used, row_features, spec_.input_scale, out);
      }
    }
  }
}

void FastOps::td(const QBatch& batch, const Activations& q, const Activations& choosing_q, const Activations& target_q,
                 Activations& delta) {
  const std::int64_t panel_step = q.panel_step();
  td_batch(
      batch, spec_.actions, {q.data, choosing_q.data, target_q.data, delta.data},
      [&](std::int64_t b) { return b / panel_lanes * panel_step + b % panel_lanes; }, panel_lanes);
}

void FastOps::optimise(Block& online, Block& target, Block& gradients) {
  const auto scalars = begin_step(cpu::sum_of_squares(gradients.data, block_size_));
  if (!scalars) return;
  const cpu::OptimizerBlocks blocks{.parameter = online.data,
                                    .gradient = gradients.data,
                                    .mean = mean_.data,
                                    .square = square_.data,
                                    .target = target.data,
                                    .count = block_size_};
  if (options_.optimizer == "adam") {
    cpu::adam_blocks(blocks, *scalars);
  } else {
    cpu::rmsprop_blocks(blocks, options_.rms_centered, *scalars);
  }
}

std::vector<std::byte> FastOps::save_optimizer() const {
  OptimizerState state{.steps = steps_,
                       .mean = std::vector<float>(plan_.parameter_count),
                       .square = std::vector<float>(plan_.parameter_count)};
  read(mean_, state.mean);
  read(square_, state.square);
  return pack_optimizer(options_, state);
}

void FastOps::load_optimizer(std::span<const std::byte> bytes) {
  const OptimizerState state = unpack_optimizer(options_, bytes, plan_.parameter_count);
  steps_ = state.steps;
  write(mean_, state.mean);
  write(square_, state.square);
}

// All offsets are in floats of one panel, where a feature is 32 apart.
auto FastOps::conv_tables(const ConvShape& c) -> ConvTables {
  ConvTables t;
  const auto in_at = [&](std::int64_t channel, std::int64_t y, std::int64_t x) {
    return ((channel * c.in_height + y) * c.in_width + x) * panel_lanes;
  };
  for (std::int64_t y = 0; y < c.out_height; ++y) {
    for (std::int64_t x = 0; x < c.out_width; ++x) {
      t.in_pixel.push_back(in_at(0, y * c.stride, x * c.stride));
      t.out_pixel.push_back((y * c.out_width + x) * panel_lanes);
    }
  }
  for (std::int64_t channel = 0; channel < c.in_channels; ++channel) {
    for (std::int64_t ky = 0; ky < c.kernel; ++ky) {
      t.tap_weight.push_back((channel * c.kernel + ky) * c.kernel);
      t.tap_in.push_back(in_at(channel, ky, 0));
      t.few_weight.push_back(t.tap_weight.back() * cpu::padded_row(c.out_channels));
      t.few_in.push_back(t.tap_in.back() / panel_lanes);
      for (std::int64_t kx = 0; kx < c.kernel; ++kx) t.tap_each.push_back(in_at(channel, ky, kx));
    }
  }
  for (std::int64_t y = 0; y < c.in_height; ++y) {
    for (std::int64_t x = 0; x < c.in_width; ++x) {
      t.first.push_back(t.back_weight.size());
      for (std::int64_t ky = 0; ky < c.kernel; ++ky) {
        for (std::int64_t kx = 0; kx < c.kernel; ++kx) {
          const std::int64_t oy = (y - ky) / c.stride;
          const std::int64_t ox = (x - kx) / c.stride;
          const bool hit = y >= ky && x >= kx && oy * c.stride == y - ky && ox * c.stride == x - kx;
          if (!hit || oy >= c.out_height || ox >= c.out_width) continue;
          t.back_weight.push_back(ky * c.kernel + kx);
          t.back_out.push_back((oy * c.out_width + ox) * panel_lanes);
        }
      }
    }
  }
  t.first.push_back(t.back_weight.size());
  return t;
}

}  // namespace qanat::nn
