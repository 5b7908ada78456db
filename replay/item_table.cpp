#include "replay/item_table.h"

#include <algorithm>
#include <cassert>

namespace qanat::replay {

namespace {
constexpr std::uint64_t blocks_of(std::uint64_t slots, std::uint64_t block) { return (slots + block - 1) / block; }
}  // namespace

ItemTable::ItemTable(std::uint64_t slots) : steps_(slots), priorities_(slots), blocks_(blocks_of(slots, block_slots)) {}

void ItemTable::add(std::uint32_t slot, std::uint8_t steps, float priority) {
  assert(!has(slot) && steps > 0);
  before_change(slot);
  steps_[slot] = steps;
  priorities_[slot] = priority;
  Block& block = blocks_[slot / block_slots];
  ++block.count;
  if (priority >= block.largest) {
    // A new largest makes the bound exact again, whatever had left before.
    block.largest = priority;
    block.stale = false;
  }
  ++count_;
}

void ItemTable::remove(std::uint32_t slot) {
  assert(has(slot));
  before_change(slot);
  Block& block = blocks_[slot / block_slots];
  block.stale |= priorities_[slot] >= block.largest;
  --block.count;
  steps_[slot] = 0;
  priorities_[slot] = 0;
  --count_;
}

void ItemTable::set_priority(std::uint32_t slot, float priority) {
  assert(has(slot));
  before_change(slot);
  Block& block = blocks_[slot / block_slots];
  if (priority >= block.largest) {
    block.largest = priority;
    block.stale = false;
  } else {
    block.stale |= priorities_[slot] >= block.largest;
  }
  priorities_[slot] = priority;
}

void ItemTable::keep_moment() {
  const std::uint64_t slots = steps_.size();
  kept_.emplace(Kept{LazyArray<std::uint8_t>(blocks_of(slots, group_slots)), LazyArray<std::uint8_t>(slots),
                     LazyArray<float>(slots)});
}

void ItemTable::keep_group(std::uint64_t group) {
  const std::uint64_t first = group * group_slots;
  const std::uint64_t count = std::min<std::uint64_t>(group_slots, steps_.size() - first);
  std::copy_n(steps_.data() + first, count, kept_->steps.data() + first);
  std::copy_n(priorities_.data() + first, count, kept_->priorities.data() + first);
  kept_->groups[group] = 1;
}

void ItemTable::refresh(std::size_t index) {
  Block& block = blocks_[index];
  const std::uint64_t begin = index * block_slots;
  const std::uint64_t end = std::min<std::uint64_t>(begin + block_slots, steps_.size());
  float largest = no_item;
  for (std::uint64_t slot = begin; slot < end; ++slot) {
    if (steps_[slot] != 0) largest = std::max(largest, priorities_[slot]);
  }
  block.largest = largest;
  block.stale = false;
}

std::optional<float> ItemTable::max_priority() {
  if (count_ == 0) return std::nullopt;
  float largest = no_item;
  // Exact blocks first: a stale block whose bound is not above the result cannot change it.
  for (const Block& block : blocks_) {
    if (!block.stale) largest = std::max(largest, block.largest);
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (!blocks_[i].stale || blocks_[i].largest <= largest) continue;
    refresh(i);
    largest = std::max(largest, blocks_[i].largest);
  }
  return largest;
}

void ItemTable::at_ranks(std::span<const std::uint64_t> ranks, std::span<std::uint32_t> slots) const {
  std::size_t block = 0;
  std::uint64_t before = 0;  // items in earlier blocks
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    assert(ranks[i] < count_ && (i == 0 || ranks[i - 1] <= ranks[i]));
    while (ranks[i] >= before + blocks_[block].count) before += blocks_[block++].count;
    std::uint64_t left = ranks[i] - before;
    std::uint64_t slot = block * block_slots;
    while (steps_[slot] == 0 || left-- > 0) ++slot;
    slots[i] = static_cast<std::uint32_t>(slot);
  }
}

std::uint64_t ItemTable::bytes() const { return steps_.bytes() + priorities_.bytes() + blocks_.size() * sizeof(Block); }

std::uint64_t ItemTable::predicted_bytes(std::uint64_t slots) {
  return slots * (sizeof(std::uint8_t) + sizeof(float)) + blocks_of(slots, block_slots) * sizeof(Block);
}

}  // namespace qanat::replay
