// MinAtar asterix: collect treasure, avoid enemies. "envs/games/minatar.h" says what all five games share.
//
// A player on rows 1 to 8 of a board of 10 x 10, columns 0 to 9. Each of those rows is a lane for at most one entity,
// which enters at an edge and crosses the board: treasure (one in three) pays 1 when it meets the player, an enemy ends
// the episode. With ramping, entities come more often and move faster every 102 steps, until both happen every step.
// No time limit.
//
// Actions used: none, left, up, right, down. Planes: player, enemy, trail (the cell behind each entity), treasure.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "envs/games/minatar.h"

namespace qanat::envs {

class Asterix {
 public:
  static constexpr const char* id = "MinAtar/asterix";
  static constexpr const char* summary = "collect treasure and avoid enemies on a 10 x 10 board";
  static constexpr const char* options_help = QANAT_MINATAR_OPTIONS_HELP QANAT_MINATAR_RAMPING_HELP;
  static constexpr int planes = 4;
  static constexpr int lanes = 8;  // rows 1 to 8

  struct Entity {
    enum Kind : std::int8_t { empty = 0, enemy = 1, treasure = 2 };
    std::int8_t kind = empty;
    std::int8_t column = 0;
    std::int8_t heading = 0;  // 1 right, -1 left; an empty lane has 0 in all three
    friend bool operator==(const Entity&, const Entity&) = default;
  };

  // All of the game but its random stream. No padding: equal states are equal bytes. Countdowns in steps.
  struct State {
    std::int32_t row = 5, column = 5;  // the player
    std::int32_t spawn_interval = 10, spawn_countdown = 10;
    std::int32_t move_interval = 5, move_countdown = 5;
    std::int32_t ramp_countdown = 100;
    std::int32_t level = 0;
    std::int32_t ended = 0;        // 1: frozen until reset
    std::int32_t last_action = 0;  // executed last, one of the six
    std::array<Entity, lanes> lane{};

    [[nodiscard]] Entity& in_row(int board_row) { return lane[static_cast<std::size_t>(board_row - 1)]; }
    friend bool operator==(const State&, const State&) = default;
  };
  static_assert(std::has_unique_object_representations_v<State>);

  explicit Asterix(const env::Options& options);
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
  void spawn(env::Rng& rng);
  // What an entity on the player's cell does: pays, or ends the episode.
  void meet(Entity& entity, env::Outcome& outcome);
  void move_entities(env::Outcome& outcome);
  void ramp();

  minatar::Controls controls_;
  bool ramping_;
  State state_;
};

}  // namespace qanat::envs
