// Recurrent networks and random batches of sequences that the nn tests share.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "nn/sequence.h"
#include "tests/nn/support.h"

namespace qanat::nn::test {

inline LayerConfig lstm(std::int64_t out) { return {.kind = "lstm", .out = out}; }

// Small recurrent networks: below and above the lstm with and without layers, dueling or not, widths that fill no
// vector.
inline std::vector<NamedNetwork> recurrent_networks() {
  const auto build = [](std::vector<LayerConfig> layers, std::int64_t dueling_hidden, const TensorSpec& rows,
                        std::int64_t stack, std::int64_t actions) {
    NetworkConfig config;
    config.preset = "custom";
    config.layers = std::move(layers);
    config.dueling = dueling_hidden >= 0;
    config.dueling_hidden = std::max<std::int64_t>(dueling_hidden, 0);
    return build_network(config, rows, stack, 255, actions);
  };
  return {{"lstm on vectors", build({lstm(7)}, -1, rows_of(DType::f32, {5}), 1, 3)},
          {"relu, lstm, linear, dueling",
           build({linear(12), relu(), lstm(8), linear(9), relu()}, 0, rows_of(DType::f32, {4}), 2, 4)},
          {"convolutions of a stack, lstm, hidden streams",
           build({conv(5, 3, 2), relu(), conv(6, 2, 1), relu(), linear(10), relu(), lstm(9)}, 11,
                 rows_of(DType::u8, {9, 7}), 3, 5)}};
}

inline SequenceOptions sequence_options(std::int64_t batch) {
  SequenceOptions options;
  options.update.batch = batch;
  options.update.td.huber = false;
  options.update.td.rescale = true;
  options.burn_in = 3;
  options.unroll = 7;
  options.n_step = 2;
  options.gamma = 0.9;
  return options;
}

// A batch that owns its columns. Each sequence's rows stand once, one after the other; stacks slide over them. Some
// sequences end early, in every way an end can have.
struct RandomSequences {
  std::vector<std::byte> rows;
  std::vector<std::uint32_t> index;
  std::vector<std::int32_t> previous_action, action, length;
  std::vector<float> previous_reward, reward, hidden, cell, weight;
  std::vector<SequenceEnd> end;
  std::vector<std::uint8_t> mask;
  SequenceBatch view;

  RandomSequences(const NetworkSpec& spec, const SequenceOptions& options, Rng& rng, bool masked = false) {
    const std::int64_t batch = options.update.batch;
    const std::int64_t steps = options.steps();
    const std::int64_t per_sequence = steps + spec.stack - 1;
    fill_rows(spec, batch * per_sequence, rng);
    for (std::int64_t t = 0; t < steps; ++t) {
      for (std::int64_t b = 0; b < batch; ++b) {
        for (std::int64_t k = 0; k < spec.stack; ++k) {
          index.push_back(static_cast<std::uint32_t>(b * per_sequence + t + k));
        }
        const auto actions = static_cast<std::uint64_t>(spec.actions);
        action.push_back(static_cast<std::int32_t>(rng.below(actions)));
        previous_action.push_back(static_cast<std::int32_t>(rng.below(actions + 1)) - 1);
        reward.push_back(static_cast<float>(rng.normal()));
        previous_reward.push_back(static_cast<float>(rng.normal()));
        const auto allowed = static_cast<std::int64_t>(rng.below(actions));
        for (std::int64_t a = 0; a < spec.actions; ++a) mask.push_back(a == allowed || rng.chance(0.5) ? 1 : 0);
      }
    }
    const std::int64_t features = spec.layers[*spec.lstm_layer()].out[0];
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t j = 0; j < features; ++j) {
        hidden.push_back(static_cast<float>(std::tanh(rng.normal())));
        cell.push_back(static_cast<float>(rng.normal()));
      }
      end.push_back(static_cast<SequenceEnd>(rng.below(3)));
      const std::int64_t least = options.burn_in + (end.back() == SequenceEnd::open ? options.n_step + 1 : 2);
      const bool whole = rng.chance(0.4);
      length.push_back(static_cast<std::int32_t>(
          whole ? steps : least + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(steps - least + 1)))));
      weight.push_back(static_cast<float>(rng.uniform(0.1, 1)));
    }
    view = {.size = batch,
            .observations = {.data = rows.data(), .rows = batch * per_sequence, .index = index.data()},
            .previous_action = previous_action.data(),
            .previous_reward = previous_reward.data(),
            .action = action.data(),
            .reward = reward.data(),
            .mask = masked ? mask.data() : nullptr,
            .length = length.data(),
            .end = end.data(),
            .hidden = hidden.data(),
            .cell = cell.data(),
            .weight = weight.data()};
  }
  RandomSequences(const RandomSequences&) = delete;
  RandomSequences& operator=(const RandomSequences&) = delete;

 private:
  void fill_rows(const NetworkSpec& spec, std::int64_t count, Rng& rng) {
    rows.resize(static_cast<std::size_t>(count) * spec.input.bytes());
    for (std::size_t i = 0; i < static_cast<std::size_t>(count) * spec.input.elements(); ++i) {
      if (spec.input.dtype == DType::u8) {
        rows[i] = static_cast<std::byte>(rng.below(256));
      } else {
        const auto value = static_cast<float>(rng.normal());
        std::memcpy(&rows[i * 4], &value, 4);
      }
    }
  }
};

// One allowed action a step: then a rounding cannot turn the argmax to an action of quite another value.
inline void allow_one(RandomSequences& batch, const NetworkSpec& spec, Rng& rng) {
  std::fill(batch.mask.begin(), batch.mask.end(), std::uint8_t{0});
  for (std::size_t at = 0; at < batch.action.size(); ++at) {
    batch.mask[at * static_cast<std::size_t>(spec.actions) + rng.below(static_cast<std::uint64_t>(spec.actions))] = 1;
  }
  batch.view.mask = batch.mask.data();
}

inline NetworkSpec r2d2_network() {
  NetworkConfig config;
  config.preset = "custom";
  config.layers = {conv(32, 8, 4), relu(),      conv(64, 4, 2), relu(),   conv(64, 3, 1),
                   relu(),         linear(512), relu(),         lstm(512)};
  config.dueling = true;
  config.dueling_hidden = 512;
  return build_network(config, rows_of(DType::u8, {84, 84}), 4, 255, 18);
}

inline SequenceOptions with(SequenceOptions options, const std::string& precision,
                            const std::string& kernels = "auto") {
  options.update.precision = precision;
  options.update.kernels = kernels;
  return options;
}

struct SequenceUpdated {
  UpdateResult result;
  std::vector<float> priorities, gradients, parameters, target;
};

inline SequenceUpdated update(SequenceTrainer& trainer, const SequenceBatch& batch, const UpdateControls& controls) {
  SequenceUpdated out;
  out.priorities.resize(static_cast<std::size_t>(batch.size));
  trainer.submit(batch, controls);
  out.result = trainer.collect(out.priorities);
  out.gradients = copy(trainer.gradients());
  out.parameters = copy(trainer.parameters());
  out.target = copy(trainer.target_parameters());
  return out;
}

}  // namespace qanat::nn::test
