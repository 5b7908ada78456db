#include "envs/games/asterix.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "envs/games/games.h"

namespace qanat::envs {
namespace {

using namespace minatar;

constexpr std::array<std::int32_t, 5> minimal_set = {none, left, up, right, down};
constexpr std::int32_t ramp_interval = 100;

}  // namespace

Asterix::Asterix(const env::Options& options)
    : controls_(options, minimal_set), ramping_(options.boolean("ramping", true)) {}

env::Spec Asterix::spec() const { return {.observations = {board_of(planes)}, .action = controls_.space()}; }

void Asterix::reset(env::Rng&) {
  const std::int32_t last_action = state_.last_action;
  state_ = State{};
  state_.last_action = last_action;
}

// Numbers in comments are those of the published rules.
env::Outcome Asterix::step(std::int32_t chosen, env::Rng& rng) {
  State& s = state_;
  const std::int32_t action = controls_.execute(chosen, s.last_action, rng);
  if (s.ended != 0) return {.reward = 0, .terminated = true};
  env::Outcome outcome;
  // 1. A new entity.
  if (s.spawn_countdown == 0) {
    spawn(rng);
    s.spawn_countdown = s.spawn_interval;
  }
  // 2. The player.
  s.column = moved(s.column, (action == right) - (action == left), 0, size - 1);
  s.row = moved(s.row, (action == down) - (action == up), 1, lanes);
  // 3. What stands where the player is now.
  meet(s.in_row(s.row), outcome);
  // 4. The entities, all at once.
  if (s.move_countdown == 0) {
    s.move_countdown = s.move_interval;
    move_entities(outcome);
  }
  // 5. Countdowns.
  --s.spawn_countdown;
  --s.move_countdown;
  // 6. Difficulty.
  if (ramping_) ramp();
  outcome.terminated = s.ended != 0;
  return outcome;
}

void Asterix::spawn(env::Rng& rng) {
  const bool rightwards = rng.below(2) == 0;
  const bool treasure = rng.below(3) == 0;
  unsigned empty = 0;  // bit i: lane i
  for (std::size_t i = 0; i < state_.lane.size(); ++i) empty |= unsigned{state_.lane[i].kind == Entity::empty} << i;
  if (empty == 0) return;
  for (auto skip = rng.below(static_cast<std::uint64_t>(std::popcount(empty))); skip > 0; --skip) empty &= empty - 1;
  state_.lane[static_cast<std::size_t>(std::countr_zero(empty))] = {
      .kind = treasure ? Entity::treasure : Entity::enemy,
      .column = static_cast<std::int8_t>(rightwards ? 0 : size - 1),
      .heading = static_cast<std::int8_t>(rightwards ? 1 : -1)};
}

void Asterix::meet(Entity& entity, env::Outcome& outcome) {
  if (entity.kind == Entity::empty || entity.column != state_.column) return;
  if (entity.kind == Entity::enemy) {
    state_.ended = 1;
    return;
  }
  outcome.reward += 1;
  entity = {};
}

void Asterix::move_entities(env::Outcome& outcome) {
  for (int row = 1; row <= lanes; ++row) {
    Entity& entity = state_.in_row(row);
    if (entity.kind == Entity::empty) continue;
    entity.column = static_cast<std::int8_t>(entity.column + entity.heading);
    if (!on_grid(entity.column)) {
      entity = {};
    } else if (row == state_.row) {
      meet(entity, outcome);
    }
  }
}

void Asterix::ramp() {
  State& s = state_;
  if (s.spawn_interval <= 1 && s.move_interval <= 1) return;
  // At -1 rather than at 0: a ramp every 102 steps.
  if (s.ramp_countdown >= 0) {
    --s.ramp_countdown;
    return;
  }
  s.ramp_countdown = ramp_interval;
  ++s.level;
  if (s.spawn_interval > 1) --s.spawn_interval;
  if (s.level % 2 == 0 && s.move_interval > 1) --s.move_interval;
}

void Asterix::observe(const env::Row& row) const {
  const Board board(row.at<std::uint8_t>());
  board.set(0, state_.row, state_.column);
  for (int i = 0; i < lanes; ++i) {
    const Entity& entity = state_.lane[static_cast<std::size_t>(i)];
    if (entity.kind == Entity::empty) continue;
    board.set(entity.kind == Entity::treasure ? 3 : 1, i + 1, entity.column);
    board.set_if_on_grid(2, i + 1, entity.column - entity.heading);
  }
}

env::Image Asterix::render() const {
  static constexpr std::array<Paint, 4> paints = {
      {{0, {64, 160, 255}}, {1, {220, 60, 60}}, {3, {240, 200, 60}}, {2, {96, 96, 96}}}};
  return picture_of_board(*this, paints);
}

void Asterix::set_state(const State& state) {
  // A countdown longer than any interval is allowed: it holds a spawn back.
  constexpr int longest = 1'000'000;
  const auto sound = [](const Entity& entity) {
    if (entity.kind == Entity::empty) return entity == Entity{};
    return within(entity.kind, Entity::enemy, Entity::treasure) && on_grid(entity.column) && is_heading(entity.heading);
  };
  if (!within(state.row, 1, lanes) || !on_grid(state.column) || !within(state.spawn_interval, 1, 10) ||
      !within(state.spawn_countdown, 0, longest) || !within(state.move_interval, 1, 5) ||
      !within(state.move_countdown, 0, longest) || !within(state.ramp_countdown, -1, ramp_interval) ||
      !within(state.level, 0, 9) || !within(state.ended, 0, 1) || !within(state.last_action, 0, all_actions - 1) ||
      !std::all_of(state.lane.begin(), state.lane.end(), sound)) {
    throw std::invalid_argument("asterix: a state out of range");
  }
  state_ = state;
}

const qanat_env_table& asterix_table() { return env::table_of<Asterix>; }

}  // namespace qanat::envs
