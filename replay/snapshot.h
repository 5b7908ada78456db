// A shard's state in one file, written in slices while the shard goes on.
//
// File: sections one after another, each u64 length, u64 checksum of the payload, payload. First the head (options,
// schema, counters, positions), then the streams, then blocks of rows in the order of their positions: window lengths,
// priorities, stream indices, columns. Every byte is covered by a checksum or compared with what it must be.
// Rows are saved oldest first, which is also the order in which they are overwritten: one cursor tells which are safe.
// Not thread safe: belongs to one shard.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "core/files.h"
#include "replay/shard.h"

namespace qanat::replay {

class Snapshot {
 public:
  // Captures what may change: streams, counters, priorities. Throws SystemError when the file cannot be made.
  Snapshot(const Shard& shard, const std::filesystem::path& path);

  // Writes blocks until about `max_bytes` are out, at least one; the file when it is in its place. Throws SystemError.
  [[nodiscard]] std::optional<WrittenFile> write_some(const Shard& shard, std::uint64_t max_bytes);

  // Before `rows` rows are appended: writes those that they will overwrite, if they are not out yet. Does not throw: a
  // failure is kept for write_some, an insert has no part in it.
  void save_before_overwrite(const Shard& shard, std::uint64_t rows) noexcept;

 private:
  void write_section(std::span<const std::byte> payload);
  std::uint64_t write_block(const Shard& shard);

  AtomicFile file_;
  std::uint64_t cursor_;  // positions before are in the file
  std::uint64_t end_;     // positions from here on came after the marker
  std::uint64_t block_rows_;
  std::vector<std::uint8_t> steps_;  // of all slots, at the marker
  std::vector<float> priorities_;    // the same
  std::exception_ptr failure_;
};

// Fills `fresh`, just constructed with the options and schema wanted. Throws InputError or SystemError.
void load_snapshot(const std::filesystem::path& path, std::uint64_t generation_floor, Shard& fresh);

}  // namespace qanat::replay
