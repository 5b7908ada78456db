#include "envs/games/freeway.h"

#include <algorithm>
#include <stdexcept>

#include "envs/games/games.h"

namespace qanat::envs {
namespace {

using namespace minatar;

constexpr std::array<std::int32_t, 3> minimal_set = {none, up, down};
constexpr int chicken_column = 4;
constexpr int home = size - 1;
constexpr std::int32_t move_interval = 3;
constexpr int speeds = 5;

}  // namespace

Freeway::Freeway(const env::Options& options) : controls_(options, minimal_set) {}

env::Spec Freeway::spec() const { return {.observations = {board_of(planes)}, .action = controls_.space()}; }

void Freeway::draw_cars(env::Rng& rng) {
  for (Car& car : state_.cars) {
    car.speed = static_cast<std::int8_t>(1 + rng.below(speeds));
    car.heading = rng.below(2) == 0 ? 1 : -1;
    car.countdown = car.speed;
  }
}

void Freeway::reset(env::Rng& rng) {
  const std::int32_t last_action = state_.last_action;
  state_ = State{};
  state_.last_action = last_action;
  draw_cars(rng);
}

// Numbers in comments are those of the published rules.
env::Outcome Freeway::step(std::int32_t chosen, env::Rng& rng) {
  State& s = state_;
  const std::int32_t action = controls_.execute(chosen, s.last_action, rng);
  if (s.ended != 0) return {.reward = 0, .terminated = true};
  env::Outcome outcome;
  // 1. The chicken. Walking against the border counts as a move.
  if ((action == up || action == down) && s.move_countdown == 0) {
    s.row = moved(s.row, action == down ? 1 : -1, 0, home);
    s.move_countdown = move_interval;
  }
  // 2. Across.
  if (s.row == 0) {
    outcome.reward = 1;
    draw_cars(rng);
    s.row = home;
  }
  // 3. The cars, hit before and after their move.
  for (int row = 1; row <= lanes; ++row) {
    Car& car = s.cars[static_cast<std::size_t>(row - 1)];
    if (car.column == chicken_column && s.row == row) s.row = home;
    if (!due(car.countdown)) continue;
    car.countdown = car.speed;
    car.column = static_cast<std::int8_t>((car.column + car.heading + size) % size);
    if (car.column == chicken_column && s.row == row) s.row = home;
  }
  // 4. and 5. Countdowns.
  if (s.move_countdown > 0) --s.move_countdown;
  if (--s.allowance < 0) s.ended = 1;
  outcome.terminated = s.ended != 0;
  return outcome;
}

void Freeway::observe(const env::Row& row) const {
  const Board board(row.at<std::uint8_t>());
  board.set(0, state_.row, chicken_column);
  for (int i = 0; i < lanes; ++i) {
    const Car& car = state_.cars[static_cast<std::size_t>(i)];
    board.set(1, i + 1, car.column);
    board.set(1 + car.speed, i + 1, (car.column - car.heading + size) % size);
  }
}

env::Image Freeway::render() const {
  static constexpr std::array<Paint, 7> paints = {{{0, {255, 255, 255}},
                                                   {1, {220, 60, 60}},
                                                   {2, {150, 150, 150}},
                                                   {3, {125, 125, 125}},
                                                   {4, {100, 100, 100}},
                                                   {5, {75, 75, 75}},
                                                   {6, {50, 50, 50}}}};
  return picture_of_board(*this, paints);
}

void Freeway::set_state(const State& state) {
  const auto sound = [](const Car& car) {
    return on_grid(car.column) && within(car.speed, 1, speeds) && is_heading(car.heading) &&
           within(car.countdown, 0, car.speed);
  };
  if (!within(state.row, 1, home) || !within(state.move_countdown, 0, move_interval) ||
      !within(state.allowance, -1, State{}.allowance) || !within(state.ended, 0, 1) ||
      !within(state.last_action, 0, all_actions - 1) || !std::all_of(state.cars.begin(), state.cars.end(), sound)) {
    throw std::invalid_argument("freeway: a state out of range");
  }
  state_ = state;
}

const qanat_env_table& freeway_table() { return env::table_of<Freeway>; }

}  // namespace qanat::envs
