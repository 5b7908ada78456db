// The actor's connection to one replay shard: chunks go out in order, stay here until acknowledged, and go out again.
//
// Sent again are all unacknowledged chunks, in order, when nothing was heard for `resend_after` (doubling up to sixteen
// times that: a shard may hold inserts back to keep the replay ratio), when the connection is made anew, by us or by
// the network, when the epoch changes, and at once when the shard says that one is missing. The shard takes repeats
// without effect. Never blocks. One thread. Owns its socket and the bytes in flight.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/clock.h"
#include "wire/messages.h"

namespace qanat::actors {

struct ShardLinkOptions {
  std::string identity;           // of our socket; the same each time, so that a new connection takes over
  std::uint64_t incarnation = 0;  // ours: that of all streams
  std::uint64_t shard_incarnation = 0;
  std::string address;  // its insert service
  Milliseconds resend_after{2000};
};

class ShardLink {
 public:
  ShardLink(wire::Context& context, const Clock& clock, ShardLinkOptions options);

  [[nodiscard]] std::uint64_t shard_incarnation() const { return options_.shard_incarnation; }
  // Connects to another address of the same shard; the same address: nothing happens.
  void reopen(const std::string& address);

  // Parts as in wire::Insert. A stream's chunks come in order of their sequence numbers.
  void queue(wire::Insert insert, std::vector<wire::Frame> parts);

  // A stream that the shard takes nothing of any more.
  struct Refusal {
    std::uint32_t stream = 0;
    bool from_the_start = false;  // it never took a chunk of it
    std::size_t chunks = 0;       // in flight, dropped now
    std::uint64_t steps = 0;
    std::string reason;  // names the shard, the stream and the chunk
  };
  struct Events {
    std::vector<std::uint32_t> acked;  // the stream of each chunk that was acknowledged
    std::vector<Refusal> refused;
  };
  // Sends what is due, takes in what came and appends it to `events`. True when something came in. Malformed answers,
  // and those to something never sent, are dropped and counted in traffic().
  bool step(std::uint64_t epoch, Events& events);

  // The oldest comes first; a batch leaves once all of its chunks are acknowledged.
  struct Batch {
    wire::Insert insert;
    std::vector<wire::Frame> parts;
  };
  [[nodiscard]] const std::deque<Batch>& unacked() const { return batches_; }
  // Whether the shard has it, or its stream was refused: nothing is waited for.
  [[nodiscard]] bool settled(const wire::ChunkHead& chunk) const;

  [[nodiscard]] std::uint64_t resends() const { return resends_; }  // messages sent more than once
  [[nodiscard]] wire::Socket& socket() { return *socket_; }
  [[nodiscard]] wire::Traffic traffic() const;

 private:
  struct Stream {
    std::uint64_t acked = 0;  // the next sequence number the shard wants
    std::uint64_t queued = 0;
    bool refused = false;
  };

  void take_in(const wire::StreamAck& ack, Events& events);
  void refuse(const wire::StreamAck& ack, Stream& stream, Events& events);
  void open();
  void watch_connection();
  void pop_settled();
  void send_due();
  void resend_all();

  wire::Context& context_;
  const Clock& clock_;
  ShardLinkOptions options_;
  std::optional<wire::Socket> socket_;
  wire::Traffic closed_;
  std::unordered_map<std::uint32_t, Stream> streams_;
  std::deque<Batch> batches_;
  std::size_t unsent_ = 0;              // batches before this one were handed to the socket
  std::size_t ever_sent_ = 0;           // batches before this one were handed to it at least once
  std::optional<std::uint64_t> epoch_;  // none before the first step(): nothing is sent yet
  std::uint64_t resends_ = 0;
  std::uint64_t connections_ = 0;  // of socket_, seen so far
  Nanoseconds patience_;
  Nanoseconds resend_at_{0};
  Nanoseconds resent_{Nanoseconds::min() / 2};  // when all was last sent again
};

// Env steps among the rows of a batch's chunk number `index`: all but last observations.
[[nodiscard]] std::uint64_t steps_of(const ShardLink::Batch& batch, std::size_t index);

}  // namespace qanat::actors
