// Networks and batches on which reduced precision can be compared: nothing in them hangs on how a value is rounded.
#pragma once

#include <algorithm>
#include <stdexcept>

#include "tests/nn/support.h"

namespace qanat::nn::test {

// The Nature network with dueling streams, 18 actions.
inline NetworkSpec nature(std::int64_t hidden = 512) {
  NetworkConfig config;
  config.preset = "nature";
  config.dueling = true;
  config.dueling_hidden = hidden;
  return build_network(config, rows_of(DType::u8, {84, 84}), 4, 255, 18);
}

// A batch whose choices of next actions do not hang on rounding: a sample whose two best allowed ones differ by less
// than `gap` of the Q-values' spread does not bootstrap. `choosing`: parameters of the network that chooses.
inline void settle_choices(const NetworkSpec& spec, RandomBatch& batch, std::span<const float> choosing, double gap) {
  const auto size = static_cast<std::int64_t>(batch.action.size());
  const auto actions = static_cast<std::size_t>(spec.actions);
  std::vector<float> q(batch.action.size() * actions);
  const auto inference = make_backend("cpu")->inference(spec, size);
  inference->set_parameters(choosing);
  inference->forward(batch.view.next_state, size, q);
  std::size_t settled = 0;
  for (std::size_t b = 0; b < batch.action.size(); ++b) {
    std::vector<float> row;
    double size_of_row = 0;
    for (std::size_t a = 0; a < actions; ++a) {
      const float value = q[b * actions + a];
      size_of_row += static_cast<double>(value) * value;
      if (batch.view.next_mask == nullptr || batch.view.next_mask[b * actions + a] != 0) row.push_back(value);
    }
    std::sort(row.rbegin(), row.rend());
    const double least = gap * std::sqrt(size_of_row / static_cast<double>(actions));
    if (row.size() > 1 && row[0] - row[1] < least) batch.bootstrap[b] = 0;
    settled += batch.bootstrap[b] != 0 ? 1 : 0;
  }
  if (settled * 4 < batch.action.size()) throw std::logic_error("a batch that does not test double Q");
}

// A batch with settled choices, the first of a row of seeds that gives one: of few samples none may be settled.
inline std::unique_ptr<RandomBatch> settled_batch(const NetworkSpec& spec, std::int64_t size,
                                                  std::span<const float> choosing, double gap, std::uint64_t seed) {
  for (;; ++seed) {
    Rng rng(seed);
    auto batch = std::make_unique<RandomBatch>(spec, size, false, rng);
    try {
      settle_choices(spec, *batch, choosing, gap);
      return batch;
    } catch (const std::logic_error&) {
      continue;
    }
  }
}

// Errors of one sign: else those of a stream whose features hardly differ between samples cancel, and what is left is
// the rounding of Q.
inline void one_sided(RandomBatch& batch) {
  for (float& value : batch.returns) value += 20;
}

// Real observations of one sign: else the gradients of a first layer's weights cancel over the samples.
inline void positive_rows(const NetworkSpec& spec, RandomBatch& batch) {
  if (spec.input.dtype != DType::f32) return;
  for (std::size_t at = 0; at < batch.rows.size(); at += 4) {
    float value = 0;
    std::memcpy(&value, &batch.rows[at], 4);
    value = std::abs(value);
    std::memcpy(&batch.rows[at], &value, 4);
  }
}

// Parameters whose relus do not hang on rounding either. A unit that rounding switches changes its gradient as a whole:
// with a share s of units so near 0, gradients are off by about sqrt(s), far above any dtype's rounding (0.1 in bf16
// for PyTorch's initialisation and noise as frames, and as much between two orders of f32 sums in proportion). Here
// each bias is 4 deviations of what its unit sums up, either way.
inline std::vector<float> decisive_parameters(const NetworkSpec& spec, std::uint64_t seed) {
  std::vector<float> parameters = random_parameters(spec, seed);
  Rng rng(seed + 1000);
  double rms = spec.input.dtype == DType::u8 ? 0.577 : 1;  // of uniform numbers in [0, 1], of normal ones
  for (const ParameterInfo& info : parameter_layout(spec)) {
    if (info.name.ends_with(".recurrent.bias")) rms = 0.8;  // an lstm's output, of gates that large inputs saturate
    const bool relu = info.name.starts_with("layers.") || info.name.find("_hidden") != std::string::npos;
    if (!relu || !info.name.ends_with(".bias") || info.name.ends_with("t.bias")) continue;  // input, recurrent
    const double deviation = 0.577 * rms;  // weights are uniform in +-1 / sqrt(fan in)
    for (std::size_t i = 0; i < info.elements(); ++i) {
      parameters[info.offset + i] = static_cast<float>(rng.chance(0.5) ? 4 * deviation : -4 * deviation);
    }
    if (info.name != "value_hidden.bias") rms = deviation * std::sqrt(17 / 2.0);  // half the units on
  }
  return parameters;
}

// The way from `start` that ten steps of gradient descent on squared errors take, on batches whose errors have one
// sign. RMSprop without memory and with a huge epsilon is gradient descent: a rule that is linear in the gradient, so
// that rounding is not blown up.
inline std::vector<float> ten_steps(const std::string& backend, const NetworkSpec& spec, std::int64_t batch_size,
                                    double rate, const std::vector<float>& start, const std::vector<float>& target) {
  TrainerOptions options{.batch = batch_size, .optimizer = "rmsprop", .epsilon = 1e6, .rms_decay = 0};
  options.td.huber = false;
  const auto trainer = trainer_on(backend, spec, options);
  trainer->set_parameters(start, target);
  Rng rng(43);
  for (int i = 0; i < 10; ++i) {
    RandomBatch batch(spec, batch_size, false, rng);
    one_sided(batch);
    std::vector<float> td_abs(batch.action.size());
    trainer->submit(batch.view, {.learning_rate = rate * options.epsilon});
    trainer->collect(td_abs);
  }
  std::vector<float> way = copy(trainer->parameters());
  for (std::size_t i = 0; i < way.size(); ++i) way[i] -= start[i];
  return way;
}

}  // namespace qanat::nn::test
