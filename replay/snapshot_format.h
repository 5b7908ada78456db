// What the writer and the reader of snapshots agree on.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "replay/shard.h"

namespace qanat::replay {

inline constexpr std::uint64_t snapshot_magic = 0x31'50'4c'52'54'4e'51'1aULL;
inline constexpr std::uint32_t snapshot_version = 1;

// In the order of the file.
inline constexpr std::array<std::uint64_t Counters::*, 8> snapshot_counters = {
    &Counters::inserted_steps,     &Counters::evicted_rows,  &Counters::duplicate_chunks, &Counters::refused_chunks,
    &Counters::updated_priorities, &Counters::stale_updates, &Counters::refused_updates,  &Counters::drawn};

// Of one row in a block: window length, priority, stream index, columns.
inline std::uint64_t snapshot_row_bytes(const Schema& schema) { return 1 + 4 + 4 + schema.row_bytes(); }

// Rows in every block but the last: about a megabyte, so that a slice is short and a checksum costs nothing.
inline std::uint64_t snapshot_block_rows(const Schema& schema) {
  return std::clamp<std::uint64_t>((std::uint64_t{1} << 20) / snapshot_row_bytes(schema), 1, 65'536);
}

}  // namespace qanat::replay
