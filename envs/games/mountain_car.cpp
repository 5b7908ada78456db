#include "envs/games/mountain_car.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "envs/games/games.h"

namespace qanat::envs {
namespace {

constexpr double lowest = -1.2;
constexpr double highest = 0.6;
constexpr double top_speed = 0.07;
constexpr double goal = 0.5;
constexpr double force = 0.001;
constexpr double gravity = 0.0025;

}  // namespace

env::Spec MountainCar::spec() const {
  return {.observations = {{.name = "state", .dtype = env::DType::f32, .shape = {2}, .low = lowest, .high = highest}},
          .action = env::Action::discrete(3),
          .max_episode_steps = 200};
}

void MountainCar::reset(env::Rng& rng) { state_ = {rng.uniform(-0.6, -0.4), 0}; }

env::Outcome MountainCar::step(std::int32_t action) {
  auto& [position, velocity] = state_;
  velocity += (action - 1) * force - gravity * std::cos(3 * position);
  velocity = std::clamp(velocity, -top_speed, top_speed);
  position = std::clamp(position + velocity, lowest, highest);
  if (position == lowest && velocity < 0) velocity = 0;  // the left wall stops the car
  return {.reward = -1, .terminated = position >= goal && velocity >= 0};
}

void MountainCar::observe(const env::Row& row) const {
  const auto out = row.at<float>();
  out[0] = static_cast<float>(state_.position);
  out[1] = static_cast<float>(state_.velocity);
}

void MountainCar::set_state(const State& state) {
  // Written so that NaN is refused too.
  if (!(state.position >= lowest && state.position <= highest && std::abs(state.velocity) <= top_speed)) {
    throw std::invalid_argument("MountainCar: a position or velocity beyond the limits");
  }
  state_ = state;
}

const qanat_env_table& mountain_car_table() { return env::table_of<MountainCar>; }

}  // namespace qanat::envs
