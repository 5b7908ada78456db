// What actors sent, as it passed on the wire: the rows of every stream and the priorities that came with them.
//
// On the way each action gets its stream's mark, which nobody between actor and learner looks at: so no two streams
// ever say the same, and every stored row tells where it belongs.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "replay/schema.h"
#include "tests/support/catch.h"
#include "wire/messages.h"

namespace qanat::system_test {

using replay::StreamId;

// One row, its columns in the schema's order.
struct Row {
  std::vector<std::vector<std::byte>> columns;

  template <class T>
  [[nodiscard]] T value(std::size_t column) const {
    T out;
    REQUIRE(columns[column].size() == sizeof out);
    std::memcpy(&out, columns[column].data(), sizeof out);
    return out;
  }
  [[nodiscard]] std::uint8_t flags() const { return static_cast<std::uint8_t>(columns.back()[0]); }
  friend bool operator==(const Row&, const Row&) = default;
};

struct Chunk {
  std::uint64_t first_row = 0;
  std::vector<Row> rows;
  friend bool operator==(const Chunk&, const Chunk&) = default;
};

// What the actor did, without the mark. There are at most four actions.
inline std::int32_t without_mark(std::int32_t marked) { return marked % 4; }

class Tape {
 public:
  Tape(std::vector<std::size_t> row_bytes, std::size_t action_column)
      : row_bytes_(std::move(row_bytes)), action_column_(action_column) {}

  // Marks and records an insert.
  void record(wire::Incoming& message) {
    const auto insert = wire::decode<wire::Insert>(message);
    REQUIRE(message.parts.size() == row_bytes_.size());
    mark(insert, message.parts[part_of(action_column_)].mutable_bytes());
    record(insert, message.parts);
  }

  // The chunks of a stream, by sequence number; those that never arrived here are missing.
  [[nodiscard]] const std::map<StreamId, std::map<std::uint64_t, Chunk>>& streams() const { return streams_; }

  [[nodiscard]] std::optional<float> priority(const StreamId& stream, std::uint64_t row) const {
    const auto found = priorities_.find(stream);
    if (found == priorities_.end()) return std::nullopt;
    const auto item = found->second.find(row);
    if (item == found->second.end()) return std::nullopt;
    return item->second;
  }
  [[nodiscard]] std::uint64_t repeats() const { return repeats_; }
  [[nodiscard]] const std::vector<std::size_t>& row_bytes() const { return row_bytes_; }

 private:
  // The last column comes first.
  [[nodiscard]] std::size_t part_of(std::size_t column) const { return row_bytes_.size() - 1 - column; }

  void mark(const wire::Insert& insert, std::span<std::byte> actions) {
    for (const auto& head : insert.chunks) {
      const StreamId stream{head.incarnation, head.slot};
      const auto number = marks_.try_emplace(stream, static_cast<std::int32_t>(marks_.size())).first->second;
      for (std::size_t r = 0; r < head.rows; ++r, actions = actions.subspan(sizeof(std::int32_t))) {
        std::int32_t action = 0;
        std::memcpy(&action, actions.data(), sizeof action);
        action += 4 * number;
        std::memcpy(actions.data(), &action, sizeof action);
      }
    }
  }

  void record(const wire::Insert& insert, const std::vector<wire::Frame>& parts) {
    std::size_t before = 0;  // rows of the chunks before, in each part
    for (const auto& head : insert.chunks) {
      Chunk chunk{head.first_row, std::vector<Row>(head.rows)};
      for (std::size_t r = 0; r < head.rows; ++r) {
        for (std::size_t c = 0; c < row_bytes_.size(); ++c) {
          const auto bytes = parts[part_of(c)].bytes().subspan((before + r) * row_bytes_[c], row_bytes_[c]);
          chunk.rows[r].columns.emplace_back(bytes.begin(), bytes.end());
        }
      }
      before += head.rows;
      const StreamId stream{head.incarnation, head.slot};
      for (std::size_t i = 0; i < head.item_starts.size(); ++i) {
        priorities_[stream][head.item_starts[i]] = head.item_priorities[i];
      }
      const auto [found, fresh] = streams_[stream].try_emplace(head.sequence, chunk);
      if (!fresh) {
        ++repeats_;
        REQUIRE(found->second == chunk);  // sent again, but not the same
      }
    }
  }

  std::vector<std::size_t> row_bytes_;
  std::size_t action_column_;
  std::map<StreamId, std::int32_t> marks_;
  std::map<StreamId, std::map<std::uint64_t, Chunk>> streams_;
  std::map<StreamId, std::map<std::uint64_t, float>> priorities_;
  std::uint64_t repeats_ = 0;
};

// Which row of which stream stands at each position of a shard's ring, from the first on, found by comparing the
// bytes in the ring with the tape. Positions are the generations of a shard that was never restored.
class RingLog {
 public:
  struct Place {
    StreamId stream;
    std::uint64_t row = 0;
  };

  // After each step of the shard.
  void follow(const replay::Shard& shard, const Tape& tape) {
    const auto end = shard.next_generation();
    begin_ = end - shard.resident_rows();
    while (places_.size() < end) follow_chunk(shard, tape);
    for (const auto& [stream, rows] : positions_) {
      const auto known = shard.rows_of(stream);
      if (known != 0) REQUIRE(known == rows.size());
    }
  }

  [[nodiscard]] std::uint64_t begin() const { return begin_; }        // of the resident positions
  [[nodiscard]] std::uint64_t end() const { return places_.size(); }  // of all
  [[nodiscard]] const Place& at(std::uint64_t position) const { return places_.at(position); }
  [[nodiscard]] const Row& row_at(std::uint64_t position) const { return *rows_.at(position); }
  // Of each stream's rows, in order.
  [[nodiscard]] const std::map<StreamId, std::vector<std::uint64_t>>& positions() const { return positions_; }

 private:
  static Row read(const replay::Shard& shard, std::size_t columns, std::uint64_t position) {
    const auto slot = static_cast<std::uint32_t>(position % shard.options().capacity_rows);
    Row row;
    for (std::size_t c = 0; c < columns; ++c) {
      row.columns.emplace_back(shard.column_bytes(c));
      shard.gather(c, std::span(&slot, 1), row.columns.back().data());
    }
    return row;
  }

  // The chunk that begins at the first position not known yet.
  void follow_chunk(const replay::Shard& shard, const Tape& tape) {
    const std::uint64_t position = places_.size();
    std::vector<std::pair<StreamId, const Chunk*>> fitting;
    for (const auto& [stream, chunks] : tape.streams()) {
      const auto next = chunks.find(next_chunk_[stream]);
      if (next == chunks.end() || position + next->second.rows.size() > shard.next_generation()) continue;
      const auto& rows = next->second.rows;
      bool fits = true;
      for (std::size_t r = 0; r < rows.size() && fits; ++r) {
        fits = rows[r] == read(shard, tape.row_bytes().size(), position + r);
      }
      if (fits) fitting.emplace_back(stream, &next->second);
    }
    INFO("position " << position << ": chunks that fit: " << fitting.size());
    REQUIRE(fitting.size() == 1);
    const auto& [stream, chunk] = fitting.front();
    ++next_chunk_[stream];
    auto& positions = positions_[stream];
    REQUIRE(chunk->first_row == positions.size());
    for (std::size_t r = 0; r < chunk->rows.size(); ++r) {
      positions.push_back(places_.size());
      places_.push_back({stream, chunk->first_row + r});
      rows_.push_back(&chunk->rows[r]);
    }
  }

  std::uint64_t begin_ = 0;
  std::vector<Place> places_;
  std::vector<const Row*> rows_;
  std::map<StreamId, std::vector<std::uint64_t>> positions_;
  std::map<StreamId, std::uint64_t> next_chunk_;
};

}  // namespace qanat::system_test
