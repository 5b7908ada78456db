// MinAtar breakout (Young & Tian, "MinAtar: an Atari-inspired testbed for thorough and reproducible reinforcement
// learning experiments", 2019), from the published rules of version 1.0.15.
//
// A board of 10 x 10: a paddle in row 9, a ball that moves diagonally, three rows of bricks. Reward 1 a brick; the
// bricks come back once all are gone. The episode is terminated when the ball is missed; there is no time limit.
// Actions: 0 none, 1 left, 2 up, 3 right, 4 down, 5 fire, of which breakout uses 0, 1 and 3 and takes the others as
// none. With minimal_actions there are three: 0 none, 1 left, 2 right. Each step repeats, with the sticky
// probability, the action executed before, over the ends of episodes too.
//
// Observation: u8 [4, 10, 10], 0 or 1, planes paddle, ball, trail (where the ball was), bricks. MinAtar itself puts
// the channel last; ours stands first, as convolutions here want it.
#pragma once

#include <array>
#include <cstdint>

#include "qanat/env.hpp"

namespace qanat::envs {

class Breakout {
 public:
  static constexpr const char* id = "MinAtar/breakout";
  static constexpr const char* options_help =
      "sticky=0.1: probability of repeating the action executed before\n"
      "minimal_actions=false: three actions (none, left, right) in place of MinAtar's six";
  static constexpr int size = 10;
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
      return bricks[static_cast<std::size_t>((row - 1) * size + column)];
    }
    [[nodiscard]] bool has_brick(int row, int column) const {
      return row >= 1 && row <= brick_rows && bricks[static_cast<std::size_t>((row - 1) * size + column)] != 0;
    }
    friend bool operator==(const State&, const State&) = default;
  };

  explicit Breakout(const env::Options& options);
  [[nodiscard]] env::Spec spec() const;
  void seed(std::uint64_t seed);
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

  double sticky_;
  bool minimal_actions_;
  State state_;
};

}  // namespace qanat::envs
