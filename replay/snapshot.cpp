#include "replay/snapshot.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/bytes.h"
#include "core/checksum.h"
#include "replay/snapshot_format.h"

namespace qanat::replay {

namespace {

void put_spec(ByteWriter& out, const TensorSpec& spec) {
  out.put_string(spec.name);
  out.put(static_cast<std::uint8_t>(spec.dtype));
  out.put_vector(spec.shape);
}

void put_stream(ByteWriter& out, std::uint32_t index, const Stream& stream) {
  out.put(index);
  out.put(stream.id.incarnation);
  out.put(stream.id.slot);
  out.put(stream.next_sequence);
  out.put(stream.next_row);
  out.put(stream.episode_first);
  out.put(stream.resident_rows);
  out.put(stream.last_flags);
  out.put(stream.ended);
}

}  // namespace

Snapshot::Snapshot(const Shard& shard, const std::filesystem::path& path)
    : file_(path),
      cursor_(shard.rows_.begin_position()),
      end_(shard.rows_.end_position()),
      block_rows_(snapshot_block_rows(shard.schema_)),
      steps_(shard.items_.all_steps().begin(), shard.items_.all_steps().end()),
      priorities_(shard.items_.all_priorities().begin(), shard.items_.all_priorities().end()) {
  ByteWriter head;
  head.put(snapshot_magic);
  head.put(snapshot_version);
  head.put(shard.options_.capacity_rows);
  head.put(shard.options_.stack);
  head.put(shard.options_.n_step);
  const std::vector<TensorSpec> columns = shard.schema_.columns();
  head.put<std::uint64_t>(columns.size());
  for (const TensorSpec& spec : columns) put_spec(head, spec);
  for (const auto member : snapshot_counters) head.put(shard.counters_.*member);
  head.put(cursor_);
  head.put(end_);
  head.put(shard.next_generation());
  write_section(head.bytes());

  ByteWriter streams;
  streams.put<std::uint64_t>(shard.streams_.size());
  for (std::uint32_t i = 0; i < shard.streams_.index_bound(); ++i) {
    if (shard.streams_.in_use(i)) put_stream(streams, i, shard.streams_[i]);
  }
  const std::vector<StreamTable::Forgotten> forgotten = shard.streams_.all_forgotten();
  streams.put<std::uint64_t>(forgotten.size());
  for (const StreamTable::Forgotten& stream : forgotten) {
    streams.put(stream.id.incarnation);
    streams.put(stream.id.slot);
    streams.put(stream.next_sequence);
  }
  write_section(streams.bytes());
}

void Snapshot::write_section(std::span<const std::byte> payload) {
  const std::array<std::uint64_t, 2> front = {payload.size(), checksum(payload)};
  file_.write(std::as_bytes(std::span(front)));
  file_.write(payload);
}

// Writes the next block and moves the cursor. Returns its bytes.
std::uint64_t Snapshot::write_block(const Shard& shard) {
  const std::uint64_t rows = std::min(block_rows_, end_ - cursor_);
  std::vector<std::uint32_t> slots(rows);
  std::vector<std::byte> payload(rows * snapshot_row_bytes(shard.schema_));
  std::byte* out = payload.data();
  const auto put = [&out](auto value) {
    std::memcpy(out, &value, sizeof value);
    out += sizeof value;
  };
  for (std::uint64_t i = 0; i < rows; ++i) slots[i] = shard.rows_.slot_of(cursor_ + i);
  for (const std::uint32_t slot : slots) put(steps_[slot]);
  for (const std::uint32_t slot : slots) put(priorities_[slot]);
  for (const std::uint32_t slot : slots) put(shard.rows_.stream(slot));
  for (std::size_t c = 0; c < shard.rows_.column_count(); ++c) {
    shard.rows_.gather(c, slots, out);
    out += rows * shard.rows_.column_bytes(c);
  }
  write_section(payload);
  cursor_ += rows;
  return payload.size();
}

std::optional<WrittenFile> Snapshot::write_some(const Shard& shard, std::uint64_t max_bytes) {
  if (failure_) std::rethrow_exception(failure_);
  std::uint64_t written = 0;
  while (cursor_ < end_) {
    written += write_block(shard);
    if (written >= max_bytes && cursor_ < end_) return std::nullopt;
  }
  return file_.commit();
}

void Snapshot::save_before_overwrite(const Shard& shard, std::uint64_t rows) noexcept {
  const std::uint64_t end = shard.rows_.end_position() + rows;
  const std::uint64_t overwritten = end > shard.rows_.capacity() ? end - shard.rows_.capacity() : 0;
  try {
    while (!failure_ && cursor_ < std::min(overwritten, end_)) write_block(shard);
  } catch (...) {
    failure_ = std::current_exception();
  }
}

}  // namespace qanat::replay
