// Turns the steps of an actor's environment slots into streams of chunks and brings them to the replay shards.
//
// Each slot writes one stream, which stays on one shard for life; streams are numbered by a counter and never reused.
// Rows gather in a chunk a slot; send() packs the chunks of several slots into one message a shard. Chunks in flight
// are bounded a slot (credits). When a shard is lost its streams end, what it had not acknowledged is dropped and
// counted, and the slots go on with new streams elsewhere. When a shard comes, streams that are at an episode's end
// move over until all shards have about equally many. Never blocks. One thread. Owns the rows until they are
// acknowledged; no allocation a step, only a chunk.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "actors/priority_window.h"
#include "actors/shard_link.h"
#include "core/bytes.h"

namespace qanat::actors {

struct WriterOptions {
  std::uint64_t incarnation = 0;
  std::size_t slots = 1;
  std::size_t chunk_steps = 16;
  std::size_t max_chunks_in_flight = 4;
  std::uint32_t priority_n = 1;
  std::vector<TensorSpec> observations;
  std::int64_t mask_actions = 0;  // length of the action mask column; 0: there is none
  // Discount of the discounted return's column (replay/run_schema.h); nothing: there is none.
  std::optional<double> return_discount;
  Milliseconds resend_after{2000};
  std::size_t most_part_bytes = std::size_t{256} << 20;  // of a column in one message, where a single chunk fits
};

struct ShardAddress {
  std::uint64_t incarnation = 0;
  std::string address;
};

struct Observation {
  std::span<const std::byte* const> columns;  // one row each
  const std::uint8_t* mask = nullptr;
};

class ExperienceWriter {
 public:
  ExperienceWriter(wire::Context& context, const Clock& clock, WriterOptions options);

  // The shards that are alive, in a fixed order. Slots whose stream had to end get a new one; their indices are
  // appended to `restarted` (at the first call: all slots). New streams go round robin, from shard `rotation` (the
  // actor's index) modulo their number, as long as all shards are equally loaded.
  void set_shards(const std::vector<ShardAddress>& shards, std::size_t rotation, std::vector<std::size_t>& restarted);

  // Whether these slots have a shard and credit for what a step may add.
  [[nodiscard]] bool can_step(std::size_t first_slot, std::size_t count) const;

  // One env step of a slot: begin_row with the observation acted on (it is copied), end_row with what came of it.
  // `end_flags` are flag_terminated and flag_truncated. Returns the row's number in the slot's stream.
  // Precondition: can_step() held for the slot since the last send() of it, and no more than chunk_steps steps since.
  void begin_row(std::size_t slot, const Observation& observation);
  std::uint64_t end_row(std::size_t slot, std::int32_t action, float reward, std::uint8_t end_flags,
                        std::uint64_t weights_version);
  // After an end_row with an end: the true last observation. Returns its row number.
  std::uint64_t add_last_observation(std::size_t slot, const Observation& observation);
  // The item is completed by the newest row. Start rows ascend.
  void add_priority(std::size_t slot, const PricedItem& item);

  // What slots that cannot step wait for, in words.
  [[nodiscard]] std::string waiting() const;

  // Sends the gathered rows of these slots, in as many messages as most_part_bytes wants.
  void send(std::size_t first_slot, std::size_t count);
  // After an episode's end: moves the slot's stream to a shard that has too few. True when a new stream began.
  bool rebalance(std::size_t slot);

  // Ends all streams and episodes where they are and drops what was not sent: the next set_shards() begins new ones.
  void end_streams();

  // Resends, takes in acknowledgements. A stream that its shard takes no more of (it gave us up for a while) ends, and
  // its slot is appended to `restarted`. Throws RunError when a shard refuses a stream's very first chunk, with the
  // shard's reason.
  bool step(std::uint64_t epoch, std::vector<std::size_t>& restarted);

  // Everything sent is acknowledged. Rows not yet sent do not count.
  [[nodiscard]] bool all_acked() const;

  [[nodiscard]] std::uint64_t dropped_steps() const { return dropped_steps_; }  // that no shard took
  [[nodiscard]] std::uint64_t resends() const;
  [[nodiscard]] std::vector<wire::Socket*> sockets();
  [[nodiscard]] wire::Traffic traffic() const;

  // Streams and unsent rows. Precondition of save: all_acked(). load() is for a fresh writer of the same options; its
  // streams go on when the next set_shards() names their shards. Throws InputError.
  void save(ByteWriter& out) const;
  void load(ByteReader& in);

 private:
  struct Slot {
    std::uint64_t shard = 0;  // incarnation; 0: none yet
    std::uint32_t stream = 0;
    std::uint64_t next_sequence = 0;
    std::uint64_t next_row = 0;
    bool between_episodes = true;  // the next row is an episode's (or the stream's) first
    std::size_t in_flight = 0;     // chunks, of this and earlier streams
    std::size_t rows = 0;          // gathered, not sent
    std::size_t steps = 0;         // of those, the ones with an action
    std::uint64_t weights_version = 0;
    double discounted_return = 0;                 // of the running episode, whatever stream it is in
    std::vector<std::vector<std::byte>> columns;  // each [capacity rows, row bytes]
    std::vector<std::uint64_t> item_starts;
    std::vector<float> item_priorities;
  };

  [[nodiscard]] ShardLink* link_of(std::uint64_t shard);
  void copy_observation(Slot& slot, const Observation& observation);
  void begin_stream(std::size_t slot, std::uint64_t shard);
  void drop_link(std::size_t index);
  void drop_unsent(Slot& slot);
  // Slots a shard, in the order of links_.
  [[nodiscard]] std::vector<std::size_t> loads() const;
  void look_at_balance();
  void pack(ShardLink& link, std::size_t first_slot, std::size_t count);
  [[nodiscard]] wire::ChunkHead head_of(Slot& slot) const;

  wire::Context& context_;
  const Clock& clock_;
  WriterOptions options_;
  std::vector<std::size_t> row_bytes_;  // a column: observations, action, reward, [mask], [discounted return], flags
  std::size_t capacity_;                // rows of a chunk: each step may be followed by a last observation
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<ShardLink>> links_;
  std::unordered_map<std::uint32_t, std::size_t> slot_of_stream_;
  std::uint32_t next_stream_ = 0;
  bool unbalanced_ = false;  // some shard has at least two slots more than another
  std::uint64_t dropped_steps_ = 0;
  std::uint64_t closed_resends_ = 0;
  wire::Traffic closed_;
  ShardLink::Events events_;
};

}  // namespace qanat::actors
