#include "replay/row_store.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace qanat::replay {

RowStore::RowStore(const Schema& schema, std::uint64_t capacity)
    : capacity_(capacity),
      segment_rows_(std::max<std::uint64_t>(1, capacity / 100)),
      links_(capacity),
      streams_(capacity) {
  for (const TensorSpec& spec : schema.columns()) {
    columns_.push_back({spec.bytes(), LazyMemory(spec.bytes() * capacity)});
  }
  flags_ = reinterpret_cast<const std::uint8_t*>(columns_[schema.flags_column()].memory.data());
  rewards_ = reinterpret_cast<const float*>(columns_[schema.reward_column()].memory.data());
  actions_ = columns_[schema.action_column()].memory.data();
  action_bytes_ = columns_[schema.action_column()].row_bytes;
}

std::uint64_t RowStore::begin_after_room_for(std::uint64_t rows) const {
  // The last row to come lies in a segment; all that is there from the lap before must go, and all before it.
  const std::uint64_t last = end_position() + rows - 1;
  const std::uint64_t slot = last % capacity_;
  const std::uint64_t segment_end = std::min(capacity_, (slot / segment_rows_ + 1) * segment_rows_);
  const std::uint64_t end_of_segment = last - slot + segment_end;
  return std::max(begin_, end_of_segment > capacity_ ? end_of_segment - capacity_ : 0);
}

void RowStore::copy_in(std::span<const std::span<const std::byte>> columns, std::uint64_t first, std::uint64_t rows) {
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    const std::size_t bytes = columns_[c].row_bytes;
    std::memcpy(columns_[c].memory.data() + head_ * bytes, columns[c].data() + first * bytes, rows * bytes);
  }
}

std::uint32_t RowStore::append(std::span<const std::span<const std::byte>> columns, std::uint32_t rows,
                               std::uint32_t stream, std::uint32_t previous) {
  assert(columns.size() == columns_.size() && resident() + rows <= capacity_);
  const auto first_slot = static_cast<std::uint32_t>(head_);
  for (std::uint64_t done = 0; done < rows;) {
    const std::uint64_t run = std::min<std::uint64_t>(rows - done, capacity_ - head_);
    copy_in(columns, done, run);
    for (std::uint64_t i = 0; i < run; ++i) {
      const auto slot = static_cast<std::uint32_t>(head_ + i);
      links_[slot] = {previous, no_slot, 0, 0};
      if (previous != no_slot) links_[previous].next = slot;
      streams_[slot] = stream;
      previous = slot;
    }
    done += run;
    head_ += run;
    if (head_ == capacity_) {
      head_ = 0;
      head_base_ += capacity_;
    }
  }
  return first_slot;
}

void RowStore::gather(std::size_t column, std::span<const std::uint32_t> slots, std::byte* out) const {
  const std::size_t bytes = columns_[column].row_bytes;
  const std::byte* base = columns_[column].memory.data();
  // Rows lie anywhere: their first cache lines are asked for early, of long ones the processor then finds the rest.
  constexpr std::size_t ahead = 6;
  constexpr std::size_t line = 64;
  const std::size_t lines = std::min<std::size_t>(bytes, 8 * line);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (i + ahead < slots.size()) {
      const std::byte* row = base + bytes * slots[i + ahead];
      for (std::size_t at = 0; at < lines; at += line) __builtin_prefetch(row + at);
    }
    std::memcpy(out + i * bytes, base + bytes * slots[i], bytes);
  }
}

void RowStore::copy_out(std::size_t column, std::uint64_t first, std::uint64_t rows, std::byte* out) const {
  const std::size_t bytes = columns_[column].row_bytes;
  const std::uint64_t run = std::min<std::uint64_t>(rows, capacity_ - slot_of(first));
  std::memcpy(out, row(column, slot_of(first)), run * bytes);
  std::memcpy(out + run * bytes, row(column, 0), (rows - run) * bytes);
}

void RowStore::restart_at(std::uint64_t position) {
  assert(resident() == 0);
  begin_ = position;
  head_ = position % capacity_;
  head_base_ = position - head_;
}

std::uint64_t RowStore::bytes() const {
  std::uint64_t total = links_.bytes() + streams_.bytes();
  for (const Column& column : columns_) total += column.memory.bytes();
  return total;
}

std::uint64_t RowStore::predicted_bytes(const Schema& schema, std::uint64_t capacity) {
  return capacity * (schema.row_bytes() + sizeof(RowLinks) + sizeof(std::uint32_t));
}

}  // namespace qanat::replay
