#include "envs/games/cartpole.h"

#include <cmath>
#include <numbers>
#include <stdexcept>

#include "envs/games/games.h"

namespace qanat::envs {
namespace {

constexpr double gravity = 9.8;      // m/s^2
constexpr double cart_mass = 1.0;    // kg
constexpr double pole_mass = 0.1;    // kg
constexpr double half_length = 0.5;  // m, pivot to the pole's centre of mass
constexpr double force = 10.0;       // N
constexpr double step_seconds = 0.02;
constexpr double x_limit = 2.4;  // m
constexpr double angle_limit = 12 * 2 * std::numbers::pi / 360;
constexpr double total_mass = cart_mass + pole_mass;
constexpr double pole_moment = pole_mass * half_length;

}  // namespace

env::Spec CartPole::spec() const {
  return {.observations = {{.name = "state", .dtype = env::DType::f32, .shape = {4}}},
          .action = env::Action::discrete(2),
          .max_episode_steps = 500};
}

void CartPole::reset(env::Rng& rng) {
  // Braces fix the order of the draws.
  state_ =
      State{rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)};
}

env::Outcome CartPole::step(std::int32_t action) {
  auto& [x, x_dot, angle, angle_dot] = state_;
  const double cosine = std::cos(angle);
  const double sine = std::sin(angle);
  const double push = action == 1 ? force : -force;
  const double common = (push + pole_moment * angle_dot * angle_dot * sine) / total_mass;
  const double angle_acceleration =
      (gravity * sine - cosine * common) / (half_length * (4.0 / 3.0 - pole_mass * cosine * cosine / total_mass));
  const double x_acceleration = common - pole_moment * angle_acceleration * cosine / total_mass;
  // Explicit Euler: places move with the old velocities.
  x += step_seconds * x_dot;
  x_dot += step_seconds * x_acceleration;
  angle += step_seconds * angle_dot;
  angle_dot += step_seconds * angle_acceleration;
  return {.reward = 1, .terminated = std::abs(x) > x_limit || std::abs(angle) > angle_limit};
}

void CartPole::observe(const env::Row& row) const {
  const auto out = row.at<float>();
  out[0] = static_cast<float>(state_.x);
  out[1] = static_cast<float>(state_.x_dot);
  out[2] = static_cast<float>(state_.angle);
  out[3] = static_cast<float>(state_.angle_dot);
}

void CartPole::set_state(const State& state) {
  if (!std::isfinite(state.x) || !std::isfinite(state.x_dot) || !std::isfinite(state.angle) ||
      !std::isfinite(state.angle_dot)) {
    throw std::invalid_argument("CartPole: a number that is not finite");
  }
  state_ = state;
}

const qanat_env_table& cartpole_table() { return env::table_of<CartPole>; }

}  // namespace qanat::envs
