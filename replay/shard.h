// One shard of the replay: rows of streams in, items out, in one process and without sockets.
//
// An *item* is a step t that may be drawn: it has an action, and the rows from t-K+1 (not before its episode's first)
// to t+m are resident, where m is n or the steps left in its episode, whichever is less. An item waits until row t+n is
// stored, or the last-observation row of its episode. Nothing crosses an episode edge.
//
// Thread-compatible: one owner. Owns all its memory, which is reserved at construction and touched as rows arrive.
// Exceptions: ConfigError from the constructor, InputError for what others sent (the shard is then unchanged, but for
// the counter of refusals), SystemError from files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/io_thread.h"
#include "core/rng.h"
#include "replay/item_table.h"
#include "replay/row_store.h"
#include "replay/schema.h"
#include "replay/selector.h"
#include "replay/stream_table.h"

namespace qanat::replay {

struct ShardOptions {
  std::uint64_t capacity_rows = 0;       // last-observation rows count too; at least 2 * (stack + n_step), below 2^31
  std::int64_t stack = 1;                // K, 1..255
  std::int64_t n_step = 1;               // n, 1..255
  double alpha = 0.6;                    // exponent of the priorities
  std::uint32_t shard_index = 0;         // goes into every handle
  std::string selector = "prioritised";  // or "uniform"
};

struct InsertResult {
  bool applied = false;  // false: a duplicate, acknowledged without effect
  std::uint64_t next_sequence = 0;
  std::uint32_t steps = 0;  // rows with an action in this chunk
  std::uint32_t items = 0;  // items that became drawable
};

struct UpdateResult {
  std::uint32_t applied = 0;
  std::uint32_t stale = 0;    // the item is gone; nothing changed
  std::uint32_t refused = 0;  // NaN, infinite or negative, or another shard's handle; the item keeps its priority
};

// All since the shard was made, carried on by load().
struct Counters {
  std::uint64_t inserted_steps = 0;  // rows with an action
  std::uint64_t evicted_rows = 0;
  std::uint64_t duplicate_chunks = 0;
  std::uint64_t refused_chunks = 0;
  std::uint64_t updated_priorities = 0;
  std::uint64_t stale_updates = 0;
  std::uint64_t refused_updates = 0;
  std::uint64_t drawn = 0;  // items handed out, repeats included

  friend bool operator==(const Counters&, const Counters&) = default;
};

enum class DrawMode : std::uint8_t {
  by_mass = 0,   // in proportion to the leaves
  by_count = 1,  // uniform over the drawable items
};

// One draw of `count` items. Vectors are reused when the same object is given to draw() again. K is the stack, n
// n_step.
struct Draw {
  DrawMode mode = DrawMode::by_mass;  // what was done: by_count also where by_mass was asked of a mass of 0
  std::uint64_t mass = 0;             // of the shard at this moment (by_count: the number of drawable items)
  std::uint64_t items = 0;            // drawable at this moment
  std::vector<std::uint32_t> leaves;  // [count]: the probability of each draw is leaf / mass (by_count: leaf is 1)
  std::vector<Handle> handles;        // [count]
  // Rows, as indices into `rows`: oldest first, padded as in replay/stack.h. The last of each is s and s' itself, where
  // the extras of the state and of the next state stand too. Where the item is terminal, s' is valid but means nothing.
  std::vector<std::uint32_t> states;       // [count, K]
  std::vector<std::uint32_t> next_states;  // [count, K]
  std::vector<float> rewards;              // [count, n]: raw, the first m are used, the rest 0
  std::vector<std::uint8_t> steps;         // [count]: m, 1..n
  std::vector<std::uint8_t> terminal;      // [count]: 1: no bootstrap
  std::vector<std::byte> actions;          // [count, bytes of an action]
  std::vector<std::uint32_t> rows;         // every row that is needed, once: slots for gather()
};

class Snapshot;

class Shard {
 public:
  Shard(const ShardOptions& options, Schema schema);
  Shard(Shard&&) noexcept;
  Shard& operator=(Shard&&) noexcept;
  ~Shard();

  // The largest chunk taken: half of the capacity.
  [[nodiscard]] std::uint64_t max_chunk_rows() const { return options_.capacity_rows / 2; }

  // `other_shards_max` is the largest raw priority of live items on the other shards, negative when there is none.
  // Items without a priority of their own get the larger of that and this shard's, as it was before the chunk; 1
  // without any. Below the expected sequence: no effect. A gap, rows that do not continue, flags that make no episodes,
  // sizes that are not the schema's, priorities that are not finite and >= 0 or of items not completed here, a stream
  // that has ended: InputError, and nothing of the chunk is applied.
  InsertResult insert(const ChunkView& chunk, float other_shards_max);

  // The stream is broken: no row will follow. Its pending steps become items with shorter windows that bootstrap at its
  // last row; the last row itself, which nothing follows, becomes one only if it terminated. Priorities as the fallback
  // of insert(). Returns the items that became drawable. A stream that is unknown or over already: 0, and it stays
  // over.
  std::uint32_t end_stream(const StreamId& stream, float other_shards_max);

  // 0 for a stream that is not known.
  [[nodiscard]] std::uint64_t next_sequence(const StreamId& stream) const;
  // Rows ever stored of it, resident or not: the row number it continues with. 0 for one not known or forgotten.
  [[nodiscard]] std::uint64_t rows_of(const StreamId& stream) const;

  // Draws `count` items, with replacement, stratified within this shard. Returns false (and empty vectors) when there
  // is no drawable item; otherwise exactly `count`, in the order of `strata`.
  [[nodiscard]] bool draw(std::uint32_t count, Rng& rng, DrawMode mode, Draw& out, Strata strata = {});

  // The rows of a column one after another: slots.size() * column_bytes(column) bytes into `out`. The slots are those
  // of a Draw since which nothing was inserted.
  void gather(std::size_t column, std::span<const std::uint32_t> slots, std::byte* out) const {
    rows_.gather(column, slots, out);
  }
  [[nodiscard]] std::size_t column_bytes(std::size_t column) const { return rows_.column_bytes(column); }

  // handles.size() == priorities.size(). Each entry for itself, in order.
  UpdateResult update_priorities(std::span<const Handle> handles, std::span<const float> priorities);

  [[nodiscard]] std::uint64_t mass() const { return selector_->mass(); }
  [[nodiscard]] std::uint64_t items() const { return items_.count(); }
  [[nodiscard]] std::uint64_t resident_rows() const { return rows_.resident(); }
  // The largest raw priority of the live items; nothing without items.
  [[nodiscard]] std::optional<float> max_priority() { return items_.max_priority(); }
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] LeafClamps clamps() const { return selector_->clamps(); }
  [[nodiscard]] std::size_t known_streams() const { return streams_.size(); }
  [[nodiscard]] const ShardOptions& options() const { return options_; }
  [[nodiscard]] const Schema& schema() const { return schema_; }

  // The item that a row holds, for tests and tools. Nothing when the row is not there or cannot be drawn.
  struct Item {
    Handle handle;
    std::uint32_t leaf = 0;
    float priority = 0;
  };
  [[nodiscard]] std::optional<Item> item(const StreamId& stream, std::uint64_t row) const;

  // Saving, in slices between which everything else may go on: the file holds the state of this very moment. Rows are
  // copied slice by slice, or just before they are overwritten, and written by `disk`, which must outlive the snapshot
  // and have nothing else to do after; of the items' steps and priorities a copy is kept as they change (5 bytes a row
  // at most). An unfinished snapshot of before is given up; its file never appears.
  void begin_snapshot(const std::filesystem::path& path, IoThread& disk);
  // Copies about `max_bytes`, less when the disk is full() of work. The file when it is complete, flushed and in its
  // place, and there is nothing more to do. Throws what the disk threw; the snapshot is then given up. Precondition:
  // snapshot_running().
  [[nodiscard]] std::optional<WrittenFile> snapshot_some(std::uint64_t max_bytes);
  [[nodiscard]] bool snapshot_running() const { return snapshot_ != nullptr; }
  // All rows of the running snapshot are copied: only the disk has still to do.
  [[nodiscard]] bool snapshot_copied() const;
  // A chunk of so many rows would overwrite rows that are not saved yet, while the disk is full() of work. Inserted all
  // the same it would make more of it wait in memory.
  [[nodiscard]] bool snapshot_holds(std::uint64_t rows) const;

  // Becomes what was saved. Capacity, stack, n_step and schema must be as they were; alpha, selector and shard index
  // are this shard's own, and leaves are made anew. Handles of the saved shard are stale here: every generation is at
  // least `generation_floor` and above any that had been handed out when it was saved, so give a floor that is above
  // all that may have been handed out since. Throws InputError for a file that is damaged, cut short or does not fit,
  // and SystemError when it cannot be read; the shard is then as before. A running snapshot is given up. `between` is
  // called between two blocks, some megabytes each.
  void load(const std::filesystem::path& path, std::uint64_t generation_floor,
            const std::function<void()>& between = {});

  // Generations of handles yet to come are at least this.
  [[nodiscard]] std::uint64_t next_generation() const { return rows_.end_position() + generation_offset_; }

  // What construction reserved; predicted_bytes() of the same options and schema.
  [[nodiscard]] std::uint64_t reserved_bytes() const;

 private:
  friend class Snapshot;
  friend class SnapshotLoader;

  [[noreturn]] void refuse(const std::string& message);
  void check_chunk(const ChunkView& chunk, const Stream& stream) const;
  void check_flags(const ChunkView& chunk, const Stream& stream) const;
  void check_priorities(const ChunkView& chunk, const Stream& stream) const;
  void make_room(std::uint64_t rows);
  void cut_after(std::uint32_t slot);
  [[nodiscard]] float fallback_priority(float other_shards_max);
  bool complete(std::uint32_t end_slot, std::uint32_t back, std::uint8_t steps, float priority);
  void flush_completed();
  void pick(std::uint32_t count, Rng& rng, Strata strata, Draw& out);
  void describe(std::size_t i, std::uint32_t slot, Draw& out);
  std::uint32_t table_index(std::uint32_t slot, Draw& out);
  [[nodiscard]] Handle handle_of(std::uint32_t slot) const;

  ShardOptions options_;
  Schema schema_;
  std::uint32_t stack_;
  std::uint32_t n_step_;
  RowStore rows_;
  ItemTable items_;
  std::unique_ptr<Selector> selector_;
  StreamTable streams_;
  Counters counters_;
  std::uint64_t generation_offset_ = 0;  // generation = position + this
  std::uint32_t draw_number_ = 0;        // the stamp of the draw in progress
  std::unique_ptr<Snapshot> snapshot_;
  // Scratch, kept for its memory.
  std::vector<std::uint32_t> slots_;
  std::vector<float> priorities_;
  std::vector<std::uint32_t> path_;
};

// What a shard of these options reserves, within a percent; streams' bookkeeping (64 bytes each) and a running snapshot
// (up to 5 bytes a row, and what its disk may hold) come on top. Throws as the constructor does.
[[nodiscard]] std::uint64_t predicted_bytes(const ShardOptions& options, const Schema& schema);

}  // namespace qanat::replay
