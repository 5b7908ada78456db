// What the witness environment must have done, worked out from its published rules alone.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "actors/seeds.h"
#include "envs/witness.h"

namespace qanat::system_test {

namespace witness = envs::witness;

// (actor tag, slot within the group, episode, t): what an observation says.
using Who = std::array<std::int64_t, 4>;

// One environment slot of one actor process.
struct SlotHistory {
  std::int64_t tag = 0;
  std::int64_t slot = 0;  // within its group
  std::uint64_t seed = 0;

  [[nodiscard]] std::int64_t length(std::int64_t episode) const { return witness::length({}, seed, slot, episode); }
  [[nodiscard]] witness::End ending(std::int64_t episode) const { return witness::ending({}, seed, slot, episode); }
  friend auto operator<=>(const SlotHistory&, const SlotHistory&) = default;
};

// A sample as it must be.
struct HandWorked {
  std::vector<Who> state;       // [K], oldest first
  std::vector<Who> next_state;  // [K]
  std::vector<float> rewards;   // [m]
  bool terminal = false;
};

// Of the step (episode, t) when the stream's newest row of that episode is at `newest` (its length, once its last
// observation is stored). Precondition: newest > t.
inline HandWorked hand_worked(const SlotHistory& history, std::int64_t episode, std::int64_t t, std::int64_t newest,
                              std::int64_t stack, std::int64_t n) {
  const auto length = history.length(episode);
  const auto m = std::min({n, length - t, newest - t});
  HandWorked out;
  for (std::int64_t k = stack - 1; k >= 0; --k) {
    out.state.push_back({history.tag, history.slot, episode, std::max<std::int64_t>(t - k, 0)});
    out.next_state.push_back({history.tag, history.slot, episode, std::max<std::int64_t>(t + m - k, 0)});
  }
  for (std::int64_t k = 0; k < m; ++k) out.rewards.push_back(witness::reward(history.slot, episode, t + k));
  out.terminal = t + m == length && history.ending(episode).terminated;
  return out;
}

}  // namespace qanat::system_test
