// The ring of rows: one array a column, and the links that tie the rows of a stream together.
//
// Rows arrive at positions 0, 1, 2, ... and live in slot position % capacity. The ring is cut into fixed segments of
// slots (capacity / 100 rows, at least 1; the last may be shorter); when the head enters a segment, all that it holds
// is evicted at once. What is resident is therefore always one range of positions. Knows nothing of items.
// Thread-compatible: one owner.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "replay/lazy_array.h"
#include "replay/schema.h"

namespace qanat::replay {

inline constexpr std::uint32_t no_slot = std::numeric_limits<std::uint32_t>::max();

struct RowLinks {
  std::uint32_t previous = no_slot;  // the stream's row before, while it is resident
  std::uint32_t next = no_slot;      // the stream's row after; meaningful while this row is resident
  // Scratch of the draw in progress: place `index` of the reply's row table, if `stamp` is that draw's number.
  std::uint32_t stamp = 0;
  std::uint32_t index = 0;
};

class RowStore {
 public:
  RowStore(const Schema& schema, std::uint64_t capacity);

  [[nodiscard]] std::uint64_t capacity() const { return capacity_; }
  // Resident positions: [begin, end).
  [[nodiscard]] std::uint64_t begin_position() const { return begin_; }
  [[nodiscard]] std::uint64_t end_position() const { return head_base_ + head_; }
  [[nodiscard]] std::uint64_t resident() const { return end_position() - begin_; }
  [[nodiscard]] std::uint32_t slot_of(std::uint64_t position) const {
    return static_cast<std::uint32_t>(position % capacity_);
  }
  // The newest position that the slot has had. The slot has been written to.
  [[nodiscard]] std::uint64_t position_of(std::uint32_t slot) const {
    return slot < head_ ? head_base_ + slot : head_base_ - capacity_ + slot;
  }

  // The position up to which eviction must go before `rows` more rows fit: at least begin_position().
  [[nodiscard]] std::uint64_t begin_after_room_for(std::uint64_t rows) const;
  // Gives up all positions before `position` (<= end_position()). Only the range changes: the bytes stay until they are
  // overwritten, which is what a running snapshot relies on.
  void evict_before(std::uint64_t position) { begin_ = position; }

  // Copies rows behind the end and links them: the first to `previous` (no_slot for none), each to the one before.
  // There is room for them. Returns the first row's slot.
  std::uint32_t append(std::span<const std::span<const std::byte>> columns, std::uint32_t rows, std::uint32_t stream,
                       std::uint32_t previous);

  [[nodiscard]] std::uint8_t flags(std::uint32_t slot) const { return flags_[slot]; }
  [[nodiscard]] float reward(std::uint32_t slot) const { return rewards_[slot]; }
  [[nodiscard]] std::uint32_t stream(std::uint32_t slot) const { return streams_[slot]; }
  [[nodiscard]] RowLinks& links(std::uint32_t slot) { return links_[slot]; }
  [[nodiscard]] const RowLinks& links(std::uint32_t slot) const { return links_[slot]; }

  [[nodiscard]] std::size_t column_count() const { return columns_.size(); }
  [[nodiscard]] std::size_t column_bytes(std::size_t column) const { return columns_[column].row_bytes; }
  [[nodiscard]] const std::byte* row(std::size_t column, std::uint32_t slot) const {
    return columns_[column].memory.data() + columns_[column].row_bytes * slot;
  }
  // Asks for what a draw reads of a row, ahead of time.
  void prefetch(std::uint32_t slot) const {
    __builtin_prefetch(&links_[slot]);
    __builtin_prefetch(flags_ + slot);
    __builtin_prefetch(rewards_ + slot);
    __builtin_prefetch(actions_ + action_bytes_ * slot);
  }
  // One row after another into `out`, slots.size() * column_bytes(column) bytes.
  void gather(std::size_t column, std::span<const std::uint32_t> slots, std::byte* out) const;

  // The rows at positions [first, first + rows), one after another into `out`. They lie in the ring still.
  void copy_out(std::size_t column, std::uint64_t first, std::uint64_t rows, std::byte* out) const;

  // For loading: an empty store takes its first position, then rows with `append`. The first position may be any.
  void restart_at(std::uint64_t position);

  [[nodiscard]] std::uint64_t bytes() const;
  [[nodiscard]] static std::uint64_t predicted_bytes(const Schema& schema, std::uint64_t capacity);

 private:
  struct Column {
    std::size_t row_bytes = 0;
    LazyMemory memory;
  };

  void copy_in(std::span<const std::span<const std::byte>> columns, std::uint64_t first, std::uint64_t rows);

  std::uint64_t capacity_;
  std::uint64_t segment_rows_;
  std::uint64_t begin_ = 0;
  std::uint64_t head_base_ = 0;  // position of slot 0 in the present lap
  std::uint64_t head_ = 0;       // slot of the next row
  std::vector<Column> columns_;
  const std::uint8_t* flags_ = nullptr;  // into columns_
  const float* rewards_ = nullptr;       // into columns_
  const std::byte* actions_ = nullptr;   // into columns_
  std::size_t action_bytes_ = 0;
  LazyArray<RowLinks> links_;
  LazyArray<std::uint32_t> streams_;  // index of the row's stream in the shard's table
};

}  // namespace qanat::replay
