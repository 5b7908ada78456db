// MinAtar seaquest: a submarine shoots, saves divers and must breathe. "envs/games/minatar.h" says what all five games
// share.
//
// The player moves over rows 0 (the surface) to 8 of a board of 10 x 10. Fish and enemy submarines cross the board;
// shooting one pays 1, touching one or an enemy's bullet ends the episode, and so does running out of oxygen: 200 steps
// below the surface. Divers on the player's cell come aboard, at most 6. Surfacing with none ends the episode; with
// some it costs one of them and fills up the oxygen; with 6 it also pays a twentieth of the oxygen that was left and
// takes them all. With ramping, each surfacing makes enemies come more often, and at times move faster. No time limit.
//
// After a surfacing with 6 divers the count aboard is -1, as the published rules say, so the next diver makes it 0.
//
// Actions used: all six. Planes: own front, own back, own bullet, trail (the cell behind each fish, enemy submarine and
// diver), enemy bullet, fish, enemy submarine, oxygen gauge, diver gauge, diver.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "envs/games/minatar.h"

namespace qanat::envs {

class Seaquest {
 public:
  static constexpr const char* id = "MinAtar/seaquest";
  static constexpr const char* summary = "shoot, save divers and breathe on a 10 x 10 board";
  static constexpr const char* options_help = QANAT_MINATAR_OPTIONS_HELP QANAT_MINATAR_RAMPING_HELP;
  static constexpr int planes = 10;

  // What moves along a row. Countdowns in steps; those that a kind does not have are 0.
  struct Swimmer {
    std::int8_t row = 0, column = 0;
    std::int8_t heading = 0;  // 1 right, -1 left
    std::int8_t move_countdown = 0;
    std::int8_t shot_countdown = 0;
    friend bool operator==(const Swimmer&, const Swimmer&) = default;
  };

  // At most N in order of their appearance; unused places are clear.
  template <std::size_t N>
  struct List {
    std::uint8_t count = 0;
    std::array<Swimmer, N> items{};

    Swimmer& operator[](int i) { return items[static_cast<std::size_t>(i)]; }
    const Swimmer& operator[](int i) const { return items[static_cast<std::size_t>(i)]; }
    [[nodiscard]] int size() const { return count; }
    [[nodiscard]] const Swimmer* begin() const { return items.data(); }
    [[nodiscard]] const Swimmer* end() const { return items.data() + count; }
    // Dropped when the list is full, which play from a reset never reaches: see State.
    void add(const Swimmer& item) {
      if (count < N) items[count++] = item;
    }
    void remove(int i);
    friend bool operator==(const List&, const List&) = default;
  };

  // All of the game but its random stream. No padding: equal states are equal bytes. Countdowns in steps.
  //
  // The lists' room: an enemy moves every 6 steps at first, every 3 at last, and takes 10 moves to leave; with one
  // spawn a step at most 30 to 60 are there at a time. A bullet lives 10 steps; submarines shoot every 11, the player
  // every 5. A diver comes every 30 steps and stays for 60.
  struct State {
    std::int32_t row = 0, column = 5;
    std::int32_t heading = -1;  // 1 right, -1 left
    std::int32_t oxygen = 200;  // steps left below the surface
    std::int32_t divers = 0;    // aboard, at most 6; negative after a rescue
    std::int32_t surfaced = 1;  // 1: at the surface since the last surfacing
    std::int32_t cooldown = 0;  // until the gun is ready
    std::int32_t spawn_interval = 20, spawn_countdown = 20;
    std::int32_t diver_countdown = 30;
    std::int32_t move_interval = 5;  // of enemies
    std::int32_t level = 0;
    std::int32_t ended = 0;        // 1: frozen until reset
    std::int32_t last_action = 0;  // executed last, one of the six
    List<4> bullets{};             // own
    List<64> enemy_bullets{};
    List<64> fish{};
    List<64> submarines{};  // enemies
    List<7> swimmers{};     // divers in the water; 7 fill the last word up

    friend bool operator==(const State&, const State&) = default;
  };
  static_assert(std::has_unique_object_representations_v<State>);

  explicit Seaquest(const env::Options& options);
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
  void spawn_enemy(env::Rng& rng);
  void spawn_diver(env::Rng& rng);
  void act(std::int32_t action);
  void move_bullets(env::Outcome& outcome);
  void move_divers();
  template <std::size_t N>
  void move_enemies(List<N>& enemies, bool armed, env::Outcome& outcome);
  void move_enemy_bullets();
  void breathe(env::Outcome& outcome);
  void surface(env::Outcome& outcome);
  [[nodiscard]] bool at_player(const Swimmer& swimmer) const {
    return swimmer.row == state_.row && swimmer.column == state_.column;
  }

  minatar::Controls controls_;
  bool ramping_;
  State state_;
};

}  // namespace qanat::envs
