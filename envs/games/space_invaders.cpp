#include "envs/games/space_invaders.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>
#include <stdexcept>

#include "envs/games/games.h"

namespace qanat::envs {
namespace {

using namespace minatar;
using Cells = SpaceInvaders::Cells;

constexpr std::array<std::int32_t, 4> minimal_set = {none, left, right, fire};
constexpr int last_row = size - 1;
constexpr std::int32_t gun_interval = 5, shot_interval = 10, lowest_move_interval = 6;
constexpr unsigned all_columns = (1U << size) - 1;
// A new group: rows 0 to 3, columns 2 to 7.
constexpr Cells start = {0xfc, 0xfc, 0xfc, 0xfc};

constexpr std::uint16_t bit(int column) { return static_cast<std::uint16_t>(1U << column); }

int count(const Cells& cells) {
  return std::transform_reduce(cells.begin(), cells.end(), 0, std::plus<>(),
                               [](std::uint16_t row) { return std::popcount(row); });
}

std::uint16_t columns_of(const Cells& cells) {
  return std::reduce(cells.begin(), cells.end(), std::uint16_t{0}, std::bit_or<std::uint16_t>());
}

}  // namespace

SpaceInvaders::SpaceInvaders(const env::Options& options)
    : controls_(options, minimal_set), ramping_(options.boolean("ramping", true)) {}

env::Spec SpaceInvaders::spec() const { return {.observations = {board_of(planes)}, .action = controls_.space()}; }

void SpaceInvaders::reset(env::Rng&) {
  const std::int32_t last_action = state_.last_action;
  state_ = State{};
  state_.last_action = last_action;
  state_.aliens = start;
}

// Numbers in comments are those of the published rules.
env::Outcome SpaceInvaders::step(std::int32_t chosen, env::Rng& rng) {
  State& s = state_;
  const std::int32_t action = controls_.execute(chosen, s.last_action, rng);
  if (s.ended != 0) return {.reward = 0, .terminated = true};
  env::Outcome outcome;
  // 1. The cannon.
  act(action);
  // 2. and 3. Bullets.
  move_bullets();
  if (covers_cannon(s.enemy_bullets)) s.ended = 1;
  // 4. and 5. Aliens.
  if (covers_cannon(s.aliens)) s.ended = 1;
  if (s.move_countdown == 0) {
    s.move_countdown = std::min(count(s.aliens), s.move_interval);
    move_aliens();
    if (covers_cannon(s.aliens)) s.ended = 1;
  }
  // 6. Their shot.
  if (s.shot_countdown == 0) {
    s.shot_countdown = shot_interval;
    shoot_back();
  }
  // 7. Hits.
  outcome.reward = static_cast<float>(hit_aliens());
  // 8. Countdowns.
  if (s.cooldown > 0) --s.cooldown;
  --s.move_countdown;
  --s.shot_countdown;
  // 9. The next group.
  if (columns_of(s.aliens) == 0) {
    s.aliens = start;
    if (ramping_ && s.move_interval > lowest_move_interval) {
      --s.move_interval;
      ++s.level;
    }
  }
  outcome.terminated = s.ended != 0;
  return outcome;
}

void SpaceInvaders::act(std::int32_t action) {
  State& s = state_;
  if (action == fire && s.cooldown == 0) {
    s.bullets[last_row] |= bit(s.cannon);
    s.cooldown = gun_interval;
  }
  s.cannon = moved(s.cannon, (action == right) - (action == left), 0, size - 1);
}

// What rises past row 0 or falls past row 9 is gone.
void SpaceInvaders::move_bullets() {
  std::shift_left(state_.bullets.begin(), state_.bullets.end(), 1);
  state_.bullets[last_row] = 0;
  std::shift_right(state_.enemy_bullets.begin(), state_.enemy_bullets.end(), 1);
  state_.enemy_bullets[0] = 0;
}

void SpaceInvaders::move_aliens() {
  State& s = state_;
  const int edge = s.heading < 0 ? 0 : size - 1;
  if ((columns_of(s.aliens) & bit(edge)) != 0) {
    s.heading = -s.heading;
    if (s.aliens[last_row] != 0) s.ended = 1;
    // Down a row; aliens of row 9 appear again in row 0.
    std::rotate(s.aliens.begin(), s.aliens.end() - 1, s.aliens.end());
    return;
  }
  for (std::uint16_t& row : s.aliens) row = static_cast<std::uint16_t>(s.heading < 0 ? row >> 1 : row << 1);
}

// From the lowest alien of the nearest column that holds any; of two as near, the left one.
void SpaceInvaders::shoot_back() {
  const unsigned columns = columns_of(state_.aliens);
  for (int distance = 0; distance < size; ++distance) {
    for (const int column : {state_.cannon - distance, state_.cannon + distance}) {
      if (!on_grid(column) || (columns & bit(column)) == 0) continue;
      int row = last_row;
      while ((state_.aliens[static_cast<std::size_t>(row)] & bit(column)) == 0) --row;
      state_.enemy_bullets[static_cast<std::size_t>(row)] |= bit(column);
      return;
    }
  }
}

int SpaceInvaders::hit_aliens() {
  int hits = 0;
  for (std::size_t row = 0; row < size; ++row) {
    const auto both = static_cast<std::uint16_t>(state_.aliens[row] & state_.bullets[row]);
    state_.aliens[row] ^= both;
    state_.bullets[row] ^= both;
    hits += std::popcount(both);
  }
  return hits;
}

bool SpaceInvaders::covers_cannon(const Cells& cells) const { return (cells[last_row] & bit(state_.cannon)) != 0; }

void SpaceInvaders::observe(const env::Row& row) const {
  const Board board(row.at<std::uint8_t>());
  board.set(0, last_row, state_.cannon);
  const auto show = [&](int plane, const Cells& cells) {
    for (int r = 0; r < size; ++r) {
      for (unsigned rest = cells[static_cast<std::size_t>(r)]; rest != 0; rest &= rest - 1) {
        board.set(plane, r, std::countr_zero(rest));
      }
    }
  };
  show(1, state_.aliens);
  show(state_.heading < 0 ? 2 : 3, state_.aliens);
  show(4, state_.bullets);
  show(5, state_.enemy_bullets);
}

env::Image SpaceInvaders::render() const {
  static constexpr std::array<Paint, 4> paints = {
      {{0, {64, 160, 255}}, {4, {255, 255, 255}}, {5, {255, 140, 40}}, {1, {80, 220, 120}}}};
  return picture_of_board(*this, paints);
}

void SpaceInvaders::set_state(const State& state) {
  const auto sound = [](const Cells& cells) {
    return std::all_of(cells.begin(), cells.end(), [](std::uint16_t row) { return (row & ~all_columns) == 0; });
  };
  // Without an alien the group's next move would come after no steps at all.
  if (!on_grid(state.cannon) || !is_heading(state.heading) ||
      !within(state.move_interval, lowest_move_interval, State{}.move_interval) ||
      !within(state.move_countdown, 0, State{}.move_interval) || !within(state.shot_countdown, 0, shot_interval) ||
      !within(state.cooldown, 0, gun_interval) || !within(state.level, 0, 6) || !within(state.ended, 0, 1) ||
      !within(state.last_action, 0, all_actions - 1) || !sound(state.aliens) || !sound(state.bullets) ||
      !sound(state.enemy_bullets) || columns_of(state.aliens) == 0) {
    throw std::invalid_argument("space_invaders: a state out of range");
  }
  state_ = state;
}

const qanat_env_table& space_invaders_table() { return env::table_of<SpaceInvaders>; }

}  // namespace qanat::envs
