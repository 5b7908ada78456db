// The optimisers' rules for one parameter, the numbers one step needs, and the form in which their state is saved.
// Host and device code, shared by every backend (a vectorised one restates the rule in its own words).
//
// Pure functions and values. Thread safe.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nn/backend.h"
#include "nn/td.h"

namespace qanat::nn {

// Scalars of one step, equal for all parameters.
template <class Real>
struct StepScalars {
  Real clip = 1;          // multiplies gradients
  Real rate = 0;          // Adam: learning rate / (1 - beta1^t); RMSprop: learning rate
  Real second_scale = 1;  // Adam: 1 / sqrt(1 - beta2^t)
  Real decay1 = 0, decay2 = 0;
  Real fresh1 = 0, fresh2 = 0;  // 1 - decay, of the exact decay: in f32 1 - 0.999f is off by 5e-5
  Real epsilon = 0;
  Real tau = 0;  // target += tau (online - target); 0: the target stays, 1: it becomes the online network
};

// What a device needs of TrainerOptions to make them.
struct OptimizerRule {
  bool adam = true;
  bool centered = false;
  double beta1 = 0, beta2 = 0;  // Adam
  double rms_decay = 0;         // RMSprop
  double epsilon = 0;
  double max_grad_norm = 0;
  double target_tau = 1;
};
[[nodiscard]] OptimizerRule optimizer_rule(const TrainerOptions& options);

// What of them is known before the gradients are. `t` counts finished updates, this one included.
template <class Real>
QANAT_HOST_DEVICE StepScalars<Real> step_scalars(const OptimizerRule& rule, double learning_rate, std::int64_t t) {
  using std::pow;
  using std::sqrt;
  StepScalars<Real> s;
  const auto steps = static_cast<double>(t);
  s.rate = static_cast<Real>(rule.adam ? learning_rate / (1 - pow(rule.beta1, steps)) : learning_rate);
  s.second_scale = static_cast<Real>(rule.adam ? 1 / sqrt(1 - pow(rule.beta2, steps)) : 1.0);
  const double decay1 = rule.adam ? rule.beta1 : rule.rms_decay;
  const double decay2 = rule.adam ? rule.beta2 : rule.rms_decay;
  s.decay1 = static_cast<Real>(decay1);
  s.decay2 = static_cast<Real>(decay2);
  s.fresh1 = static_cast<Real>(1 - decay1);
  s.fresh2 = static_cast<Real>(1 - decay2);
  s.epsilon = static_cast<Real>(rule.epsilon);
  return s;
}

// The rest. `norm` is the gradients' before clipping.
template <class Real>
QANAT_HOST_DEVICE void complete_scalars(StepScalars<Real>& s, const OptimizerRule& rule, bool sync_target,
                                        double norm) {
  s.clip = Real(1);
  if (rule.max_grad_norm > 0) {
    const double clip = rule.max_grad_norm / (norm + 1e-6);  // PyTorch's clip_grad_norm_
    s.clip = static_cast<Real>(clip < 1 ? clip : 1.0);
  }
  s.tau = static_cast<Real>(sync_target ? 1 : (rule.target_tau < 1 ? rule.target_tau : 0));
}

// Adam (Kingma & Ba, 2015) as PyTorch places its epsilon: after the root and its bias correction.
template <class Real>
QANAT_HOST_DEVICE void adam_rule(Real& parameter, Real gradient, Real& mean, Real& square, const StepScalars<Real>& s) {
  using std::sqrt;
  const Real g = gradient * s.clip;
  mean = s.decay1 * mean + s.fresh1 * g;
  square = s.decay2 * square + s.fresh2 * g * g;
  parameter -= s.rate * mean / (sqrt(square) * s.second_scale + s.epsilon);
}

// RMSprop as PyTorch defines it. Plain RMSprop leaves `mean` at 0, so both kinds are one formula. The difference
// under the root is clamped: rounding can make it negative.
template <class Real>
QANAT_HOST_DEVICE void rmsprop_rule(Real& parameter, Real gradient, Real& mean, Real& square, bool centered,
                                    const StepScalars<Real>& s) {
  using std::sqrt;
  const Real g = gradient * s.clip;
  if (centered) mean = s.decay1 * mean + s.fresh1 * g;
  square = s.decay2 * square + s.fresh2 * g * g;
  const Real variance = square - mean * mean;
  parameter -= s.rate * g / (sqrt(variance > Real(0) ? variance : Real(0)) + s.epsilon);
}

// Optimiser state between backends and in checkpoints: canonical layout.
struct OptimizerState {
  std::int64_t steps = 0;
  std::vector<float> mean;    // [parameters]
  std::vector<float> square;  // [parameters]
};

[[nodiscard]] std::vector<std::byte> pack_optimizer(const TrainerOptions& options, const OptimizerState& state);
// Throws InputError when the bytes are not `parameters` moments of this kind of optimiser.
[[nodiscard]] OptimizerState unpack_optimizer(const TrainerOptions& options, std::span<const std::byte> bytes,
                                              std::size_t parameters);

}  // namespace qanat::nn
