// One numbered list of actions for environments whose actions are several numbers.
//
// Works over any environment. MultiDiscrete: the product of all choices, the first number slowest, so that action
// a = (a_0 * n_1 + a_1) * n_2 + a_2 ... Box: each number takes `bins` values from its low to its high bound, evenly
// spaced with both bounds among them, then the same product. A mask over the single numbers becomes one over the
// product: allowed is what has all its parts allowed. All else passes through.
#pragma once

#include "envs/env_handle.h"

namespace qanat::envs {

inline constexpr std::int64_t most_product_actions = 4096;

// `env` itself when its actions are Discrete already. Throws ConfigError naming the count when there would be more than
// most_product_actions, InputError when the spec is broken.
[[nodiscard]] EnvHandle with_discrete_actions(EnvHandle env, std::int64_t bins, std::size_t slots);

}  // namespace qanat::envs
