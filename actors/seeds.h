// Seeds of environments, by purpose.
//
// The purpose is the seed's two highest bits, so episodes trained on, episodes of periodic evaluations and those of
// the final one can never begin from the same seed, whatever the other numbers are. Pure functions.
#pragma once

#include <cstdint>

#include "core/rng.h"

namespace qanat::actors {

enum class SeedPurpose : std::uint64_t { training = 0, evaluation = 1, final_evaluation = 2 };

template <class... Numbers>
[[nodiscard]] constexpr std::uint64_t environment_seed(SeedPurpose purpose, std::uint64_t run_seed,
                                                       Numbers... numbers) {
  return (derive_seed(run_seed, static_cast<std::uint64_t>(purpose), numbers...) >> 2) |
         (static_cast<std::uint64_t>(purpose) << 62);
}

}  // namespace qanat::actors
