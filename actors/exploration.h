// Which action a slot takes: the best by its Q-values, or with probability epsilon any allowed one.
//
// One owner. The random numbers are the actor's own, drawn slot by slot in a fixed order.
#pragma once

#include <cstdint>
#include <span>

#include "actors/config.h"
#include "core/rng.h"

namespace qanat::actors {

// Of slot `slot` (counted over all actors; wraps around when there are more than the ladder has) at env step
// `env_steps` of the whole run.
[[nodiscard]] double epsilon_of(const ExplorationConfig& config, std::int64_t slot, std::int64_t ladder_slots,
                                std::uint64_t env_steps);

struct Choice {
  std::int32_t action = 0;
  float taken_q = 0;  // Q of that action
  float best_q = 0;   // the largest Q of an allowed action
};

// q: [actions]; mask: [actions], 1 where allowed, or null: all allowed. Ties go to the lowest index; with no action
// allowed the answer is 0. Draws one number, and a second when exploring.
[[nodiscard]] Choice choose(std::span<const float> q, const std::uint8_t* mask, double epsilon, Rng& rng);

}  // namespace qanat::actors
