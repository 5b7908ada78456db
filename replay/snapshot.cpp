#include "replay/snapshot.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <span>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/error.h"
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

// What the disk's jobs work on. They hold it together, so that the last of them removes the file of a snapshot that was
// given up, not the shard, which has no time for it.
struct Snapshot::Output {
  std::filesystem::path path;
  std::optional<AtomicFile> file;
  WrittenFile written;
  std::atomic<bool> given_up = false;
};

Snapshot::Snapshot(const Shard& shard, std::filesystem::path path, IoThread& disk)
    : output_(std::make_shared<Output>()),
      disk_(disk),
      cursor_(shard.rows_.begin_position()),
      end_(shard.rows_.end_position()),
      block_rows_(snapshot_block_rows(shard.schema_)) {
  output_->path = std::move(path);
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
  give_section(head.take());

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
  give_section(streams.take());
}

Snapshot::~Snapshot() { output_->given_up = true; }

void Snapshot::give_section(std::vector<std::byte> payload) {
  const auto owner = std::make_shared<const std::vector<std::byte>>(std::move(payload));
  give_section(*owner, owner);
}

void Snapshot::give_section(std::span<const std::byte> payload, std::shared_ptr<const void> owner) {
  disk_.give(
      [output = output_, payload, owner = std::move(owner)] {
        if (output->given_up) return;
        try {
          if (!output->file) output->file.emplace(output->path);
          const std::array<std::uint64_t, 2> front = {payload.size(), checksum(payload)};
          output->file->write(std::as_bytes(std::span(front)));
          output->file->write(payload);
        } catch (...) {
          output->file.reset();
          throw;
        }
      },
      payload.size());
}

// Copies the next block and moves the cursor. Returns its bytes.
std::uint64_t Snapshot::copy_block(const Shard& shard) {
  const std::uint64_t rows = std::min(block_rows_, end_ - cursor_);
  const std::uint64_t bytes = rows * snapshot_row_bytes(shard.schema_);
  const auto payload = std::make_shared_for_overwrite<std::byte[]>(bytes);
  std::byte* out = payload.get();
  const auto put = [&](auto of_slot) {
    for (std::uint64_t i = 0; i < rows; ++i) {
      const auto value = of_slot(shard.rows_.slot_of(cursor_ + i));
      std::memcpy(out, &value, sizeof value);
      out += sizeof value;
    }
  };
  put([&](std::uint32_t slot) { return shard.items_.steps_then(slot); });
  put([&](std::uint32_t slot) { return shard.items_.priority_then(slot); });
  put([&](std::uint32_t slot) { return shard.rows_.stream(slot); });
  for (std::size_t c = 0; c < shard.rows_.column_count(); ++c) {
    shard.rows_.copy_out(c, cursor_, rows, out);
    out += rows * shard.rows_.column_bytes(c);
  }
  give_section({payload.get(), bytes}, payload);
  cursor_ += rows;
  return bytes;
}

std::optional<WrittenFile> Snapshot::write_some(const Shard& shard, std::uint64_t max_bytes) {
  if (failure_) std::rethrow_exception(failure_);
  for (std::uint64_t done = 0; done < max_bytes && !copied() && !disk_.full();) done += copy_block(shard);
  if (copied() && !committed_) {
    committed_ = true;
    disk_.give([output = output_] {
      if (output->given_up) return;
      try {
        output->written = output->file->commit();
      } catch (...) {
        output->file.reset();
        throw;
      }
      output->file.reset();
    });
  }
  if (!disk_.idle() || !committed_) return std::nullopt;
  return output_->written;
}

std::uint64_t Snapshot::must_reach(const Shard& shard, std::uint64_t rows) const {
  const std::uint64_t end = shard.rows_.end_position() + rows;
  const std::uint64_t overwritten = end > shard.rows_.capacity() ? end - shard.rows_.capacity() : 0;
  return std::min(overwritten, end_);
}

void Snapshot::save_before_overwrite(const Shard& shard, std::uint64_t rows) noexcept {
  try {
    while (!failure_ && cursor_ < must_reach(shard, rows)) copy_block(shard);
  } catch (...) {
    failure_ = std::current_exception();
  }
}

bool Snapshot::holds(const Shard& shard, std::uint64_t rows) const {
  if (failure_ || cursor_ >= must_reach(shard, rows)) return false;
  try {
    return disk_.full();
  } catch (const Error&) {
    return false;  // it failed: write_some says so
  }
}

}  // namespace qanat::replay
