// Memory chain, bsuite's test of memory (Osband et al., "Behaviour suite for reinforcement learning", ICLR 2020).
//
// An episode has `memory_length` steps. The first observation shows num_bits bits drawn at random as -1 or 1, later
// ones 0 in their place; the last one before the last action names one of them, drawn uniformly. The last action, 0
// or 1, is judged: reward 1 when it is that bit (0 for -1), else -1. Actions before it do nothing, and all other
// rewards are 0. So the best mean return is 1, and 0 without memory.
//
// Observation: f32 [2 + num_bits]: time left as 1 - t / memory_length, t steps after the start; the number of the
// wanted bit (0 except in the last step); the bits. With one bit this is the paper's memory length, with several its
// memory size. The steps are the paper's: an observation is shown once. The bsuite package (0.3.5) shows the first one
// twice, so its episodes are one step longer.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "qanat/env.hpp"

namespace qanat::envs {

class MemoryChain {
 public:
  static constexpr const char* id = "bsuite/memory_chain";
  static constexpr const char* summary = "repeat at the end a bit shown at the start: a test of memory";
  static constexpr const char* options_help =
      "memory_length=10: steps of an episode\n"
      "num_bits=1: bits shown at the start, one of which is wanted at the end";
  static constexpr int most_bits = 64;

  struct State {
    std::uint64_t bits = 0;  // bit i is bit number i
    std::int32_t t = 0;      // steps taken
    std::int32_t query = 0;  // the bit that is wanted at the end
    friend bool operator==(const State&, const State&) = default;
  };
  static_assert(std::has_unique_object_representations_v<State>);

  explicit MemoryChain(const env::Options& options);
  [[nodiscard]] env::Spec spec() const;
  void reset(env::Rng& rng);
  [[nodiscard]] env::Outcome step(std::int32_t action);
  void observe(const env::Row& row) const;

  [[nodiscard]] const State& state() const { return state_; }
  // Throws std::invalid_argument when a part is out of range.
  void set_state(const State& state);

 private:
  [[nodiscard]] bool bit(int i) const { return (state_.bits >> i & 1U) != 0; }

  std::int32_t length_;
  int bits_;
  State state_;
};

}  // namespace qanat::envs
