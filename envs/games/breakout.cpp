#include "envs/games/breakout.h"

#include <algorithm>
#include <stdexcept>

#include "envs/games/games.h"
#include "envs/games/picture.h"

namespace qanat::envs {
namespace {

constexpr std::int32_t left = 1;
constexpr std::int32_t right = 3;
constexpr std::array<std::int32_t, 3> minimal_set = {0, left, right};
constexpr std::int32_t all_actions = 6;
constexpr int bricks = Breakout::brick_rows * Breakout::size;
constexpr int last_row = Breakout::size - 1;

}  // namespace

Breakout::Breakout(const env::Options& options)
    : sticky_(options.number("sticky", 0.1, 0, 1)), minimal_actions_(options.boolean("minimal_actions", false)) {}

env::Spec Breakout::spec() const {
  return {.observations = {{.name = "board", .dtype = env::DType::u8, .shape = {4, size, size}, .low = 0, .high = 1}},
          .action = env::Action::discrete(minimal_actions_ ? std::int64_t{minimal_set.size()} : all_actions)};
}

// The remembered action outlives episodes, but not the seed.
void Breakout::seed(std::uint64_t) { state_.last_action = 0; }

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

env::Outcome Breakout::step(std::int32_t action, env::Rng& rng) {
  if (minimal_actions_) action = minimal_set[static_cast<std::size_t>(action)];
  if (rng.chance(sticky_)) action = state_.last_action;
  state_.last_action = action;
  return advance(action);
}

env::Outcome Breakout::advance(std::int32_t action) {
  State& s = state_;
  env::Outcome outcome;
  if (s.ended != 0) return {.reward = 0, .terminated = true};
  // 1. The paddle.
  s.paddle = std::clamp(s.paddle + (action == right) - (action == left), 0, size - 1);
  // 2. The trail and the target.
  const std::int32_t old_column = s.ball_column;
  s.trail_row = s.ball_row;
  s.trail_column = old_column;
  std::int32_t row = s.ball_row + s.row_heading;
  std::int32_t column = old_column + s.column_heading;
  // 3. Side walls.
  if (column < 0 || column >= size) {
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
  const auto board = row.at<std::uint8_t>();
  std::fill(board.begin(), board.end(), std::uint8_t{0});
  const auto at = [](int plane, int r, int c) { return static_cast<std::size_t>((plane * size + r) * size + c); };
  board[at(0, last_row, state_.paddle)] = 1;
  board[at(1, state_.ball_row, state_.ball_column)] = 1;
  board[at(2, state_.trail_row, state_.trail_column)] = 1;
  std::copy_n(state_.bricks.begin(), bricks, board.begin() + static_cast<std::ptrdiff_t>(at(3, 1, 0)));
}

env::Image Breakout::render() const {
  return picture_of_cells(size, size, 16, [&](int row, int column) -> Colour {
    if (row == state_.ball_row && column == state_.ball_column) return {255, 255, 255};
    if (row == last_row && column == state_.paddle) return {64, 160, 255};
    if (row == state_.trail_row && column == state_.trail_column) return {96, 96, 96};
    if (state_.has_brick(row, column)) return {200, 90, 40};
    return {0, 0, 0};
  });
}

void Breakout::set_state(const State& state) {
  const auto within = [](std::int32_t value, std::int32_t low, std::int32_t high) {
    return value >= low && value <= high;
  };
  const auto on_board = [&](std::int32_t place) { return within(place, 0, size - 1); };
  const auto heading = [](std::int32_t value) { return value == 1 || value == -1; };
  const bool sound = on_board(state.ball_row) && on_board(state.ball_column) && on_board(state.trail_row) &&
                     on_board(state.trail_column) && on_board(state.paddle) && heading(state.row_heading) &&
                     heading(state.column_heading) && within(state.contact, 0, 1) && within(state.ended, 0, 1) &&
                     within(state.last_action, 0, all_actions - 1) && (state.ended != 0 || state.ball_row < last_row) &&
                     std::all_of(state.bricks.begin(), state.bricks.end(), [](std::uint8_t b) { return b <= 1; });
  if (!sound) throw std::invalid_argument("breakout: a state out of range");
  state_ = state;
}

const qanat_env_table& breakout_table() { return env::table_of<Breakout>; }

}  // namespace qanat::envs
