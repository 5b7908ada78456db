// The streams a shard has seen: what to expect next of each, and a bounded memory of those that are over.
//
// Thread-compatible: one owner. References to a Stream are valid until the next call that adds one.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "replay/row_store.h"
#include "replay/schema.h"

namespace qanat::replay {

struct Stream {
  StreamId id;
  std::uint64_t next_sequence = 0;
  std::uint64_t next_row = 0;
  std::uint64_t episode_first = 0;    // row number of the running (or last) episode's first row
  std::uint64_t resident_rows = 0;    // its newest rows, always without gaps
  std::uint32_t last_slot = no_slot;  // of row next_row - 1 while that is resident
  std::uint8_t last_flags = 0;        // of row next_row - 1
  bool ended = false;
};

class StreamTable {
 public:
  // Streams that are over and evicted are remembered by their sequence number alone, the newest this many: a resend of
  // one older than that would be taken for a new stream.
  static constexpr std::size_t max_forgotten = 65'536;

  // The stream's index, or nothing.
  [[nodiscard]] std::optional<std::uint32_t> find(const StreamId& id) const;
  // The next sequence number of a stream that is over and evicted, if it is still remembered.
  [[nodiscard]] std::optional<std::uint64_t> forgotten(const StreamId& id) const;

  // `id` is not known. An index that no resident row has.
  std::uint32_t add(const StreamId& id);
  // The stream has no resident rows.
  void forget(std::uint32_t index);
  void remember_forgotten(const StreamId& id, std::uint64_t next_sequence);

  [[nodiscard]] Stream& operator[](std::uint32_t index) { return streams_[index]; }
  [[nodiscard]] const Stream& operator[](std::uint32_t index) const { return streams_[index]; }
  // Known streams, the forgotten ones not included.
  [[nodiscard]] std::size_t size() const { return indices_.size(); }
  // All indices lie below; some may be unused.
  [[nodiscard]] std::uint32_t index_bound() const { return static_cast<std::uint32_t>(streams_.size()); }
  [[nodiscard]] bool in_use(std::uint32_t index) const { return in_use_[index]; }

  struct Forgotten {
    StreamId id;
    std::uint64_t next_sequence = 0;
  };
  // Oldest first.
  [[nodiscard]] std::vector<Forgotten> all_forgotten() const;

 private:
  std::unordered_map<StreamId, std::uint32_t, StreamIdHash> indices_;
  std::vector<Stream> streams_;
  std::vector<bool> in_use_;
  std::vector<std::uint32_t> free_;
  std::unordered_map<StreamId, std::uint64_t, StreamIdHash> forgotten_;
  std::deque<StreamId> forgotten_order_;
};

}  // namespace qanat::replay
