// A slow replay that is right by inspection, for comparison with Shard: it keeps every row for ever and works out from
// the definitions, from scratch at each question, what may be drawn and what a draw must hold.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "core/rng.h"
#include "replay/shard.h"

namespace qanat::test {

using namespace qanat::replay;

// The witness schema: what a row holds follows from its stream and number. `padding` bytes make rows heavier.
inline Schema witness_schema(std::int64_t padding = 1) {
  Schema schema;
  schema.observations = {{"frame", DType::i32, {4}}, {"byte", DType::u8, {}}, {"padding", DType::u8, {padding}}};
  schema.action = {"action", DType::i32, {}};
  schema.extras = {{"mask", DType::u8, {3}}};
  return schema;
}

struct Frame {
  std::array<std::int32_t, 4> values{};
  friend bool operator==(const Frame&, const Frame&) = default;
};

inline Frame frame_of(const StreamId& id, std::uint64_t row) {
  return {{static_cast<std::int32_t>(id.incarnation), static_cast<std::int32_t>(id.slot),
           static_cast<std::int32_t>(row), static_cast<std::int32_t>(row * 7919 + id.incarnation)}};
}
inline std::uint8_t byte_of(const StreamId& id, std::uint64_t row) {
  return static_cast<std::uint8_t>(row * 31 + id.slot * 17 + id.incarnation);
}
inline std::int32_t action_of(const StreamId& id, std::uint64_t row) {
  return static_cast<std::int32_t>(row * 13 + id.slot);
}
inline float reward_of(const StreamId& id, std::uint64_t row) {
  return static_cast<float>(row) + 0.25F * static_cast<float>(id.slot);
}

// The bytes of a chunk in the witness schema; `view` borrows this object.
class WitnessChunk {
 public:
  WitnessChunk(const StreamId& id, std::uint64_t sequence, std::uint64_t first_row, std::vector<std::uint8_t> flags,
               std::size_t padding = 1)
      : flags_(std::move(flags)), padding_(flags_.size() * padding) {
    for (std::uint64_t row = first_row; row < first_row + flags_.size(); ++row) {
      frames_.push_back(frame_of(id, row));
      bytes_.push_back(byte_of(id, row));
      actions_.push_back(action_of(id, row));
      rewards_.push_back(reward_of(id, row));
      for (int i = 0; i < 3; ++i) masks_.push_back(static_cast<std::uint8_t>(row % 3 == static_cast<unsigned>(i)));
    }
    columns_ = {std::as_bytes(std::span(frames_)),  std::as_bytes(std::span(bytes_)),
                std::as_bytes(std::span(padding_)), std::as_bytes(std::span(actions_)),
                std::as_bytes(std::span(rewards_)), std::as_bytes(std::span(masks_)),
                std::as_bytes(std::span(flags_))};
    view.stream = id;
    view.sequence = sequence;
    view.first_row = first_row;
    view.rows = static_cast<std::uint32_t>(flags_.size());
    view.columns = columns_;
  }
  WitnessChunk(const WitnessChunk&) = delete;
  WitnessChunk& operator=(const WitnessChunk&) = delete;

  void give_priorities(std::vector<ItemPriority> priorities, std::uint32_t n) {
    priorities_ = std::move(priorities);
    view.priorities = priorities_;
    view.priority_n = n;
  }

  ChunkView view;

 private:
  std::vector<std::uint8_t> flags_;
  std::vector<std::uint8_t> padding_;
  std::vector<Frame> frames_;
  std::vector<std::uint8_t> bytes_;
  std::vector<std::int32_t> actions_;
  std::vector<float> rewards_;
  std::vector<std::uint8_t> masks_;
  std::vector<std::span<const std::byte>> columns_;
  std::vector<ItemPriority> priorities_;
};

class Model {
 public:
  using Key = std::pair<StreamId, std::uint64_t>;  // stream and start row

  struct Window {
    std::uint64_t steps = 0;
    bool terminal = false;
    std::vector<std::uint64_t> state;       // [K] row numbers
    std::vector<std::uint64_t> next_state;  // [K]; empty where nothing follows
  };

  explicit Model(const ShardOptions& options)
      : capacity_(options.capacity_rows),
        k_(static_cast<std::uint64_t>(options.stack)),
        n_(static_cast<std::uint64_t>(options.n_step)) {}

  struct Stream {
    std::vector<std::uint8_t> flags;
    std::vector<std::uint64_t> positions;
    std::uint64_t next_sequence = 0;
    bool ended = false;
  };

  // The window of an item, or nothing while it is pending or for a row without one; whether it is resident or not.
  [[nodiscard]] std::optional<Window> window(const StreamId& id, std::uint64_t t) const {
    const Stream& stream = streams_.at(id);
    const std::vector<std::uint8_t>& flags = stream.flags;
    if (flags[t] & flag_last_observation) return std::nullopt;
    std::optional<std::uint64_t> end;  // the episode's last row with an action
    for (std::uint64_t row = t; row < flags.size() && !end; ++row) {
      if (flags[row] & (flag_terminated | flag_truncated)) end = row;
    }
    const std::uint64_t stored = flags.size();
    Window found;
    if (end && *end + 1 < stored) {  // a whole episode, its last observation included
      found.steps = std::min(n_, *end - t + 1);
    } else if (t + n_ < stored) {
      found.steps = n_;
    } else if (stream.ended) {
      const bool terminated = end && (flags[*end] & flag_terminated);
      found.steps = std::min(n_, stored - 1 - t + (terminated ? 1 : 0));
    }
    if (found.steps == 0) return std::nullopt;
    found.terminal = end && t + found.steps == *end + 1 && (flags[*end] & flag_terminated);
    found.state = stack(id, t);
    if (t + found.steps < stored) found.next_state = stack(id, t + found.steps);
    return found;
  }

  [[nodiscard]] std::vector<std::uint64_t> stack(const StreamId& id, std::uint64_t t) const {
    std::vector<std::uint64_t> rows;
    for (std::uint64_t row = t; rows.size() < k_; row -= first_of_episode(id, row) ? 0 : 1) rows.push_back(row);
    std::reverse(rows.begin(), rows.end());
    return rows;
  }

  // Everything that may be drawn now.
  [[nodiscard]] std::map<Key, Window> drawable() const {
    std::map<Key, Window> all;
    for (const auto& [id, stream] : streams_) {
      for (std::uint64_t t = stream.flags.size(); t-- > 0 && stream.positions[t] >= begin_;) {
        const auto found = window(id, t);
        if (found && stream.positions[found->state.front()] >= begin_) all.emplace(Key{id, t}, *found);
      }
    }
    return all;
  }

  // The start rows that rows from `first` on complete, in order. For chunks about to be sent: on a copy.
  [[nodiscard]] std::vector<std::uint64_t> completed_since(const StreamId& id, std::uint64_t first) const {
    std::vector<std::uint64_t> starts;
    const Stream& stream = streams_.at(id);
    for (std::uint64_t t = 0; t < stream.flags.size(); ++t) {
      const auto found = window(id, t);
      if (found && t + found->steps >= first) starts.push_back(t);
    }
    return starts;
  }

  [[nodiscard]] float largest_priority(float others) const {
    float largest = others;
    for (const auto& [key, priority] : priorities_) largest = std::max(largest, priority);
    return largest < 0 ? 1 : largest;
  }

  void append(const StreamId& id, std::span<const std::uint8_t> flags) {
    Stream& stream = streams_[id];
    for (const std::uint8_t row : flags) {
      stream.flags.push_back(row);
      stream.positions.push_back(end_);
      // The segment that this row enters loses all of its former rows.
      const std::uint64_t segment = std::max<std::uint64_t>(1, capacity_ / 100);
      const std::uint64_t slot = end_ % capacity_;
      const std::uint64_t segment_end = std::min(capacity_, slot / segment * segment + segment);
      const std::uint64_t gone = end_ - slot + segment_end;
      if (gone > capacity_) begin_ = std::max(begin_, gone - capacity_);
      ++end_;
    }
    ++stream.next_sequence;
  }

  void end(const StreamId& id) { streams_[id].ended = true; }

  // Items that became drawable get their priority, those that left lose it.
  void settle(const std::map<std::uint64_t, float>& given, const StreamId& id, float fallback) {
    std::map<Key, float> now;
    for (const auto& [key, window] : drawable()) {
      const auto known = priorities_.find(key);
      if (known != priorities_.end()) {
        now.emplace(*known);
      } else {
        const auto own = key.first == id ? given.find(key.second) : given.end();
        now.emplace(key, own == given.end() ? fallback : own->second);
      }
    }
    priorities_ = std::move(now);
  }

  [[nodiscard]] const std::map<Key, float>& priorities() const { return priorities_; }
  [[nodiscard]] std::map<Key, float>& priorities() { return priorities_; }
  [[nodiscard]] const std::map<StreamId, Stream>& streams() const { return streams_; }
  [[nodiscard]] std::uint64_t resident() const { return end_ - begin_; }
  [[nodiscard]] std::uint64_t evicted() const { return begin_; }
  [[nodiscard]] std::uint64_t n() const { return n_; }
  [[nodiscard]] std::uint64_t k() const { return k_; }

 private:
  [[nodiscard]] bool first_of_episode(const StreamId& id, std::uint64_t row) const {
    return (streams_.at(id).flags[row] & flag_first) != 0;
  }

  std::uint64_t capacity_;
  std::uint64_t k_;
  std::uint64_t n_;
  std::uint64_t begin_ = 0;  // resident positions: [begin_, end_)
  std::uint64_t end_ = 0;
  std::map<StreamId, Stream> streams_;
  std::map<Key, float> priorities_;  // of the drawable items
};

}  // namespace qanat::test
