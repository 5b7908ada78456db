// The one rule of frame stacking, shared by the replay's gather and the actors.
//
// The stack of step t with depth K is rows t-K+1 .. t of its episode, oldest first; where the episode is not that old,
// its first row is repeated on the left. Nothing else in the tree decides what a stack holds.
// Stacker is not thread safe: one owner.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace qanat::replay {

// The row at place k (0 is oldest, depth-1 is t itself) in the stack of row t, in an episode that begins at row
// `first`. Preconditions: first <= t, k < depth.
[[nodiscard]] constexpr std::uint64_t stack_row(std::uint64_t t, std::uint64_t first, std::uint32_t depth,
                                                std::uint32_t k) {
  const std::uint64_t back = depth - 1 - k;
  return t - first >= back ? t - back : first;
}

// The stacks of several slots while their episodes run. `Row` is whatever names an observation to its owner: a
// pointer, an index. It is copied, not followed: what it names must live until depth further pushes to its slot.
template <class Row>
class Stacker {
 public:
  // depth >= 1.
  Stacker(std::size_t slots, std::uint32_t depth) : depth_(depth), steps_(slots, 0), ring_(slots * depth) {
    assert(depth >= 1);
  }

  // The newest observation of `slot`; `first` when it begins an episode. A slot's first push must have it.
  void push(std::size_t slot, Row row, bool first) {
    if (first) steps_[slot] = 0;
    assert(first || steps_[slot] > 0);
    ring_[slot * depth_ + steps_[slot] % depth_] = row;
    ++steps_[slot];
  }

  // Writes the stack of the newest observation, oldest first. `out` holds depth() rows; the slot has been pushed to.
  void stack(std::size_t slot, std::span<Row> out) const {
    assert(out.size() == depth_ && steps_[slot] > 0);
    for (std::uint32_t k = 0; k < depth_; ++k) {
      out[k] = ring_[slot * depth_ + stack_row(steps_[slot] - 1, 0, depth_, k) % depth_];
    }
  }

  [[nodiscard]] std::uint32_t depth() const { return depth_; }
  [[nodiscard]] std::size_t slots() const { return steps_.size(); }

 private:
  std::uint32_t depth_;
  std::vector<std::uint64_t> steps_;  // observations of the running episode, per slot
  std::vector<Row> ring_;             // [slots, depth]
};

}  // namespace qanat::replay
