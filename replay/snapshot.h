// A shard's state in one file, copied in slices while the shard goes on and written by a thread of its own.
//
// File: sections one after another, each u64 length, u64 checksum of the payload, payload. First the head (options,
// schema, counters, positions), then the streams, then blocks of rows in the order of their positions: window lengths,
// priorities, stream indices, columns. Every byte is covered by a checksum or compared with what it must be.
// Rows are saved oldest first, which is also the order in which they are overwritten: one cursor tells which are safe.
// Not thread safe: belongs to one shard. What the thread has is shared with nobody until it is done.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/files.h"
#include "core/io_thread.h"
#include "replay/shard.h"

namespace qanat::replay {

class Snapshot {
 public:
  // Captures streams and counters, and no file yet: even making one may wait for a disk. What items are is kept by the
  // shard's item table from now on.
  Snapshot(const Shard& shard, std::filesystem::path path, IoThread& disk);
  // Unfinished: what the disk has not begun is dropped, and the file with it.
  ~Snapshot();

  // Copies blocks until about `max_bytes` are copied or the disk is full; the file when it is in its place. Throws what
  // the disk threw.
  [[nodiscard]] std::optional<WrittenFile> write_some(const Shard& shard, std::uint64_t max_bytes);

  // Before `rows` rows are appended: copies those that they will overwrite, if they are not copied yet, however full
  // the disk is. Does not throw: a failure is kept for write_some, an insert has no part in it.
  void save_before_overwrite(const Shard& shard, std::uint64_t rows) noexcept;

  [[nodiscard]] bool copied() const { return cursor_ == end_; }
  // Such an insert would have to do so while the disk is full.
  [[nodiscard]] bool holds(const Shard& shard, std::uint64_t rows) const;

 private:
  struct Output;

  void give_section(std::vector<std::byte> payload);
  void give_section(std::span<const std::byte> payload, std::shared_ptr<const void> owner);
  std::uint64_t copy_block(const Shard& shard);
  // Copied up to here: what `rows` more rows overwrite.
  [[nodiscard]] std::uint64_t must_reach(const Shard& shard, std::uint64_t rows) const;

  std::shared_ptr<Output> output_;
  IoThread& disk_;
  std::uint64_t cursor_;  // positions before are copied
  std::uint64_t end_;     // positions from here on came after the marker
  std::uint64_t block_rows_;
  bool committed_ = false;  // the disk was told to
  std::exception_ptr failure_;
};

// Fills `fresh`, just constructed with the options and schema wanted. Throws InputError or SystemError.
void load_snapshot(const std::filesystem::path& path, std::uint64_t generation_floor, Shard& fresh,
                   const std::function<void()>& between = {});

}  // namespace qanat::replay
