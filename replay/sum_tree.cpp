#include "replay/sum_tree.h"

#include <cassert>

#include "replay/sum_tree_kernels.h"

namespace qanat::replay {

namespace {

constexpr std::uint64_t fan_out = 8;

constexpr std::uint64_t groups_of(std::uint64_t children) { return (children + fan_out - 1) / fan_out; }

// Nodes of each level, from the one above the groups of leaves up to the root.
std::vector<std::uint64_t> level_sizes(std::uint64_t slots) {
  std::vector<std::uint64_t> sizes;
  std::uint64_t nodes = groups_of(slots);
  do {
    nodes = groups_of(nodes);
    sizes.push_back(nodes);
  } while (nodes > 1);
  return sizes;
}

}  // namespace

SumTree::SumTree(std::uint64_t slots) : slots_(slots), leaves_(groups_of(slots) * fan_out) {
  assert(slots >= 1 && slots <= max_slots);
  for (const std::uint64_t nodes : level_sizes(slots)) levels_.emplace_back(nodes * fan_out);
  for (auto& level : levels_) views_.push_back({level.data()});
}

void SumTree::set(std::span<const std::uint32_t> slots, std::span<const std::uint32_t> weights) {
  assert(slots.size() == weights.size());
  total_ +=
      kernels::set_leaves(leaves_.data(), views_.data(), views_.size(), slots.data(), weights.data(), slots.size());
}

void SumTree::find(std::span<const std::uint64_t> points, std::span<std::uint32_t> slots) const {
  assert(slots.size() == points.size());
  kernels::find_leaves(leaves_.data(), views_.data(), views_.size(), points.data(), slots.data(), points.size());
}

std::uint64_t SumTree::bytes() const {
  std::uint64_t total = leaves_.bytes();
  for (const auto& level : levels_) total += level.bytes();
  return total;
}

std::uint64_t SumTree::predicted_bytes(std::uint64_t slots) {
  std::uint64_t total = groups_of(slots) * fan_out * sizeof(std::uint32_t);
  for (const std::uint64_t nodes : level_sizes(slots)) total += nodes * fan_out * sizeof(std::uint64_t);
  return total;
}

const char* SumTree::target() { return kernels::target_name(); }

}  // namespace qanat::replay
