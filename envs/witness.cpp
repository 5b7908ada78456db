#include "envs/witness.h"

#include <array>
#include <limits>
#include <stdexcept>

#include "envs/games/games.h"
#include "qanat/env.hpp"

namespace qanat::envs {
namespace {

class Witness {
 public:
  static constexpr const char* id = "witness";
  static constexpr const char* summary = "observations that name their maker, for tests of the platform";
  static constexpr const char* options_help =
      "actor=0: the tag that observations carry\n"
      "episodes=stochastic: or scripted, which walks through all lengths and ends\n"
      "longest=7: episodes have 1 to this many steps\n"
      "dtype=i32: or f32\n"
      "columns=1: or 2, with a second observation low_bytes\n"
      "mask=false: true masks one action of the three";

  struct State {
    std::uint64_t seed = 0;
    std::int64_t episode = -1, t = 0;
  };

  Witness(const env::Options& options, std::size_t slot)
      : slot_(static_cast<std::int64_t>(slot)),
        actor_(options.integer("actor", 0, 0, std::numeric_limits<std::int32_t>::max())),
        rules_{.scripted = options.choice("episodes", {"stochastic", "scripted"}, 0) == 1,
               .longest = options.integer("longest", 7, 1, 1'000'000)},
        real_(options.choice("dtype", {"i32", "f32"}, 0) == 1),
        columns_(options.integer("columns", 1, 1, 2)),
        mask_(options.boolean("mask", false)) {}

  [[nodiscard]] env::Spec spec() const {
    env::Spec spec{.observations = {{.name = "who",
                                     .dtype = real_ ? env::DType::f32 : env::DType::i32,
                                     .shape = {4},
                                     .low = 0,
                                     .high = std::numeric_limits<std::int32_t>::max()}},
                   .action = env::Action::discrete(witness::actions),
                   .metrics = {"episode"},
                   .action_mask = mask_};
    if (columns_ == 2) {
      spec.observations.push_back({.name = "low_bytes", .dtype = env::DType::u8, .shape = {4}, .low = 0, .high = 255});
    }
    return spec;
  }

  void seed(std::uint64_t seed) { state_ = {.seed = seed}; }

  void reset(env::Rng&) {
    ++state_.episode;
    state_.t = 0;
  }

  [[nodiscard]] env::Outcome step(std::int32_t) {
    const float reward = witness::reward(slot_, state_.episode, state_.t);
    ++state_.t;
    if (state_.t < witness::length(rules_, state_.seed, slot_, state_.episode)) return {.reward = reward};
    const witness::End end = witness::ending(rules_, state_.seed, slot_, state_.episode);
    return {.reward = reward, .terminated = end.terminated, .truncated = end.truncated};
  }

  void observe(const env::Row& row) const {
    const std::array<std::int64_t, 4> who = {actor_, slot_, state_.episode, state_.t};
    for (std::size_t i = 0; i < who.size(); ++i) {
      if (real_) {
        row.at<float>()[i] = static_cast<float>(who[i]);
      } else {
        row.at<std::int32_t>()[i] = static_cast<std::int32_t>(who[i]);
      }
      if (columns_ == 2) row.at<std::uint8_t>(1)[i] = static_cast<std::uint8_t>(who[i] & 255);
    }
  }

  void action_mask(std::span<std::uint8_t> out) const {
    for (std::int64_t a = 0; a < witness::actions; ++a) {
      out[static_cast<std::size_t>(a)] = witness::allowed(slot_, state_.episode, state_.t, a);
    }
  }

  void metrics(std::span<double> out) const { out[0] = static_cast<double>(state_.episode); }

  [[nodiscard]] const State& state() const { return state_; }
  void set_state(const State& state) {
    // Episodes beyond i32 could not be shown.
    if (state.episode < 0 || state.episode > std::numeric_limits<std::int32_t>::max() || state.t < 0 ||
        state.t >= witness::length(rules_, state.seed, slot_, state.episode)) {
      throw std::invalid_argument("witness: an episode or step that cannot be");
    }
    state_ = state;
  }

 private:
  std::int64_t slot_, actor_;
  witness::Rules rules_;
  bool real_;
  std::int64_t columns_;
  bool mask_;
  State state_;
};

}  // namespace

const qanat_env_table& witness_table() { return env::table_of<Witness>; }

}  // namespace qanat::envs
