// CartPole-v1 (Barto, Sutton & Anderson, "Neuronlike adaptive elements that can solve difficult learning control
// problems", 1983; equations of motion after Florian, "Correct equations for the dynamics of the cart-pole system",
// 2007, without friction), with the constants, limits and rewards of Gymnasium.
//
// Actions: 0 pushes left, 1 right, with 10 N. Explicit Euler steps of 0.02 s in double precision. Reward 1 a step,
// the last one included. Terminated when |x| > 2.4 m or |angle| > 12 degrees; truncated after 500 steps. A start
// draws each of the four numbers uniformly from [-0.05, 0.05). Observation: f32 [4], (x, x', angle, angle').
#pragma once

#include <cstdint>

#include "qanat/env.hpp"

namespace qanat::envs {

class CartPole {
 public:
  static constexpr const char* id = "CartPole-v1";
  static constexpr const char* summary = "balance a pole on a cart";

  struct State {
    double x = 0, x_dot = 0, angle = 0, angle_dot = 0;  // m, m/s, rad, rad/s
  };

  [[nodiscard]] env::Spec spec() const;
  void reset(env::Rng& rng);
  [[nodiscard]] env::Outcome step(std::int32_t action);
  void observe(const env::Row& row) const;

  [[nodiscard]] const State& state() const { return state_; }
  // Throws std::invalid_argument when a number is not finite.
  void set_state(const State& state);

 private:
  State state_;
};

}  // namespace qanat::envs
