// MinAtar freeway: bring a chicken over eight lanes of traffic. "envs/games/minatar.h" says what all five games share.
//
// The chicken stays in column 4 of a board of 10 x 10 and moves up or down one row, at most every third step. One car
// drives in each of rows 1 to 8, from edge to edge and round again; a car of speed number s (1 to 5) moves every s + 1
// steps. Row 0 pays 1, draws all cars' speeds and directions anew and takes the chicken back to row 9; a hit takes it
// back for nothing. The episode is terminated after 2,501 steps.
//
// Actions used: none, up, down. Planes: chicken, car, and the cell behind each car in plane 1 + its speed number.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "envs/games/minatar.h"

namespace qanat::envs {

class Freeway {
 public:
  static constexpr const char* id = "MinAtar/freeway";
  static constexpr const char* summary = "cross eight lanes of traffic on a 10 x 10 board, 2,501 steps";
  static constexpr const char* options_help = QANAT_MINATAR_OPTIONS_HELP;
  static constexpr int planes = 7;
  static constexpr int lanes = 8;  // rows 1 to 8

  struct Car {
    std::int8_t column = 0;
    std::int8_t speed = 1;      // 1 to 5, the larger the slower
    std::int8_t heading = 1;    // 1 right, -1 left
    std::int8_t countdown = 1;  // steps
    friend bool operator==(const Car&, const Car&) = default;
  };

  // All of the game but its random stream. No padding: equal states are equal bytes.
  struct State {
    std::int32_t row = 9;             // the chicken's
    std::int32_t move_countdown = 3;  // steps until it may move
    std::int32_t allowance = 2500;    // steps; below 0 the episode ends
    std::int32_t ended = 0;           // 1: frozen until reset
    std::int32_t last_action = 0;     // executed last, one of the six
    std::array<Car, lanes> cars{};    // by row from row 1

    friend bool operator==(const State&, const State&) = default;
  };
  static_assert(std::has_unique_object_representations_v<State>);

  explicit Freeway(const env::Options& options);
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
  // New speeds and directions; columns stay.
  void draw_cars(env::Rng& rng);

  minatar::Controls controls_;
  State state_;
};

}  // namespace qanat::envs
