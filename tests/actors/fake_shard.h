// A shard for tests: takes inserts on a ROUTER socket, keeps every row by stream, acknowledges as told, and insists on
// sequence numbers and row numbers without gaps, as a real one does.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "replay/schema.h"
#include "tests/support/catch.h"
#include "wire/messages.h"

namespace qanat::actors {

struct StoredRow {
  std::vector<std::vector<std::byte>> columns;

  template <class T>
  [[nodiscard]] std::vector<T> get(std::size_t column) const {
    std::vector<T> out(columns[column].size() / sizeof(T));
    std::memcpy(out.data(), columns[column].data(), columns[column].size());
    return out;
  }
  [[nodiscard]] std::uint8_t flags() const { return std::to_integer<std::uint8_t>(columns.back()[0]); }
  friend bool operator==(const StoredRow&, const StoredRow&) = default;
};

struct StoredStream {
  std::uint64_t next_sequence = 0;
  std::vector<StoredRow> rows;
  std::map<std::uint64_t, float> priorities;  // by start row
  std::vector<std::uint64_t> completed_at;    // for each priority, in order of arrival: rows there were
  std::vector<std::uint64_t> versions;        // weights version of each chunk
};

class FakeShard {
 public:
  FakeShard(wire::Context& context, const std::string& endpoint, std::uint64_t shard_incarnation)
      : incarnation(shard_incarnation), socket(context, wire::SocketKind::router) {
    address = socket.bind(endpoint);
  }

  // Takes in what is there. True when something was.
  bool step() {
    bool any = false;
    for (auto& message : socket.receive_all()) {
      any = true;
      ++messages;
      if (deaf) continue;
      std::reverse(message.parts.begin(), message.parts.end());  // the last column comes first
      const auto insert = wire::decode<wire::Insert>(message);
      epochs.push_back(insert.epoch);
      wire::InsertAck ack{incarnation, {}};
      std::size_t row = 0;
      for (const auto& chunk : insert.chunks) {
        ack.acks.push_back(apply(chunk, message.parts, row));
        row += chunk.rows;
      }
      ++acks;
      if (drop_every > 0 && acks % drop_every == 0) continue;
      auto reply = wire::encode(ack);
      (void)socket.send_to(message.peer, reply);
    }
    return any;
  }

  std::uint64_t incarnation;
  wire::Socket socket;
  std::string address;
  bool deaf = false;           // messages are lost
  int drop_every = 0;          // every so manieth ack is lost
  std::string refuse_because;  // refuse all chunks
  std::map<std::uint32_t, StoredStream> streams;
  std::vector<std::uint64_t> epochs;
  int messages = 0;
  int acks = 0;
  int duplicates = 0;
  int gaps = 0;

 private:
  wire::StreamAck apply(const wire::ChunkHead& chunk, const std::vector<wire::Frame>& parts, std::size_t first) {
    wire::StreamAck ack{chunk.incarnation, chunk.slot, 0, wire::AckStatus::applied, {}, chunk.sequence};
    if (!refuse_because.empty()) {
      const auto found = streams.find(chunk.slot);
      ack.next_sequence = found == streams.end() ? 0 : found->second.next_sequence;
      ack.status = wire::AckStatus::refused;
      ack.reason = refuse_because;
      return ack;
    }
    auto& stream = streams[chunk.slot];
    if (chunk.sequence > stream.next_sequence) {
      ++gaps;
      ack.status = wire::AckStatus::refused;
      ack.reason = text("saw chunk ", chunk.sequence, ", wanted ", stream.next_sequence);
    } else if (chunk.sequence < stream.next_sequence) {
      ++duplicates;
      ack.status = wire::AckStatus::duplicate;
    } else {
      store(chunk, parts, first, stream);
    }
    ack.next_sequence = stream.next_sequence;
    return ack;
  }

  void store(const wire::ChunkHead& chunk, const std::vector<wire::Frame>& parts, std::size_t first,
             StoredStream& stream) {
    REQUIRE(chunk.first_row == stream.rows.size());
    REQUIRE(chunk.rows > 0);
    const auto total = parts.back().size();  // one byte of flags a row
    for (std::size_t r = 0; r < chunk.rows; ++r) {
      StoredRow row;
      for (const auto& part : parts) {
        const auto bytes = part.size() / total;
        const auto it = part.bytes().subspan((first + r) * bytes, bytes);
        row.columns.emplace_back(it.begin(), it.end());
      }
      stream.rows.push_back(std::move(row));
    }
    for (std::size_t i = 0; i < chunk.item_starts.size(); ++i) {
      REQUIRE(stream.priorities.emplace(chunk.item_starts[i], chunk.item_priorities[i]).second);
      stream.completed_at.push_back(stream.rows.size());
    }
    stream.versions.push_back(chunk.weights_version);
    ++stream.next_sequence;
  }
};

}  // namespace qanat::actors
