// MinAtar breakout: keep a ball in play under a wall of bricks. "envs/games/minatar.h" says what all five games share.
//
// A board of 10 x 10: a paddle in row 9, a ball that moves diagonally, three rows of bricks. Reward 1 a brick; the
// bricks come back once all are gone. The episode is terminated when the ball is missed; there is no time limit.
//
// Actions used: none, left, right. Planes: paddle, ball, trail (where the ball was), bricks.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "envs/games/minatar.h"

namespace qanat::envs {

class Breakout {
 public:
  static constexpr const char* id = "MinAtar/breakout";
  static constexpr const char* summary = "keep a ball in play under a wall of bricks on a 10 x 10 board";
  static constexpr const char* options_help = QANAT_MINATAR_OPTIONS_HELP;
  static constexpr int planes = 4;
  static constexpr int brick_rows = 3;  // rows 1 to 3

  // All of the game but its random stream. No padding: equal states are equal bytes.
  struct State {
    std::int32_t ball_row = 0, ball_column = 0;
    std::int32_t row_heading = 1, column_heading = 1;  // 1 is down and right, -1 up and left
    std::int32_t trail_row = 0, trail_column = 0;
    std::int32_t paddle = 0;                // its column
    std::int32_t contact = 0;               // 1 after a step in which the ball met a brick
    std::int32_t ended = 0;                 // 1: frozen until reset
    std::int32_t last_action = 0;           // executed last, one of the six
    std::array<std::uint8_t, 32> bricks{};  // row by row from row 1; the last two are not used

    [[nodiscard]] std::uint8_t& brick(int row, int column) {
      return bricks[static_cast<std::size_t>((row - 1) * minatar::size + column)];
    }
    [[nodiscard]] bool has_brick(int row, int column) const {
      return row >= 1 && row <= brick_rows && bricks[static_cast<std::size_t>((row - 1) * minatar::size + column)] != 0;
    }
    friend bool operator==(const State&, const State&) = default;
  };
  static_assert(std::has_unique_object_representations_v<State>);

  explicit Breakout(const env::Options& options);
  [[nodiscard]] env::Spec spec() const;
  void seed(std::uint64_t) { state_.last_action = minatar::none; }
  void reset(env::Rng& rng);
  [[nodiscard]] env::Outcome step(std::int32_t action, env::Rng& rng);
  void observe(const env::Row& row) const;
  [[nodiscard]] env::Image render() const;

  [[nodiscard]] const State& state() const { return state_; }
  // Throws std::invalid_argument when a part is out of range.
  void set_state(const State& state);

 private:
  // One step of the game with the action executed. Numbers in its comments are those of the published rules.
  [[nodiscard]] env::Outcome advance(std::int32_t action);
  void refill();

  minatar::Controls controls_;
  State state_;
};

}  // namespace qanat::envs
