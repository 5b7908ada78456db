// What a step looks like and how its parts are named: schema, streams, chunks, handles.
//
// Plain data, shared by actors, shards and the client. A *row* is one ring position of a shard: a step, or the true
// last observation of an ended episode. Its columns stand in one fixed order:
//   observations..., action, reward (f32 scalar), extras..., flags (u8 scalar).
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace qanat::replay {

// Bits of a row's flags. Both terminated and truncated may be set: terminated wins.
inline constexpr std::uint8_t flag_terminated = 1;
inline constexpr std::uint8_t flag_truncated = 2;
// The row holds only the observation that ended the episode; it directly follows the row with an end flag, has no
// other flag, and its action, reward and extras mean nothing (extras of the next state may be there: see Draw).
inline constexpr std::uint8_t flag_last_observation = 4;
// First row of an episode, or of a stream that starts in mid-episode: stacks are padded from here.
inline constexpr std::uint8_t flag_first = 8;

// Fixed for a run.
struct Schema {
  std::vector<TensorSpec> observations;
  TensorSpec action;
  std::vector<TensorSpec> extras;

  // Every column in the order above, the reward and the flags included.
  [[nodiscard]] std::vector<TensorSpec> columns() const;
  [[nodiscard]] std::size_t column_count() const { return observations.size() + extras.size() + 3; }
  [[nodiscard]] std::size_t action_column() const { return observations.size(); }
  [[nodiscard]] std::size_t reward_column() const { return observations.size() + 1; }
  [[nodiscard]] std::size_t first_extra_column() const { return observations.size() + 2; }
  [[nodiscard]] std::size_t flags_column() const { return column_count() - 1; }
  [[nodiscard]] std::size_t row_bytes() const;
  // Throws ConfigError without an observation, with a negative size or an empty column.
  void check() const;

  friend bool operator==(const Schema&, const Schema&) = default;
};

// A sample reply's rows weigh at most this; a request that would need more is refused. Learners ask for less at a time.
inline constexpr std::size_t largest_reply_bytes = 256UL << 20;
// Bytes of the rows that a reply carries for one item, when it shares none with others.
[[nodiscard]] std::size_t item_bytes(const Schema& schema, std::uint32_t stack, std::uint32_t n_step);

// The run of steps of one environment slot of one actor life; never reused.
struct StreamId {
  std::uint64_t incarnation = 0;
  std::uint32_t slot = 0;

  friend auto operator<=>(const StreamId&, const StreamId&) = default;
};

struct StreamIdHash {
  [[nodiscard]] std::size_t operator()(const StreamId& id) const {
    return std::hash<std::uint64_t>{}(id.incarnation * 0x9e3779b97f4a7c15ULL ^ id.slot);
  }
};

// One item, as the learner names it when it sends a new priority. The generation belongs to one row for ever.
struct Handle {
  std::uint32_t shard = 0;
  std::uint32_t slot = 0;
  std::uint64_t generation = 0;

  friend auto operator<=>(const Handle&, const Handle&) = default;
};

// The raw priority of the item that starts at row `start_row` of the chunk's stream.
struct ItemPriority {
  std::uint64_t start_row = 0;
  float priority = 0;
};

// Contiguous rows of one stream. Borrows everything; used only during the call.
struct ChunkView {
  StreamId stream;
  std::uint64_t sequence = 0;   // from 0, without gaps
  std::uint64_t first_row = 0;  // row numbers of a stream run from 0, without gaps
  std::uint32_t rows = 0;
  // One span a column, in the schema's order, of rows * bytes-of-a-row bytes.
  std::span<const std::span<const std::byte>> columns;
  // The n that `priorities` were computed with; with another n than the shard's they are not used.
  std::uint32_t priority_n = 0;
  // Ascending by start_row; only items that this chunk completes. Those without one get the fallback.
  std::span<const ItemPriority> priorities;
};

}  // namespace qanat::replay
