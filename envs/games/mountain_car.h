// MountainCar-v0 (Moore, "Efficient memory-based learning for robot control", 1990; the equations of Sutton & Barto,
// "Reinforcement learning", example 10.1), with the constants, limits and rewards of Gymnasium.
//
// Actions: 0 accelerates left, 1 not, 2 right. Double precision. Reward -1 a step, the last one included. Terminated
// when position >= 0.5 (at any velocity >= 0); truncated after 200 steps. A start draws the position uniformly from
// [-0.6, -0.4), at rest. Observation: f32 [2], (position, velocity).
#pragma once

#include <cstdint>

#include "qanat/env.hpp"

namespace qanat::envs {

class MountainCar {
 public:
  static constexpr const char* id = "MountainCar-v0";
  static constexpr const char* summary = "rock a car out of a valley";

  struct State {
    double position = 0, velocity = 0;
  };

  [[nodiscard]] env::Spec spec() const;
  void reset(env::Rng& rng);
  [[nodiscard]] env::Outcome step(std::int32_t action);
  void observe(const env::Row& row) const;

  [[nodiscard]] const State& state() const { return state_; }
  // Throws std::invalid_argument when position or velocity is beyond the limits.
  void set_state(const State& state);

 private:
  State state_;
};

}  // namespace qanat::envs
