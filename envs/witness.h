// The witness environment, "witness": for tests that must recognise every step anywhere on its way.
//
// Its observation says who made it: i32 [4], (actor tag, slot, episode, t), t being the number of steps taken in the
// episode. Lengths, ends and rewards are the pure functions below, so a test can work out the whole history by hand.
// Actions change nothing; there are three.
//
// Options: actor (the tag, 0), episodes (stochastic, the default, or scripted), longest (7: episodes have 1 to
// `longest` steps), dtype (i32, the default, or f32, exact below 2^24), columns (1, or 2: a second observation
// "low_bytes", u8 [4], holds the same four numbers modulo 256), mask (false; true: actions are masked).
// The one metric is "episode", the number of the episode that ended.
#pragma once

#include <cstdint>

#include "core/rng.h"

namespace qanat::envs::witness {

constexpr std::int64_t actions = 3;

struct Rules {
  bool scripted = false;
  std::int64_t longest = 7;
};

struct End {
  bool terminated = false, truncated = false;
  friend bool operator==(const End&, const End&) = default;
};

// Steps in an episode, 1 to rules.longest. Scripted ones do not depend on the seed: they walk through all lengths.
[[nodiscard]] constexpr std::int64_t length(const Rules& rules, std::uint64_t seed, std::int64_t slot,
                                            std::int64_t episode) {
  if (rules.scripted) return 1 + (slot + episode) % rules.longest;
  return 1 + static_cast<std::int64_t>(derive_seed(seed, slot, episode, 1) % static_cast<std::uint64_t>(rules.longest));
}

// How it ends: terminated, truncated or both, a third each. With seven lengths the script meets all 21 pairs.
[[nodiscard]] constexpr End ending(const Rules& rules, std::uint64_t seed, std::int64_t slot, std::int64_t episode) {
  const std::uint64_t kind =
      rules.scripted ? static_cast<std::uint64_t>(slot + episode) % 3 : derive_seed(seed, slot, episode, 2) % 3;
  return {.terminated = kind != 1, .truncated = kind != 0};
}

// Paid for the step taken at t: a whole number in [-16, 16], so that sums of a few are exact in f32.
[[nodiscard]] constexpr float reward(std::int64_t slot, std::int64_t episode, std::int64_t t) {
  return static_cast<float>(static_cast<std::int64_t>(derive_seed(slot, episode, t, 3) % 33) - 16);
}

// Whether `action` is allowed at t, with the mask option: two of the three are.
[[nodiscard]] constexpr bool allowed(std::int64_t slot, std::int64_t episode, std::int64_t t, std::int64_t action) {
  return (slot + episode + t + action) % actions != 0;
}

}  // namespace qanat::envs::witness
