#include "envs/games/acrobot.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>

#include "envs/games/games.h"

namespace qanat::envs {
namespace {

using State = Acrobot::State;

constexpr double pi = std::numbers::pi;
constexpr double link_length = 1.0;   // m, both links
constexpr double link_mass = 1.0;     // kg, both
constexpr double link_centre = 0.5;   // m, from a link's upper end to its centre of mass
constexpr double link_inertia = 1.0;  // kg m^2, about the centre
constexpr double gravity = 9.8;       // m/s^2
constexpr double step_seconds = 0.2;
constexpr double top_velocity1 = 4 * pi;
constexpr double top_velocity2 = 9 * pi;

// The time derivative of `s` under `torque`. Names d1, d2, phi1, phi2 are the book's.
State derivative(const State& s, double torque) {
  constexpr double m = link_mass;
  constexpr double l = link_length;
  constexpr double c = link_centre;
  constexpr double inertia = link_inertia;
  const double cos2 = std::cos(s.angle2);
  const double sin2 = std::sin(s.angle2);
  const double d1 = m * c * c + m * (l * l + c * c + 2 * l * c * cos2) + inertia + inertia;
  const double d2 = m * (c * c + l * c * cos2) + inertia;
  const double phi2 = m * c * gravity * std::cos(s.angle1 + s.angle2 - pi / 2);
  const double phi1 = -m * l * c * s.velocity2 * s.velocity2 * sin2 - 2 * m * l * c * s.velocity2 * s.velocity1 * sin2 +
                      (m * c + m * l) * gravity * std::cos(s.angle1 - pi / 2) + phi2;
  const double acceleration2 = (torque + d2 / d1 * phi1 - m * l * c * s.velocity1 * s.velocity1 * sin2 - phi2) /
                               (m * c * c + inertia - d2 * d2 / d1);
  const double acceleration1 = -(d2 * acceleration2 + phi1) / d1;
  return {s.velocity1, s.velocity2, acceleration1, acceleration2};
}

State moved(const State& s, const State& rate, double seconds) {
  return {s.angle1 + seconds * rate.angle1, s.angle2 + seconds * rate.angle2, s.velocity1 + seconds * rate.velocity1,
          s.velocity2 + seconds * rate.velocity2};
}

double wrapped(double angle) {
  while (angle > pi) angle -= 2 * pi;
  while (angle < -pi) angle += 2 * pi;
  return angle;
}

}  // namespace

env::Spec Acrobot::spec() const {
  return {.observations =
              {{.name = "state", .dtype = env::DType::f32, .shape = {6}, .low = -top_velocity2, .high = top_velocity2}},
          .action = env::Action::discrete(3),
          .max_episode_steps = 500};
}

void Acrobot::reset(env::Rng& rng) {
  const auto draw = [&] { return static_cast<double>(static_cast<float>(rng.uniform(-0.1, 0.1))); };
  state_ = State{draw(), draw(), draw(), draw()};
}

env::Outcome Acrobot::step(std::int32_t action) {
  const double torque = action - 1;
  const State k1 = derivative(state_, torque);
  const State k2 = derivative(moved(state_, k1, step_seconds / 2), torque);
  const State k3 = derivative(moved(state_, k2, step_seconds / 2), torque);
  const State k4 = derivative(moved(state_, k3, step_seconds), torque);
  const auto next = [&](double State::*part) {
    return state_.*part + step_seconds / 6 * (k1.*part + 2 * k2.*part + 2 * k3.*part + k4.*part);
  };
  state_ = {wrapped(next(&State::angle1)), wrapped(next(&State::angle2)),
            std::clamp(next(&State::velocity1), -top_velocity1, top_velocity1),
            std::clamp(next(&State::velocity2), -top_velocity2, top_velocity2)};
  const bool reached = -std::cos(state_.angle1) - std::cos(state_.angle1 + state_.angle2) > 1;
  return {.reward = reached ? 0.0f : -1.0f, .terminated = reached};
}

void Acrobot::observe(const env::Row& row) const {
  const auto out = row.at<float>();
  out[0] = static_cast<float>(std::cos(state_.angle1));
  out[1] = static_cast<float>(std::sin(state_.angle1));
  out[2] = static_cast<float>(std::cos(state_.angle2));
  out[3] = static_cast<float>(std::sin(state_.angle2));
  out[4] = static_cast<float>(state_.velocity1);
  out[5] = static_cast<float>(state_.velocity2);
}

void Acrobot::set_state(const State& state) {
  // Written so that NaN is refused too.
  const auto within = [](double value, double limit) { return std::abs(value) <= limit; };
  if (!(within(state.angle1, pi) && within(state.angle2, pi) && within(state.velocity1, top_velocity1) &&
        within(state.velocity2, top_velocity2))) {
    throw std::invalid_argument("Acrobot: an angle or velocity beyond the limits");
  }
  state_ = state;
}

const qanat_env_table& acrobot_table() { return env::table_of<Acrobot>; }

}  // namespace qanat::envs
