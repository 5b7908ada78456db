// Deep sea, bsuite's test of exploration (Osband et al., "Behaviour suite for reinforcement learning", ICLR 2020). The
// rules are the paper's; what it leaves open was settled by watching the bsuite package (0.3.5) play.
//
// A diver starts at the top left of a board of size x size and sinks one row a step, moving one column left or right,
// within the board. In each cell one of the two actions means right, the other left; which one is drawn once from the
// mapping seed and stays. Right costs 0.01 / size, left nothing; right in the bottom right cell pays 1 on top. So only
// right in all `size` steps brings 0.99, every other way nothing or less. The episode is terminated after `size` steps.
//
// With stochastic=true a step to the right goes left with probability 1 / size (its cost stays), and the last reward of
// an episode that ends in a bottom corner has standard normal noise added.
//
// Observation: u8 [1, size, size], 1 where the diver is; all 0 after the last step. The actions of a given mapping seed
// are not those of the package, which draws from another generator.
#pragma once

#include <cstdint>
#include <vector>

#include "qanat/env.hpp"

namespace qanat::envs {

class DeepSea {
 public:
  static constexpr const char* id = "bsuite/deep_sea";
  static constexpr const char* summary = "one way in 2^size pays: a test of exploration";
  static constexpr const char* options_help =
      "size=10: rows and columns, and steps of an episode\n"
      "mapping_seed=42: draws which action means right in which cell\n"
      "randomize_actions=true: false makes action 1 right everywhere, for debugging\n"
      "stochastic=false: true makes steps to the right fail at times and the last reward noisy";

  struct State {
    std::int32_t row = 0, column = 0;  // row == size: ended
  };

  explicit DeepSea(const env::Options& options);
  [[nodiscard]] env::Spec spec() const;
  void reset(env::Rng&) { state_ = {}; }
  [[nodiscard]] env::Outcome step(std::int32_t action, env::Rng& rng);
  void observe(const env::Row& row) const;
  [[nodiscard]] env::Image render() const;

  // Whether `action` means right in a cell of the board.
  [[nodiscard]] bool is_right(std::int32_t action, int row, int column) const {
    return action == right_action_[static_cast<std::size_t>(row * size_ + column)];
  }
  [[nodiscard]] const State& state() const { return state_; }
  // Throws std::invalid_argument when the place cannot be reached.
  void set_state(const State& state);

 private:
  int size_;
  bool stochastic_;
  std::vector<std::uint8_t> right_action_;  // [size, size]
  State state_;
};

}  // namespace qanat::envs
