#include "actors/exploration.h"

#include <algorithm>
#include <cmath>

#include "nn/td.h"

namespace qanat::actors {
namespace {

std::int32_t random_action(std::int64_t actions, const std::uint8_t* mask, Rng& rng) {
  if (mask == nullptr) return static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(actions)));
  const auto allowed = std::count_if(mask, mask + actions, [](std::uint8_t bit) { return bit != 0; });
  if (allowed == 0) return 0;
  auto rank = rng.below(static_cast<std::uint64_t>(allowed));
  std::int32_t action = 0;
  while (mask[action] == 0 || rank-- > 0) ++action;
  return action;
}

}  // namespace

double epsilon_of(const ExplorationConfig& config, std::int64_t slot, std::int64_t ladder_slots,
                  std::uint64_t env_steps) {
  if (config.kind == "constant") return config.constant;
  if (config.kind == "linear") {
    const double progress = std::min(1.0, static_cast<double>(env_steps) / static_cast<double>(config.linear_steps));
    return config.linear_start + progress * (config.linear_end - config.linear_start);
  }
  const double place =
      ladder_slots > 1 ? static_cast<double>(slot % ladder_slots) / static_cast<double>(ladder_slots - 1) : 0.0;
  return std::pow(config.ladder_base, 1 + place * config.ladder_exponent);
}

Choice choose(std::span<const float> q, const std::uint8_t* mask, double epsilon, Rng& rng) {
  const auto actions = static_cast<std::int64_t>(q.size());
  const auto best = nn::masked_argmax(q.data(), 1, mask, actions);
  Choice out{static_cast<std::int32_t>(best), 0, q[static_cast<std::size_t>(best)]};
  if (rng.chance(epsilon)) out.action = random_action(actions, mask, rng);
  out.taken_q = q[static_cast<std::size_t>(out.action)];
  return out;
}

}  // namespace qanat::actors
