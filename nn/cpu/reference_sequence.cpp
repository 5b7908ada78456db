#include "nn/cpu/reference_sequence.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace qanat::nn {

template <class Real>
ReferenceSequenceOps<Real>::ReferenceSequenceOps(const NetworkSpec& spec, const Plan& plan,
                                                 const SequenceOptions& options)
    : ReferenceOps<Real>(spec, plan, options.update), options_(options) {}

template <class Real>
auto ReferenceSequenceOps<Real>::recurrence(const Step& lstm) -> Recurrence {
  const auto size = static_cast<std::size_t>(options_.steps() * options_.update.batch * lstm.out.features);
  gates_.emplace_back(size);
  cells_.emplace_back(size);
  return {gates_.back().data(), cells_.back().data()};
}

template <class Real>
const SequenceBatch& ReferenceSequenceOps<Real>::stage(const SequenceBatch& batch, const UpdateControls& controls) {
  this->controls_ = controls;
  batch_ = batch;
  return batch_;
}

template <class Real>
Real ReferenceSequenceOps<Real>::hidden_before(const Step& step, const SequenceBatch& batch, const Pass& pass,
                                               std::int64_t sample, std::int64_t feature) const {
  if (sample < batch.size) return static_cast<Real>(batch.hidden[sample * step.out.features + feature]);
  return pass.out.at(sample - batch.size, step.out)[feature];
}

template <class Real>
Real ReferenceSequenceOps<Real>::cell_before(const SequenceBatch& batch, const Pass& pass, std::int64_t hidden,
                                             std::int64_t sample, std::int64_t feature) const {
  if (sample < batch.size) return static_cast<Real>(batch.cell[sample * hidden + feature]);
  return pass.recurrence.cell[(sample - batch.size) * hidden + feature];
}

template <class Real>
template <class Visit>
void ReferenceSequenceOps<Real>::for_each_input(const Step& step, const SequenceBatch& batch, const Pass& pass,
                                                std::int64_t sample, Visit visit) const {
  const Real* x = pass.in.at(sample, step.in);
  for (std::int64_t i = 0; i < step.in.features; ++i) visit(i, static_cast<double>(x[i]));
  if (batch.previous_action[sample] >= 0) visit(step.in.features + batch.previous_action[sample], 1.0);
  visit(step.in.features + this->spec_.actions, static_cast<double>(batch.previous_reward[sample]));
}

template <class Real>
void ReferenceSequenceOps<Real>::lstm(const Step& step, const SequenceBatch& batch, const Pass& online,
                                      const Pass& target) {
  lstm_forward(step, batch, online);
  lstm_forward(step, batch, target);
}

template <class Real>
void ReferenceSequenceOps<Real>::lstm_forward(const Step& step, const SequenceBatch& batch, const Pass& pass) {
  const std::int64_t hidden = step.out.features;
  const Real* input_weight = this->parameter(pass.parameters, step.weight);  // [in + actions + 1, 4 H]
  const Real* input_bias = this->parameter(pass.parameters, step.bias);
  const Real* recurrent_weight = this->parameter(pass.parameters, step.recurrent_weight);  // [H, 4 H]
  const Real* recurrent_bias = this->parameter(pass.parameters, step.recurrent_bias);
  std::vector<double> sums(static_cast<std::size_t>(4 * hidden));
  const auto add = [&](const Real* row, double value) {
    for (std::int64_t r = 0; r < 4 * hidden; ++r) sums[r] += value * static_cast<double>(row[r]);
  };
  for (std::int64_t sample = 0; sample < options_.steps() * batch.size; ++sample) {
    for (std::int64_t r = 0; r < 4 * hidden; ++r) {
      sums[r] = static_cast<double>(input_bias[r]) + static_cast<double>(recurrent_bias[r]);
    }
    for_each_input(step, batch, pass, sample,
                   [&](std::int64_t i, double value) { add(input_weight + i * 4 * hidden, value); });
    for (std::int64_t k = 0; k < hidden; ++k) {
      add(recurrent_weight + k * 4 * hidden, static_cast<double>(hidden_before(step, batch, pass, sample, k)));
    }
    for (std::int64_t j = 0; j < hidden; ++j) {
      const LstmGates<double> gates =
          lstm_gates<double>({sums[j], sums[hidden + j], sums[2 * hidden + j], sums[3 * hidden + j]});
      const double cell = lstm_cell(gates, static_cast<double>(cell_before(batch, pass, hidden, sample, j)));
      pass.recurrence.gates[sample * hidden + j] = {static_cast<Real>(gates.input), static_cast<Real>(gates.forget),
                                                    static_cast<Real>(gates.cell), static_cast<Real>(gates.output)};
      pass.recurrence.cell[sample * hidden + j] = static_cast<Real>(cell);
      pass.out.at(sample, step.out)[j] = static_cast<Real>(gates.output * std::tanh(cell));
    }
  }
}

template <class Real>
void ReferenceSequenceOps<Real>::lstm_gradient(const Step& step, const SequenceBatch& batch, const Pass& pass,
                                               const Activations& out_delta, Activations& in_delta, Block& gradients) {
  const std::int64_t hidden = step.out.features;
  const std::int64_t inputs = step.in.features + this->spec_.actions + 1;
  const std::int64_t first = options_.burn_in * batch.size;
  const Real* input_weight = this->parameter(pass.parameters, step.weight);
  const Real* recurrent_weight = this->parameter(pass.parameters, step.recurrent_weight);
  std::vector<double> input_gradient(static_cast<std::size_t>(inputs * 4 * hidden));
  std::vector<double> recurrent_gradient(static_cast<std::size_t>(hidden * 4 * hidden));
  std::vector<double> bias_gradient(static_cast<std::size_t>(4 * hidden));
  // What step t + 1 leaves for step t, a sequence each.
  std::vector<double> hidden_delta(static_cast<std::size_t>(batch.size * hidden));
  std::vector<double> cell_delta(hidden_delta.size());
  std::vector<double> sums(static_cast<std::size_t>(4 * hidden));  // d loss / d the gates' sums
  const auto dot = [&](const Real* row) {
    double sum = 0;
    for (std::int64_t r = 0; r < 4 * hidden; ++r) sum += static_cast<double>(row[r]) * sums[r];
    return sum;
  };
  for (std::int64_t sample = options_.steps() * batch.size - 1; sample >= first; --sample) {
    const std::int64_t b = sample % batch.size;
    for (std::int64_t j = 0; j < hidden; ++j) {
      const LstmGates<Real>& kept = pass.recurrence.gates[sample * hidden + j];
      const LstmGates<double> g = lstm_cell_gradient<double>(
          {kept.input, kept.forget, kept.cell, kept.output}, pass.recurrence.cell[sample * hidden + j],
          cell_before(batch, pass, hidden, sample, j),
          static_cast<double>(out_delta.at(sample - first, step.out)[j]) + hidden_delta[b * hidden + j],
          cell_delta[b * hidden + j]);
      sums[j] = g.input;
      sums[hidden + j] = g.forget;
      sums[2 * hidden + j] = g.cell;
      sums[3 * hidden + j] = g.output;
    }
    const auto add = [&](double* row, double value) {
      for (std::int64_t r = 0; r < 4 * hidden; ++r) row[r] += value * sums[r];
    };
    add(bias_gradient.data(), 1);
    for_each_input(step, batch, pass, sample,
                   [&](std::int64_t i, double value) { add(&input_gradient[i * 4 * hidden], value); });
    for (std::int64_t k = 0; k < hidden; ++k) {
      add(&recurrent_gradient[k * 4 * hidden], static_cast<double>(hidden_before(step, batch, pass, sample, k)));
      hidden_delta[b * hidden + k] = dot(recurrent_weight + k * 4 * hidden);
    }
    if (!step.input_gradient) continue;
    for (std::int64_t i = 0; i < step.in.features; ++i) {
      this->put_delta(step, static_cast<Real>(dot(input_weight + i * 4 * hidden)), pass.in.at(sample, step.in)[i],
                      in_delta.at(sample - first, step.in)[i]);
    }
  }
  const auto store = [&](std::size_t index, const std::vector<double>& from) {
    std::transform(from.begin(), from.end(), this->parameter(gradients, index),
                   [](double value) { return static_cast<Real>(value); });
  };
  store(step.weight, input_gradient);
  store(step.bias, bias_gradient);
  store(step.recurrent_weight, recurrent_gradient);
  store(step.recurrent_bias, bias_gradient);
}

template <class Real>
void ReferenceSequenceOps<Real>::sequence_td(const SequenceBatch& batch, const Activations& online_q,
                                             const Activations& target_q, Activations& delta) {
  const std::int64_t actions = this->spec_.actions;
  const TdOptions& td = options_.update.td;
  double loss = 0;
  double sum_q = 0;
  std::int64_t learnt = 0;
  std::fill_n(delta.data, options_.unroll * batch.size * actions, Real(0));
  for (std::int64_t b = 0; b < batch.size; ++b) {
    const Real weight = static_cast<Real>(batch.weight[b]) / static_cast<Real>(batch.size);
    Real largest = 0;
    Real sum = 0;
    std::int64_t steps = 0;
    for (std::int64_t u = 0; u < options_.unroll; ++u) {
      const std::int64_t t = options_.burn_in + u;
      const SequenceWindow window = sequence_window(t, batch.length[b], batch.end[b], options_.n_step);
      if (window.steps == 0) break;
      const auto [returns, bootstrap] = sequence_return<Real>(batch.reward + t * batch.size + b, batch.size, window,
                                                              static_cast<Real>(options_.gamma));
      const std::int64_t next = (u + window.steps) * batch.size + b;
      const std::int64_t next_row = next + options_.burn_in * batch.size;
      const std::uint8_t* mask = batch.mask != nullptr ? batch.mask + next_row * actions : nullptr;
      const Real* choosing = (td.double_q ? online_q : target_q).data + next * actions;
      const Real next_q = target_q.data[next * actions + masked_argmax(choosing, 1, mask, actions)];
      const std::int64_t taken = (u * batch.size + b) * actions + batch.action[t * batch.size + b];
      const TdTerms<Real> terms = td_terms(online_q.data[taken], td_target(returns, bootstrap, next_q, td), td);
      delta.data[taken] = weight * terms.gradient;
      loss += static_cast<double>(weight) * static_cast<double>(terms.loss);
      sum_q += static_cast<double>(online_q.data[taken]);
      const Real size = std::abs(terms.td);
      largest = size > largest || std::isnan(size) ? size : largest;
      sum += size;
      ++steps;
    }
    learnt += steps;
    this->td_abs_[b] =
        static_cast<float>(sequence_priority(largest, sum, steps, static_cast<Real>(options_.priority_eta)));
  }
  this->result_.loss = loss;
  this->result_.mean_q = sum_q / static_cast<double>(learnt);
}

template class ReferenceSequenceOps<float>;
template class ReferenceSequenceOps<double>;

}  // namespace qanat::nn
