// Shard: chunks in, segments out.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "replay/episode_walk.h"
#include "replay/shard.h"
#include "replay/snapshot.h"

namespace qanat::replay {

namespace {

constexpr std::uint8_t end_flags = flag_terminated | flag_truncated;

std::string stream_name(const StreamId& id) { return text("stream ", id.incarnation, "/", id.slot); }

std::span<const std::uint8_t> flags_of(const ChunkView& chunk) {
  return {reinterpret_cast<const std::uint8_t*>(chunk.columns.back().data()), chunk.rows};
}

bool is_priority(float value) { return value >= 0 && std::isfinite(value); }

}  // namespace

void Shard::refuse(const std::string& message) {
  ++counters_.refused_chunks;
  throw InputError(message);
}

void Shard::check_chunk(const ChunkView& chunk, const Stream& stream) const {
  if (stream.ended)
    throw InputError(text(stream_name(chunk.stream), ": chunk ", chunk.sequence, " comes after the stream's end"));
  if (chunk.sequence != stream.next_sequence) {
    throw InputError(
        text(stream_name(chunk.stream), ": saw chunk ", chunk.sequence, ", wanted ", stream.next_sequence));
  }
  if (chunk.first_row != stream.next_row) {
    throw InputError(
        text(stream_name(chunk.stream), ": chunk begins at row ", chunk.first_row, ", wanted ", stream.next_row));
  }
  if (chunk.rows < 1 || chunk.rows > max_chunk_rows()) {
    throw InputError(
        text(stream_name(chunk.stream), ": chunk has ", chunk.rows, " rows, wanted 1 to ", max_chunk_rows()));
  }
  if (chunk.columns.size() != rows_.column_count()) {
    throw InputError(text(stream_name(chunk.stream), ": chunk has ", chunk.columns.size(), " columns, wanted ",
                          rows_.column_count()));
  }
  for (std::size_t c = 0; c < chunk.columns.size(); ++c) {
    const std::size_t wanted = rows_.column_bytes(c) * chunk.rows;
    if (chunk.columns[c].size() != wanted) {
      throw InputError(text(stream_name(chunk.stream), ": column ", schema_.columns()[c].describe(), " has ",
                            chunk.columns[c].size(), " bytes for ", chunk.rows, " rows, wanted ", wanted));
    }
  }
  check_flags(chunk, stream);
  check_priorities(chunk, stream);
}

// Every row must be what the row before it leaves room for.
void Shard::check_flags(const ChunkView& chunk, const Stream& stream) const {
  bool between_episodes = stream.next_row == 0 || (stream.last_flags & flag_last_observation) != 0;
  bool after_end = (stream.last_flags & end_flags) != 0;
  const std::span<const std::uint8_t> flags = flags_of(chunk);
  for (std::size_t i = 0; i < flags.size(); ++i) {
    const std::uint8_t row = flags[i];
    const char* wanted = nullptr;
    if (row > 15) {
      wanted = "only bits 0 to 3";
    } else if (after_end) {
      if (row != flag_last_observation) wanted = "the last observation alone (4) after an episode's end";
    } else if ((row & flag_last_observation) != 0) {
      wanted = "a last observation only after an episode's end";
    } else if (between_episodes != ((row & flag_first) != 0)) {
      wanted = between_episodes ? "the first-row flag (8)" : "no first-row flag within an episode";
    }
    if (wanted != nullptr) {
      throw InputError(
          text(stream_name(chunk.stream), ": row ", chunk.first_row + i, " has flags ", int{row}, ", wanted ", wanted));
    }
    between_episodes = after_end;
    after_end = (row & end_flags) != 0;
  }
}

void Shard::check_priorities(const ChunkView& chunk, const Stream& stream) const {
  for (const ItemPriority& given : chunk.priorities) {
    if (!is_priority(given.priority)) {
      throw InputError(text(stream_name(chunk.stream), ": priority of row ", given.start_row, " is ", given.priority,
                            ", wanted a finite number >= 0"));
    }
  }
  if (chunk.priority_n != n_step_) return;
  auto next = chunk.priorities.begin();
  visit_completed(flags_of(chunk), chunk.first_row, stream.episode_first, n_step_,
                  [&](std::uint64_t start, std::uint64_t, std::uint64_t) {
                    if (next != chunk.priorities.end() && next->start_row == start) ++next;
                  });
  if (next != chunk.priorities.end()) {
    throw InputError(text(stream_name(chunk.stream), ": a priority is given for row ", next->start_row,
                          ", which chunk ", chunk.sequence, " does not complete or which is out of order"));
  }
}

float Shard::fallback_priority(float other_shards_max) {
  const std::optional<float> own = items_.max_priority();
  const bool others = is_priority(other_shards_max);
  if (!own) return others ? other_shards_max : 1.0F;
  return others ? std::max(*own, other_shards_max) : *own;
}

// The rows after `slot` lose their predecessor: those whose stack reaches back over the cut are items no more.
void Shard::cut_after(std::uint32_t slot) {
  std::uint32_t next = rows_.links(slot).next;
  rows_.links(next).previous = no_slot;
  for (std::uint32_t i = 1; i < stack_ && next != no_slot && !(rows_.flags(next) & flag_first); ++i) {
    if (items_.has(next)) {
      items_.remove(next);
      slots_.push_back(next);
    }
    next = rows_.links(next).next;
  }
}

// Evicts whole segments until `rows` more fit: items first, then the rows.
void Shard::make_room(std::uint64_t rows) {
  const std::uint64_t begin = rows_.begin_after_room_for(rows);
  if (begin == rows_.begin_position()) return;
  slots_.clear();
  for (std::uint64_t position = rows_.begin_position(); position < begin; ++position) {
    const std::uint32_t slot = rows_.slot_of(position);
    if (items_.has(slot)) {
      items_.remove(slot);
      slots_.push_back(slot);
    }
    const std::uint32_t next = rows_.links(slot).next;
    if (next != no_slot && rows_.position_of(next) >= begin) cut_after(slot);
    Stream& stream = streams_[rows_.stream(slot)];
    if (--stream.resident_rows > 0) continue;
    stream.last_slot = no_slot;
    if (stream.ended) streams_.forget(rows_.stream(slot));
  }
  selector_->remove(slots_);
  counters_.evicted_rows += begin - rows_.begin_position();
  rows_.evict_before(begin);
}

// The item whose window of `steps` rows ends `back` rows before the one in `end_slot` joins, if its rows are resident.
// It is in the selector after flush_completed().
bool Shard::complete(std::uint32_t end_slot, std::uint32_t back, std::uint8_t steps, float priority) {
  std::uint32_t start = end_slot;
  for (std::uint32_t i = 0; i < back && start != no_slot; ++i) start = rows_.links(start).previous;
  if (start == no_slot) return false;
  std::uint32_t oldest = start;
  for (std::uint32_t i = 1; i < stack_ && !(rows_.flags(oldest) & flag_first); ++i) {
    oldest = rows_.links(oldest).previous;
    if (oldest == no_slot) return false;
  }
  items_.add(start, steps, priority);
  slots_.push_back(start);
  priorities_.push_back(priority);
  return true;
}

void Shard::flush_completed() {
  selector_->set(slots_, priorities_);
  slots_.clear();
  priorities_.clear();
}

InsertResult Shard::insert(const ChunkView& chunk, float other_shards_max) {
  std::optional<std::uint32_t> index = streams_.find(chunk.stream);
  const std::optional<std::uint64_t> over = streams_.forgotten(chunk.stream);
  Stream expected;
  if (index) {
    expected = streams_[*index];
  } else if (over) {
    expected.next_sequence = *over;
    expected.ended = true;
  }
  if (chunk.sequence < expected.next_sequence) {
    ++counters_.duplicate_chunks;
    return {false, expected.next_sequence, 0, 0};
  }
  try {
    check_chunk(chunk, expected);
  } catch (const InputError& error) {
    refuse(error.what());
  }

  const float fallback = fallback_priority(other_shards_max);
  make_room(chunk.rows);
  if (snapshot_) snapshot_->save_before_overwrite(*this, chunk.rows);
  if (!index) index = streams_.add(chunk.stream);
  Stream& stream = streams_[*index];
  const std::uint32_t first_slot = rows_.append(chunk.columns, chunk.rows, *index, stream.last_slot);
  const std::span<const std::uint8_t> flags = flags_of(chunk);

  InsertResult result{true, chunk.sequence + 1, chunk.rows, 0};
  for (const std::uint8_t row : flags) result.steps -= (row & flag_last_observation) != 0;
  const auto slot_of_row = [&](std::uint64_t row) {
    return static_cast<std::uint32_t>((first_slot + (row - chunk.first_row)) % rows_.capacity());
  };
  slots_.clear();
  priorities_.clear();
  std::span<const ItemPriority> given = chunk.priorities;
  if (chunk.priority_n != n_step_) given = {};
  auto next = given.begin();
  stream.episode_first = visit_completed(flags, chunk.first_row, stream.episode_first, n_step_,
                                         [&](std::uint64_t start, std::uint64_t end, std::uint64_t steps) {
                                           const bool has_own = next != given.end() && next->start_row == start;
                                           const float priority = has_own ? (next++)->priority : fallback;
                                           result.items += complete(slot_of_row(end), static_cast<std::uint32_t>(steps),
                                                                    static_cast<std::uint8_t>(steps), priority);
                                         });
  flush_completed();

  stream.next_sequence = chunk.sequence + 1;
  stream.next_row = chunk.first_row + chunk.rows;
  stream.resident_rows += chunk.rows;
  stream.last_slot = slot_of_row(stream.next_row - 1);
  stream.last_flags = flags.back();
  counters_.inserted_steps += result.steps;
  return result;
}

std::uint32_t Shard::end_stream(const StreamId& id, float other_shards_max) {
  const std::optional<std::uint32_t> index = streams_.find(id);
  if (!index) {
    streams_.remember_forgotten(id, 0);
    return 0;
  }
  Stream& stream = streams_[*index];
  if (stream.ended) return 0;
  stream.ended = true;
  if (stream.resident_rows == 0) {
    streams_.forget(*index);
    return 0;
  }
  std::uint32_t items = 0;
  if ((stream.last_flags & flag_last_observation) == 0) {
    const float fallback = fallback_priority(other_shards_max);
    const std::uint64_t age = stream.next_row - 1 - stream.episode_first;  // of the last row in its episode
    // With a terminated last row its own reward counts and nothing is needed after it: one step more each.
    const std::uint64_t own = (stream.last_flags & flag_terminated) != 0 ? 1 : 0;
    slots_.clear();
    priorities_.clear();
    for (std::uint64_t back = std::min<std::uint64_t>(n_step_ - 1, age) + 1; back-- > 1 - own;) {
      items +=
          complete(stream.last_slot, static_cast<std::uint32_t>(back), static_cast<std::uint8_t>(back + own), fallback);
    }
    flush_completed();
  }
  return items;
}

}  // namespace qanat::replay
