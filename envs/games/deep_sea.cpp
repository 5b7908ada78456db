#include "envs/games/deep_sea.h"

#include <algorithm>
#include <stdexcept>

#include "envs/games/games.h"
#include "envs/games/picture.h"

namespace qanat::envs {
namespace {

constexpr double move_cost = 0.01;  // of an episode in which every step goes right

}  // namespace

DeepSea::DeepSea(const env::Options& options)
    : size_(static_cast<int>(options.integer("size", 10, 2, 200))),
      stochastic_(options.boolean("stochastic", false)),
      right_action_(static_cast<std::size_t>(size_ * size_), 1) {
  env::Rng rng(static_cast<std::uint64_t>(options.integer("mapping_seed", 42, 0)));
  if (!options.boolean("randomize_actions", true)) return;
  for (auto& action : right_action_) action = static_cast<std::uint8_t>(rng.below(2));
}

env::Spec DeepSea::spec() const {
  return {.observations = {{.name = "board", .dtype = env::DType::u8, .shape = {1, size_, size_}, .low = 0, .high = 1}},
          .action = env::Action::discrete(2)};
}

env::Outcome DeepSea::step(std::int32_t action, env::Rng& rng) {
  State& s = state_;
  if (s.row == size_) return {.reward = 0, .terminated = true};
  const bool right = is_right(action, s.row, s.column);
  const bool last = s.row == size_ - 1;
  double reward = right ? -move_cost / size_ : 0;
  if (last && right && s.column == size_ - 1) reward += 1;
  if (stochastic_ && last && (s.column == 0 || s.column == size_ - 1)) reward += rng.normal();
  const bool slips = stochastic_ && right && rng.chance(1.0 / size_);
  s.column = std::clamp(s.column + (right && !slips ? 1 : -1), 0, size_ - 1);
  ++s.row;
  return {.reward = static_cast<float>(reward), .terminated = last};
}

void DeepSea::observe(const env::Row& row) const {
  const auto board = row.at<std::uint8_t>();
  std::fill(board.begin(), board.end(), std::uint8_t{0});
  if (state_.row < size_) board[static_cast<std::size_t>(state_.row * size_ + state_.column)] = 1;
}

env::Image DeepSea::render() const {
  return picture_of_cells(size_, size_, 8, [&](int row, int column) -> Colour {
    if (row == state_.row && column == state_.column) return {255, 255, 255};
    if (row == size_ - 1 && column == size_ - 1) return {240, 200, 60};
    if (column > row) return {0, 0, 0};
    return {20, 40, 80};
  });
}

void DeepSea::set_state(const State& state) {
  if (state.row < 0 || state.row >= size_ || state.column < 0 || state.column > state.row) {
    throw std::invalid_argument("deep_sea: a place out of reach");
  }
  state_ = state;
}

const qanat_env_table& deep_sea_table() { return env::table_of<DeepSea>; }

}  // namespace qanat::envs
