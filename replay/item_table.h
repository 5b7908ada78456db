// Which slots hold an item that may be drawn: its window length, its raw priority, and the largest of those.
//
// What it held at one moment can be kept while it changes: of each group of slots a copy is made before the first
// change. Thread-compatible: one owner.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "replay/lazy_array.h"

namespace qanat::replay {

class ItemTable {
 public:
  explicit ItemTable(std::uint64_t slots);

  // The slot is free; 1 <= steps <= 255; priority is finite and >= 0.
  void add(std::uint32_t slot, std::uint8_t steps, float priority);
  // The slot holds an item.
  void remove(std::uint32_t slot);
  void set_priority(std::uint32_t slot, float priority);

  // Asks for what is known of a slot, ahead of time.
  void prefetch(std::uint32_t slot) const {
    __builtin_prefetch(steps_.data() + slot);
    __builtin_prefetch(priorities_.data() + slot);
  }
  [[nodiscard]] bool has(std::uint32_t slot) const { return steps_[slot] != 0; }
  // The window's length m; 0 where there is no item.
  [[nodiscard]] std::uint8_t steps(std::uint32_t slot) const { return steps_[slot]; }
  [[nodiscard]] float priority(std::uint32_t slot) const { return priorities_[slot]; }
  [[nodiscard]] std::uint64_t count() const { return count_; }

  // The largest raw priority; nothing without items. Exact; what has left since the last call is looked for only in the
  // blocks that it may have been the largest of.
  [[nodiscard]] std::optional<float> max_priority();

  // The slots of the items with these ranks in slot order. ranks ascend, each < count(). Linear in slots / 1024.
  void at_ranks(std::span<const std::uint64_t> ranks, std::span<std::uint32_t> slots) const;

  // This moment is kept, in place of one kept before; 5 bytes a slot at most, of those that change. Costs nothing now.
  void keep_moment();
  void forget_moment() { kept_.reset(); }
  // steps() and priority() as they were at the moment kept.
  [[nodiscard]] std::uint8_t steps_then(std::uint32_t slot) const {
    return (was_kept(slot) ? kept_->steps : steps_)[slot];
  }
  [[nodiscard]] float priority_then(std::uint32_t slot) const {
    return (was_kept(slot) ? kept_->priorities : priorities_)[slot];
  }

  [[nodiscard]] std::uint64_t bytes() const;
  [[nodiscard]] static std::uint64_t predicted_bytes(std::uint64_t slots);

 private:
  static constexpr std::uint64_t block_slots = 1024;
  struct Block {
    float largest = no_item;  // an upper bound while stale
    std::uint16_t count = 0;
    bool stale = false;
  };
  static constexpr float no_item = -1;

  // Slots of which a copy is made together: small, since priorities change anywhere.
  static constexpr std::uint64_t group_slots = 64;
  struct Kept {
    LazyArray<std::uint8_t> groups;  // 1: the two below hold this group
    LazyArray<std::uint8_t> steps;
    LazyArray<float> priorities;
  };

  void refresh(std::size_t block);
  void before_change(std::uint32_t slot) {
    if (kept_ && !was_kept(slot)) keep_group(slot / group_slots);
  }
  [[nodiscard]] bool was_kept(std::uint32_t slot) const { return kept_->groups[slot / group_slots] != 0; }
  void keep_group(std::uint64_t group);

  LazyArray<std::uint8_t> steps_;
  LazyArray<float> priorities_;  // 0 where there is no item
  std::vector<Block> blocks_;
  std::uint64_t count_ = 0;
  std::optional<Kept> kept_;
};

}  // namespace qanat::replay
