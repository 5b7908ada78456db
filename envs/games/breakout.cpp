#include "envs/games/breakout.h"

#include <algorithm>
#include <stdexcept>

#include "envs/games/games.h"

namespace qanat::envs {
namespace {

using namespace minatar;

constexpr std::array<std::int32_t, 3> minimal_set = {none, left, right};
constexpr int bricks = Breakout::brick_rows * size;
constexpr int last_row = size - 1;

}  // namespace

Breakout::Breakout(const env::Options& options) : controls_(options, minimal_set) {}

env::Spec Breakout::spec() const { return {.observations = {board_of(planes)}, .action = controls_.space()}; }

void Breakout::refill() { std::fill_n(state_.bricks.begin(), bricks, std::uint8_t{1}); }

void Breakout::reset(env::Rng& rng) {
  const bool from_left = rng.below(2) == 0;
  const std::int32_t last_action = state_.last_action;
  state_ = State{};
  state_.last_action = last_action;
  state_.ball_row = state_.trail_row = 3;
  state_.ball_column = state_.trail_column = from_left ? 0 : size - 1;
  state_.column_heading = from_left ? 1 : -1;
  state_.paddle = 4;
  refill();
}

env::Outcome Breakout::step(std::int32_t chosen, env::Rng& rng) {
  return advance(controls_.execute(chosen, state_.last_action, rng));
}

env::Outcome Breakout::advance(std::int32_t action) {
  State& s = state_;
  env::Outcome outcome;
  if (s.ended != 0) return {.reward = 0, .terminated = true};
  // 1. The paddle.
  s.paddle = moved(s.paddle, (action == right) - (action == left), 0, size - 1);
  // 2. The trail and the target.
  const std::int32_t old_column = s.ball_column;
  s.trail_row = s.ball_row;
  s.trail_column = old_column;
  std::int32_t row = s.ball_row + s.row_heading;
  std::int32_t column = old_column + s.column_heading;
  // 3. Side walls.
  if (!on_grid(column)) {
    column = std::clamp(column, 0, size - 1);
    s.column_heading = -s.column_heading;
  }
  // 4. Ceiling, brick or paddle.
  bool contact = false;
  if (row < 0) {
    row = 0;
    s.row_heading = 1;
  } else if (s.has_brick(row, column)) {
    contact = true;
    if (s.contact == 0) {
      outcome.reward = 1;
      s.brick(row, column) = 0;
      row = s.ball_row;
      s.row_heading = -s.row_heading;
    }
  } else if (row == last_row) {
    if (std::none_of(s.bricks.begin(), s.bricks.begin() + bricks, [](std::uint8_t b) { return b != 0; })) refill();
    if (s.paddle == old_column || s.paddle == column) {
      if (s.paddle != old_column) s.column_heading = -s.column_heading;
      s.row_heading = -s.row_heading;
      row = s.ball_row;
    } else {
      s.ended = 1;
      outcome.terminated = true;
    }
  }
  // 5. The flag and the ball.
  s.contact = contact;
  s.ball_row = row;
  s.ball_column = column;
  return outcome;
}

void Breakout::observe(const env::Row& row) const {
  const auto cells = row.at<std::uint8_t>();
  const Board board(cells);
  board.set(0, last_row, state_.paddle);
  board.set(1, state_.ball_row, state_.ball_column);
  board.set(2, state_.trail_row, state_.trail_column);
  std::copy_n(state_.bricks.begin(), bricks, cells.begin() + 3 * size * size + size);
}

env::Image Breakout::render() const {
  static constexpr std::array<Paint, 4> paints = {
      {{1, {255, 255, 255}}, {0, {64, 160, 255}}, {2, {96, 96, 96}}, {3, {200, 90, 40}}}};
  return picture_of_board(*this, paints);
}

void Breakout::set_state(const State& state) {
  const bool sound = on_grid(state.ball_row) && on_grid(state.ball_column) && on_grid(state.trail_row) &&
                     on_grid(state.trail_column) && on_grid(state.paddle) && is_heading(state.row_heading) &&
                     is_heading(state.column_heading) && within(state.contact, 0, 1) && within(state.ended, 0, 1) &&
                     within(state.last_action, 0, all_actions - 1) && (state.ended != 0 || state.ball_row < last_row) &&
                     std::all_of(state.bricks.begin(), state.bricks.end(), [](std::uint8_t b) { return b <= 1; });
  if (!sound) throw std::invalid_argument("breakout: a state out of range");
  state_ = state;
}

const qanat_env_table& breakout_table() { return env::table_of<Breakout>; }

}  // namespace qanat::envs
