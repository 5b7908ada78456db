// A MinAtar game under test: stepped by hand from any state, with what its checks ask about.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "envs/games/minatar.h"
#include "tests/support/catch.h"

namespace qanat::envs {

using Cell = std::pair<int, int>;  // (row, column)

// Without sticky actions unless the options say so; just reset.
template <class Game>
class Trial {
 public:
  using State = typename Game::State;

  explicit Trial(const char* options = "sticky=0", std::uint64_t seed = 7) : game_(env::Options(options)), rng_(seed) {
    game_.reset(rng_);
  }

  // Changes the state by hand: change(State&).
  template <class Change>
  Trial& with(Change&& change) {
    State state = game_.state();
    change(state);
    game_.set_state(state);
    return *this;
  }

  // One step; its reward.
  float step(std::int32_t action = minatar::none) {
    const env::Outcome outcome = game_.step(action, rng_);
    ++steps_;
    total_ += outcome.reward;
    if (outcome.reward != 0) paid_.push_back(steps_);
    ended_ = outcome.terminated;
    REQUIRE(!outcome.truncated);
    return outcome.reward;
  }

  // Plays `action` until so many steps are done since the start.
  Trial& play_to(int last, std::int32_t action = minatar::none) {
    while (steps_ < last) step(action);
    return *this;
  }
  // The same until the end, or at most so many steps. Returns the step of the end, 0 when there was none.
  int play_out(const std::vector<std::int32_t>& list, int most = 5000) {
    while (!ended_ && steps_ < most) step(list[static_cast<std::size_t>(steps_) % list.size()]);
    return ended_ ? steps_ : 0;
  }

  [[nodiscard]] const State& state() const { return game_.state(); }
  [[nodiscard]] int steps() const { return steps_; }
  [[nodiscard]] float total() const { return total_; }
  [[nodiscard]] const std::vector<int>& paid() const { return paid_; }  // steps with a reward other than 0
  [[nodiscard]] bool ended() const { return ended_; }
  Game& game() { return game_; }
  env::Rng& rng() { return rng_; }

  [[nodiscard]] std::vector<std::uint8_t> observation() const {
    std::vector<std::uint8_t> out(static_cast<std::size_t>(Game::planes) * 100, 99);
    void* base = out.data();
    const env::Row::Column column{env::DType::u8, out.size()};
    game_.observe(env::Row(&base, &column, 0));
    return out;
  }

  // The set cells of a plane, row by row.
  [[nodiscard]] std::vector<Cell> cells(int plane) const {
    const auto board = observation();
    std::vector<Cell> out;
    for (int i = 0; i < 100; ++i) {
      const int value = board[static_cast<std::size_t>(plane * 100 + i)];
      REQUIRE((value == 0 || value == 1));
      if (value == 1) out.emplace_back(i / 10, i % 10);
    }
    return out;
  }

  // How many cells are set in each plane.
  [[nodiscard]] std::array<int, Game::planes> counts() const {
    std::array<int, Game::planes> out{};
    for (int plane = 0; plane < Game::planes; ++plane) {
      out[static_cast<std::size_t>(plane)] = static_cast<int>(cells(plane).size());
    }
    return out;
  }

 private:
  Game game_;
  env::Rng rng_;
  int steps_ = 0;
  float total_ = 0;
  std::vector<int> paid_;
  bool ended_ = false;
};

}  // namespace qanat::envs
