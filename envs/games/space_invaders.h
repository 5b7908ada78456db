// MinAtar space_invaders: a cannon against a group of aliens. "envs/games/minatar.h" says what all five games share.
//
// The cannon moves along row 9 of a board of 10 x 10. 24 aliens move sideways together, down a row at each edge, the
// faster the fewer they are, and shoot every 10 steps from the column nearest to the cannon. Shooting one pays 1; an
// alien or a bullet that reaches the cannon ends the episode, and so does the group when it turns with an alien in row
// 9. A new group comes when none is left, with ramping a faster one. Nothing is random but sticky actions. No time
// limit.
//
// Actions used: none, left, right, fire. Planes: cannon, alien, aliens again while the group heads left, the same for
// right, own bullet, enemy bullet.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "envs/games/minatar.h"

namespace qanat::envs {

class SpaceInvaders {
 public:
  static constexpr const char* id = "MinAtar/space_invaders";
  static constexpr const char* summary = "a cannon against a descending group of aliens on a 10 x 10 board";
  static constexpr const char* options_help = QANAT_MINATAR_OPTIONS_HELP QANAT_MINATAR_RAMPING_HELP;
  static constexpr int planes = 6;

  // A set of cells: by row, bit c for column c.
  using Cells = std::array<std::uint16_t, minatar::size>;

  // All of the game but its random stream. No padding: equal states are equal bytes. Countdowns in steps.
  struct State {
    std::int32_t cannon = 5;    // its column
    std::int32_t heading = -1;  // the group's: 1 right, -1 left
    std::int32_t move_interval = 12, move_countdown = 12;
    std::int32_t shot_countdown = 10;
    std::int32_t cooldown = 0;  // until the gun is ready
    std::int32_t level = 0;
    std::int32_t ended = 0;        // 1: frozen until reset
    std::int32_t last_action = 0;  // executed last, one of the six
    Cells aliens{};
    Cells bullets{};  // own
    Cells enemy_bullets{};

    friend bool operator==(const State&, const State&) = default;
  };
  static_assert(std::has_unique_object_representations_v<State>);

  explicit SpaceInvaders(const env::Options& options);
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
  void act(std::int32_t action);
  void move_bullets();
  void move_aliens();
  void shoot_back();
  [[nodiscard]] int hit_aliens();
  [[nodiscard]] bool covers_cannon(const Cells& cells) const;

  minatar::Controls controls_;
  bool ramping_;
  State state_;
};

}  // namespace qanat::envs
