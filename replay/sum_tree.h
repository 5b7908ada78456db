// Weights of slots, drawn in proportion: exact integer sums, so that nothing drifts.
//
// Leaves are u32, sums u64. Every inner node holds, for its 8 children, the sum of those before each: a draw compares
// one cache line a level, an update adds its difference to part of one line a level. A total of 2^31 leaves of
// 2^32-1 fits in 64 bits, so no sum overflows. The sum after any history is that of the leaves, in whatever order
// they were set. Kernels are chosen at run time (AVX-512 where it is there); all give the same results.
// Thread-compatible: one owner; const functions may run together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "replay/lazy_array.h"

namespace qanat::replay {

struct SumTreeLevel {
  std::uint64_t* before;  // [nodes, 8]: sum of the earlier children of the node
};

class SumTree {
 public:
  static constexpr std::uint64_t max_slots = std::uint64_t{1} << 31;

  // All leaves are 0. 1 <= slots <= max_slots.
  explicit SumTree(std::uint64_t slots);

  // Sets leaf slots[i] to weights[i], in order: of two for one slot the later stays. Slots are in range.
  void set(std::span<const std::uint32_t> slots, std::span<const std::uint32_t> weights);
  void set(std::uint32_t slot, std::uint32_t weight) { set({&slot, 1}, {&weight, 1}); }

  // For each of `points` (each < total()): the slot s with sum(leaves before s) <= point < that + leaf(s). A slot
  // whose leaf is 0 is never the answer. slots.size() == points.size().
  void find(std::span<const std::uint64_t> points, std::span<std::uint32_t> slots) const;

  [[nodiscard]] std::uint32_t leaf(std::uint32_t slot) const { return leaves_[slot]; }
  [[nodiscard]] std::uint64_t total() const { return total_; }
  [[nodiscard]] std::uint64_t slots() const { return slots_; }
  [[nodiscard]] std::uint64_t bytes() const;
  [[nodiscard]] static std::uint64_t predicted_bytes(std::uint64_t slots);

  // The kernels' name: "AVX3", "AVX2" and so on. For benchmarks and logs.
  [[nodiscard]] static const char* target();

 private:
  std::uint64_t slots_;
  std::uint64_t total_ = 0;
  LazyArray<std::uint32_t> leaves_;               // rounded up to whole groups of 8
  std::vector<LazyArray<std::uint64_t>> levels_;  // from the groups of 8 leaves up to the root node
  std::vector<SumTreeLevel> views_;               // the same, as the kernels see them
};

}  // namespace qanat::replay
