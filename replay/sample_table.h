// The item table of a sample reply: what the learner needs of each drawn item besides its rows.
//
// One frame, structure of arrays, little-endian, in the order of the fields below (u64 first, bytes last).
// Plain data; one owner.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "wire/frame.h"

namespace qanat::replay {

struct SampleTable {
  std::uint32_t stack = 1;   // K
  std::uint32_t n_step = 1;  // n

  std::vector<std::uint64_t> generations;  // [count]
  std::vector<std::uint32_t> slots;        // [count] with the generation: the item's handle
  std::vector<std::uint32_t> leaves;       // [count] its share of the shard's mass; 0 when drawn by count
  std::vector<std::uint32_t> state;        // [count, K] rows of the reply, oldest first
  std::vector<std::uint32_t> next_state;   // [count, K]; for terminal items any valid row
  std::vector<std::int32_t> actions;       // [count]
  std::vector<float> rewards;              // [count, n] raw, zero beyond `steps`
  std::vector<std::uint8_t> steps;         // [count] m <= n: rewards in the window
  std::vector<std::uint8_t> terminal;      // [count] 1: nothing follows, no bootstrap

  void resize(std::size_t count);
  [[nodiscard]] std::size_t count() const { return generations.size(); }
  [[nodiscard]] wire::Frame encode(const std::shared_ptr<wire::HeldBytes>& held = {}) const;
  // Throws InputError when the size is not that of `count` items, or an index is not below `rows`, or a window
  // is not in 1..n.
  void decode(std::span<const std::byte> bytes, std::size_t item_count, std::uint32_t rows);
};

}  // namespace qanat::replay
