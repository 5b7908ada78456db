// Which items a run of rows completes: the one place where windows end.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "replay/schema.h"

namespace qanat::replay {

// Calls visit(start_row, end_row, steps) for every item that the rows complete, start rows ascending. The item starts
// at row `start_row`, its window of `steps` rows bootstraps at `end_row` = start_row + steps, which is among the rows.
// `flags` are those of rows first_row, first_row + 1, ...; the running episode began at row `episode_first`. Returns
// the first row of the episode that is running at the end.
template <class Visit>
std::uint64_t visit_completed(std::span<const std::uint8_t> flags, std::uint64_t first_row, std::uint64_t episode_first,
                              std::uint64_t n_step, Visit&& visit) {
  for (std::size_t i = 0; i < flags.size(); ++i) {
    const std::uint64_t row = first_row + i;
    if (flags[i] & flag_first) episode_first = row;
    const std::uint64_t age = row - episode_first;
    if (flags[i] & flag_last_observation) {
      for (std::uint64_t steps = std::min(n_step, age); steps > 0; --steps) visit(row - steps, row, steps);
    } else if (age >= n_step) {
      visit(row - n_step, row, n_step);
    }
  }
  return episode_first;
}

}  // namespace qanat::replay
