// What the five MinAtar games share (Young & Tian, "MinAtar: an Atari-inspired testbed for thorough and reproducible
// reinforcement learning experiments", 2019): actions, board and picture. The rules are the published ones of version
// 1.0.15; each game's header states its own.
//
// Actions: 0 none, 1 left, 2 up, 3 right, 4 down, 5 fire; one that a game does not use acts as none. With
// minimal_actions a game has only those it uses, numbered in this order from 0. Each step repeats, with the sticky
// probability, the action executed in the step before in place of the chosen one. The executed action is remembered
// over the ends of episodes, but not over seeds.
//
// Observation: u8 [planes, 10, 10], 0 or 1. MinAtar itself puts the channel last; ours stands first, as convolutions
// here want it. Rows count from the top, columns from the left.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "envs/games/picture.h"
#include "qanat/env.hpp"

namespace qanat::envs::minatar {

constexpr int size = 10;  // rows and columns of the board
constexpr std::int32_t none = 0, left = 1, up = 2, right = 3, down = 4, fire = 5;
constexpr std::int32_t all_actions = 6;

#define QANAT_MINATAR_OPTIONS_HELP                                    \
  "sticky=0.1: probability of repeating the action executed before\n" \
  "minimal_actions=false: only the actions that the game uses, in place of MinAtar's six"
#define QANAT_MINATAR_RAMPING_HELP "\nramping=true: the game grows harder as it goes on"

// From the action chosen to the one executed.
class Controls {
 public:
  // minimal_set: the actions that the game uses; it outlives the Controls.
  Controls(const env::Options& options, std::span<const std::int32_t> minimal_set)
      : sticky_(options.number("sticky", 0.1, 0, 1)),
        minimal_(options.boolean("minimal_actions", false) ? minimal_set : std::span<const std::int32_t>()) {}

  [[nodiscard]] env::Action space() const {
    return env::Action::discrete(minimal_.empty() ? all_actions : static_cast<std::int64_t>(minimal_.size()));
  }

  // `last` is the action executed before, and becomes the one executed now.
  [[nodiscard]] std::int32_t execute(std::int32_t chosen, std::int32_t& last, env::Rng& rng) const {
    if (!rng.chance(sticky_)) last = minimal_.empty() ? chosen : minimal_[static_cast<std::size_t>(chosen)];
    return last;
  }

 private:
  double sticky_;
  std::span<const std::int32_t> minimal_;  // empty: all six
};

[[nodiscard]] inline env::Tensor board_of(int planes) {
  return {.name = "board", .dtype = env::DType::u8, .shape = {planes, size, size}, .low = 0, .high = 1};
}

// A row or a column.
[[nodiscard]] constexpr bool on_grid(int place) { return place >= 0 && place < size; }
[[nodiscard]] constexpr bool within(int value, int low, int high) { return value >= low && value <= high; }
// 1 or -1: down or right, up or left.
[[nodiscard]] constexpr bool is_heading(int value) { return value == 1 || value == -1; }

// One move of a player: by `step` within [low, high].
[[nodiscard]] constexpr std::int32_t moved(std::int32_t place, std::int32_t step, std::int32_t low, std::int32_t high) {
  return std::clamp(place + step, low, high);
}

// A countdown is due when it is 0 at the moment it is tested; else it falls by one.
template <class Count>
[[nodiscard]] bool due(Count& countdown) {
  if (countdown == 0) return true;
  --countdown;
  return false;
}

// The observation being written; clear at first.
class Board {
 public:
  explicit Board(std::span<std::uint8_t> cells) : cells_(cells) {
    std::fill(cells_.begin(), cells_.end(), std::uint8_t{0});
  }

  // The cell is on the grid.
  void set(int plane, int row, int column) const { cells_[index(plane, row, column)] = 1; }
  // Nothing when the column is off the grid.
  void set_if_on_grid(int plane, int row, int column) const {
    if (on_grid(column)) set(plane, row, column);
  }
  // The cells of a row in [first, last).
  void set_row(int plane, int row, int first, int last) const {
    for (int column = first; column < last; ++column) set(plane, row, column);
  }

 private:
  static std::size_t index(int plane, int row, int column) {
    return static_cast<std::size_t>((plane * size + row) * size + column);
  }

  std::span<std::uint8_t> cells_;
};

// A plane's colour in pictures; where several planes are set, the first in the list shows.
struct Paint {
  int plane;
  Colour colour;
};

// The board of any of the games as a picture.
template <class Game>
[[nodiscard]] env::Image picture_of_board(const Game& game, std::span<const Paint> paints) {
  std::vector<std::uint8_t> cells(static_cast<std::size_t>(Game::planes * size * size));
  void* base = cells.data();
  const env::Row::Column column{env::DType::u8, cells.size()};
  game.observe(env::Row(&base, &column, 0));
  return picture_of_cells(size, size, 16, [&](int row, int c) -> Colour {
    for (const Paint& paint : paints) {
      if (cells[static_cast<std::size_t>((paint.plane * size + row) * size + c)] != 0) return paint.colour;
    }
    return {0, 0, 0};
  });
}

}  // namespace qanat::envs::minatar
