// Acrobot-v1 (Sutton, "Generalization in reinforcement learning: successful examples using sparse coarse coding",
// 1996; the dynamics as printed in Sutton & Barto's book), with the constants, limits and rewards of Gymnasium.
//
// Two links of 1 m and 1 kg hang from a fixed joint; actions 0, 1, 2 put a torque of -1, 0, +1 N m on the joint
// between them. A step is one fourth-order Runge-Kutta step of 0.2 s in double precision; then angles are wrapped to
// [-pi, pi] and angular velocities clipped to 4 pi and 9 pi rad/s. Terminated, with reward 0, when the tip is more
// than one link above the fixed joint; every other step costs -1. Truncated after 500 steps. A start draws the four
// numbers uniformly from [-0.1, 0.1) and rounds them to single precision, as Gymnasium does.
// Observation: f32 [6], (cos a1, sin a1, cos a2, sin a2, a1', a2').
#pragma once

#include <cstdint>

#include "qanat/env.hpp"

namespace qanat::envs {

class Acrobot {
 public:
  static constexpr const char* id = "Acrobot-v1";
  static constexpr const char* summary = "swing a two-link pendulum up";

  struct State {
    // Angle of the first link from hanging down, of the second from the first (rad), and their velocities (rad/s).
    double angle1 = 0, angle2 = 0, velocity1 = 0, velocity2 = 0;
  };

  [[nodiscard]] env::Spec spec() const;
  void reset(env::Rng& rng);
  [[nodiscard]] env::Outcome step(std::int32_t action);
  void observe(const env::Row& row) const;

  [[nodiscard]] const State& state() const { return state_; }
  // Throws std::invalid_argument when an angle or velocity is beyond the limits.
  void set_state(const State& state);

 private:
  State state_;
};

}  // namespace qanat::envs
