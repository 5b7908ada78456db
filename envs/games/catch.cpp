#include "envs/games/catch.h"

#include <algorithm>
#include <stdexcept>

#include "envs/games/games.h"
#include "envs/games/picture.h"

namespace qanat::envs {

env::Spec Catch::spec() const {
  return {
      .observations = {{.name = "board", .dtype = env::DType::u8, .shape = {1, rows, columns}, .low = 0, .high = 1}},
      .action = env::Action::discrete(3)};
}

void Catch::reset(env::Rng& rng) { state_ = {0, static_cast<std::int32_t>(rng.below(columns)), columns / 2}; }

env::Outcome Catch::step(std::int32_t action) {
  state_.paddle = std::clamp(state_.paddle + action - 1, 0, columns - 1);
  ++state_.ball_row;
  if (state_.ball_row < rows - 1) return {};
  return {.reward = state_.ball_column == state_.paddle ? 1.0f : -1.0f, .terminated = true};
}

void Catch::observe(const env::Row& row) const {
  const auto board = row.at<std::uint8_t>();
  std::fill(board.begin(), board.end(), std::uint8_t{0});
  board[static_cast<std::size_t>(state_.ball_row * columns + state_.ball_column)] = 1;
  board[static_cast<std::size_t>((rows - 1) * columns + state_.paddle)] = 1;
}

env::Image Catch::render() const {
  return picture_of_cells(rows, columns, 16, [&](int row, int column) -> Colour {
    if (row == state_.ball_row && column == state_.ball_column) return {255, 255, 255};
    if (row == rows - 1 && column == state_.paddle) return {64, 160, 255};
    return {0, 0, 0};
  });
}

void Catch::set_state(const State& state) {
  const auto inside = [](std::int32_t place, int extent) { return place >= 0 && place < extent; };
  if (!inside(state.ball_row, rows) || !inside(state.ball_column, columns) || !inside(state.paddle, columns)) {
    throw std::invalid_argument("catch: a place off the board");
  }
  state_ = state;
}

env::Spec CatchPixels::spec() const {
  env::Spec spec = Catch::spec();
  spec.observations = {{.name = "screen", .dtype = env::DType::u8, .shape = {1, size, size}, .low = 0, .high = 255}};
  return spec;
}

void CatchPixels::observe(const env::Row& row) const {
  const auto screen = row.at<std::uint8_t>();
  std::fill(screen.begin(), screen.end(), std::uint8_t{0});
  // Cell (r, c) covers the pixels whose scaled-down place is in it; the edges are rounded down.
  const auto draw = [&](int r, int c) {
    const int left = c * size / columns;
    const int right = (c + 1) * size / columns;
    for (int y = r * size / rows; y < (r + 1) * size / rows; ++y) {
      std::fill(screen.begin() + y * size + left, screen.begin() + y * size + right, std::uint8_t{255});
    }
  };
  draw(state().ball_row, state().ball_column);
  draw(rows - 1, state().paddle);
}

const qanat_env_table& catch_table() { return env::table_of<Catch>; }
const qanat_env_table& catch_pixels_table() { return env::table_of<CatchPixels>; }

}  // namespace qanat::envs
