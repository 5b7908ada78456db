// What is learnt from each step of a sequence: its n-step window, its return, and the sequence's new priority
// (Kapturowski et al., "Recurrent Experience Replay in Distributed Reinforcement Learning", 2019). Target, loss and
// gradient of a step are those of nn/td.h. Host and device code, shared by every backend.
//
// Pure functions and values. Thread safe.
#pragma once

#include <cstdint>

#include "nn/td.h"

namespace qanat::nn {

// How a sequence's last observation stands to its episode.
enum class SequenceEnd : std::uint8_t {
  open = 0,        // the episode goes on: only steps with all n rewards inside the sequence are learnt from
  terminated = 1,  // it is the episode's final observation, of value 0
  truncated = 2,   // the episode was cut here: windows that reach it are shortened and bootstrap from it
};

struct SequenceWindow {
  std::int64_t steps = 0;  // rewards summed, 0: nothing is learnt from this step
  bool bootstrap = false;  // from the observation `steps` later
};

// The window of step t of a sequence with `length` observations. The last one has no action, hence no window.
QANAT_HOST_DEVICE inline SequenceWindow sequence_window(std::int64_t t, std::int64_t length, SequenceEnd end,
                                                        std::int64_t n_step) {
  const std::int64_t ahead = length - 1 - t;
  if (ahead <= 0) return {};
  if (ahead < n_step) {
    if (end == SequenceEnd::open) return {};
    return {ahead, end == SequenceEnd::truncated};
  }
  return {n_step, !(ahead == n_step && end == SequenceEnd::terminated)};
}

template <class Real>
struct SequenceReturn {
  Real returns;    // r_t + gamma r_t+1 + ... over the window
  Real bootstrap;  // gamma^steps, 0 where the window does not bootstrap
};

// `reward` is step t's, the next step's is `stride` further.
template <class Real>
QANAT_HOST_DEVICE SequenceReturn<Real> sequence_return(const float* reward, std::int64_t stride,
                                                       const SequenceWindow& window, Real gamma) {
  SequenceReturn<Real> out{Real(0), Real(1)};
  for (std::int64_t k = 0; k < window.steps; ++k) {
    out.returns += out.bootstrap * static_cast<Real>(reward[k * stride]);
    out.bootstrap *= gamma;
  }
  if (!window.bootstrap) out.bootstrap = Real(0);
  return out;
}

// eta max + (1 - eta) mean of |td| over the steps learnt from.
template <class Real>
QANAT_HOST_DEVICE Real sequence_priority(Real largest, Real sum, std::int64_t steps, Real eta) {
  return eta * largest + (Real(1) - eta) * sum / static_cast<Real>(steps);
}

}  // namespace qanat::nn
