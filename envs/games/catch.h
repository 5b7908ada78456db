// Catch (Mnih et al., "Recurrent models of visual attention", 2014; the rules of bsuite's catch).
//
// A board of 10 x 5. A ball starts in row 0, in a column drawn uniformly, and falls one row a step; the paddle starts
// in the middle of row 9. Actions: 0 left, 1 stay, 2 right; first the paddle moves, then the ball. When the ball is in
// row 9 the episode is terminated with reward +1 if the paddle is in its column, else -1. All other rewards are 0, so
// an episode has 9 steps.
//
// "catch" shows the board as u8 [1, 10, 5], 1 where ball or paddle is. "catch-pixels" is the same game shown as u8
// [1, 84, 84] with values 0 and 255, each cell a rectangle of about 8 x 17 pixels.
#pragma once

#include <cstdint>

#include "qanat/env.hpp"

namespace qanat::envs {

class Catch {
 public:
  static constexpr const char* id = "catch";
  static constexpr const char* summary = "catch a falling ball on a 10 x 5 board";
  static constexpr int rows = 10;
  static constexpr int columns = 5;

  struct State {
    std::int32_t ball_row = 0, ball_column = 0, paddle = columns / 2;
  };

  [[nodiscard]] env::Spec spec() const;
  void reset(env::Rng& rng);
  [[nodiscard]] env::Outcome step(std::int32_t action);
  void observe(const env::Row& row) const;
  [[nodiscard]] env::Image render() const;

  [[nodiscard]] const State& state() const { return state_; }
  // Throws std::invalid_argument when a place is off the board.
  void set_state(const State& state);

 private:
  State state_;
};

class CatchPixels : public Catch {
 public:
  static constexpr const char* id = "catch-pixels";
  static constexpr const char* summary = "catch, shown as 84 x 84 pixels";
  static constexpr int size = 84;

  [[nodiscard]] env::Spec spec() const;
  void observe(const env::Row& row) const;
};

}  // namespace qanat::envs
