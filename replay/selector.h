// How a shard chooses among its items: one interface, several rules.
//
// A selector knows slots and their priorities, nothing of rows. `leaf / mass` is the exact probability of each draw.
// Thread-compatible: one owner.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/rng.h"

namespace qanat::replay {

// Priorities that did not fit the fixed point, since the start.
struct LeafClamps {
  std::uint64_t low = 0;   // positive, but its leaf would round to 0: became 1
  std::uint64_t high = 0;  // beyond 2^32 - 1
};

// Fixed-point weights: leaf = clamp(round(priority^alpha * 2^20), 1, 2^32 - 1); 0 only for priority 0, whatever alpha
// (0^0 := 0). The scale gives a resolution of 1e-6 around priority^alpha = 1 and a range of 4.8e-7 to 4095.999.
class LeafScale {
 public:
  static constexpr int fraction_bits = 20;

  // alpha >= 0, finite.
  explicit LeafScale(double alpha) : alpha_(alpha) {}
  // priority >= 0, finite.
  [[nodiscard]] std::uint32_t leaf(float priority, LeafClamps& clamps) const;

 private:
  double alpha_;
};

// Which of how many equal parts of the mass are drawn from: draw i lies in part (first + i) mod total.
struct Strata {
  std::uint32_t first = 0;  // < total
  std::uint32_t total = 0;  // at least as many as are drawn; 0: as many
};

class Selector {
 public:
  virtual ~Selector() = default;

  // Items join or change: slots[i] has priorities[i] (finite, >= 0) from now on. Of two for one slot the later stays.
  virtual void set(std::span<const std::uint32_t> slots, std::span<const float> priorities) = 0;
  // Items leave. A slot that is not there does no harm.
  virtual void remove(std::span<const std::uint32_t> slots) = 0;

  // The sum of all leaves.
  [[nodiscard]] virtual std::uint64_t mass() const = 0;
  [[nodiscard]] virtual std::uint32_t leaf(std::uint32_t slot) const = 0;
  // Fills `slots` with independent stratified draws. mass() > 0. Items with leaf 0 are never drawn.
  virtual void draw(Rng& rng, Strata strata, std::span<std::uint32_t> slots) = 0;

  [[nodiscard]] virtual LeafClamps clamps() const = 0;
  [[nodiscard]] virtual std::uint64_t bytes() const = 0;
};

// `name` is "prioritised" or "uniform" (every item has leaf 1; alpha is not used). Throws ConfigError for any other.
[[nodiscard]] std::unique_ptr<Selector> make_selector(std::string_view name, double alpha, std::uint64_t slots);
[[nodiscard]] std::uint64_t predicted_selector_bytes(std::uint64_t slots);

// points[i] = floor((k + U) * mass / total), with k the number of draw i's stratum and U uniform in [0, 1) for each:
// every integer below `mass` is equally likely over all strata, also where their bounds are not integers.
// 0 < mass < 2^63.
void stratified_points(std::uint64_t mass, Strata strata, Rng& rng, std::span<std::uint64_t> points);

}  // namespace qanat::replay
