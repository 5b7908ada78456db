// The learner's side of the replay: whole batches drawn over all shards, pipelined.
//
// The client fixes q_s, each shard's share, from the newest masses it holds, and draws the shards' counts
// stratified over the concatenated mass. Shard s draws by its own mass m_s of that moment and returns each
// leaf and m_s; P = q_s * leaf / m_s is the probability with which the item was really drawn, whatever moved
// in between. With all masses zero, shards are drawn by their number of items.
//
// A shard's draws are stratified over its whole mass, in however many requests they are asked for: each request names
// its strata. They begin at one that is drawn anew each time, so P holds although the mass may move between requests.
//
// Requests are answered in order: one that a later one overtook was lost and is sent again. A shard that is silent for
// `silent_after`, was replaced, or has nothing to draw gives the draws that it owes to the others, and with them its
// share, so that a batch has one definition of P: q_s is the part of all draws that shard s was to make and that which
// it took over, as if it had been so from the start.
//
// Several batches may be drawn as one round: its requests are those of one large batch. The round is stratified
// as a whole and dealt out so that each batch is stratified over the whole mass too; every item's P stays the same.
// New priorities wait for the next request, so that both wake a shard once.
// Never blocks. One owner thread. Large batches are checked and copied with helpers, where there are processors for
// them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/helpers.h"
#include "core/rng.h"
#include "replay/sample_table.h"
#include "replay/schema.h"
#include "replay/selector.h"
#include "wire/messages.h"

namespace qanat::replay {

struct ShardAddress {
  std::int64_t index = 0;
  std::uint64_t incarnation = 0;
  std::string sample;  // address of its "sample" service

  friend bool operator==(const ShardAddress&, const ShardAddress&) = default;
};

struct ClientOptions {
  Schema schema;
  std::uint32_t stack = 1;
  std::uint32_t n_step = 1;
  std::uint32_t batch = 32;
  std::uint32_t prefetch = 1;  // batches that will be requested ahead
  std::uint64_t seed = 0;
  std::string identity;  // of this learner's sockets
  Seconds silent_after{2};
  std::size_t helpers = spare_processors();  // threads beside the owner's

  // One for every four processors from eight on: the others have actors and shards.
  [[nodiscard]] static std::size_t spare_processors();
};

// One batch: items of all shards, and each row they need once.
struct SampledBatch {
  std::uint32_t rows = 0;
  std::vector<std::vector<std::byte>> columns;  // observations then extras, `rows` rows each
  // The first column's rows, when take() was told to put them there.
  const std::byte* elsewhere = nullptr;
  SampleTable table;                        // rows of all parts numbered through
  std::vector<double> probability;          // [B] with which each item was drawn
  std::vector<std::uint32_t> shard;         // [B] index into `shards`
  std::vector<std::uint64_t> incarnations;  // [B] of the shard process it came from
  std::uint64_t items = 0;                  // N: drawable items over all shards

  [[nodiscard]] const std::byte* network_rows() const { return elsewhere ? elsewhere : columns[0].data(); }
  [[nodiscard]] std::size_t size() const { return probability.size(); }
  [[nodiscard]] Handle handle(std::size_t i) const { return {shard[i], table.slots[i], table.generations[i]}; }
};

class ReplayClient {
 public:
  ReplayClient(wire::Context& context, const Clock& clock, ClientOptions options);

  // The shards that are alive now. Those that are gone lose their parts of batches under way to the others.
  void set_shards(const std::vector<ShardAddress>& shards);
  void set_epoch(std::uint64_t epoch) { epoch_ = epoch; }

  // Takes in replies, asks shards whose mass is unknown, moves parts away from silent shards. True when
  // something came in.
  bool step();

  // Requests `batches` batches as one round. False when no shard is known to have anything to draw.
  bool request(std::uint32_t batches = 1);
  // Batches requested and not taken.
  [[nodiscard]] std::size_t in_flight() const { return in_flight_; }
  // The oldest requested batch, when it is complete. `memory` is asked once for a place for the first column's bytes,
  // which then leaves columns[0] empty; an empty answer, or none to ask: columns[0] holds them.
  using RowMemory = std::function<std::span<std::byte>(std::size_t bytes)>;
  [[nodiscard]] std::optional<SampledBatch> take(const RowMemory& memory = {});
  // Gives a batch's memory back for the next one.
  void recycle(SampledBatch&& batch) { spare_ = std::move(batch); }

  // Raw priorities, one an item of the batch; each goes to the shard process that drew it, with the next request or a
  // moment later.
  void update_priorities(const SampledBatch& batch, std::span<const float> priorities);

  // Asks every shard to save its part into `directory`; the answers come through take_saves().
  void save(const std::string& directory);
  // Asks that one again: the question or the answer may be lost. Who has answered answers the same.
  void save_again(std::int64_t shard, const std::string& directory);
  struct Saved {
    std::int64_t shard;
    wire::SaveReply reply;
  };
  [[nodiscard]] std::vector<Saved> take_saves() { return std::exchange(saves_, {}); }

  [[nodiscard]] std::size_t shards() const { return shards_.size(); }
  [[nodiscard]] std::uint64_t items() const;
  // Age of the oldest mass in use.
  [[nodiscard]] Seconds mass_age() const;
  [[nodiscard]] std::vector<wire::Socket*> sockets();
  [[nodiscard]] wire::Traffic traffic() const;

  [[nodiscard]] const Rng& rng() const { return rng_; }
  void set_rng(const Rng& rng) { rng_ = rng; }

 private:
  struct Shard {
    ShardAddress address;
    std::unique_ptr<wire::Socket> socket;
    bool known = false;  // mass and items were heard
    std::uint64_t mass = 0;
    std::uint64_t items = 0;
    float max_priority = 0;
    Nanoseconds heard{0};
    Nanoseconds asked{0};
    Nanoseconds answered{0};          // when a sample request was, last
    std::uint64_t last_answered = 0;  // its number; they are answered in order
    bool silent = false;
    bool full = false;  // its queue took no more, in this step
    // Priorities not sent yet.
    std::vector<std::uint32_t> slots;
    std::vector<std::uint64_t> generations;
    std::vector<float> priorities;
  };
  // What one shard process draws of a round: its share q_s of the probability, and how many of the draws.
  struct Share {
    std::int64_t shard = 0;
    std::uint64_t incarnation = 0;
    double q = 0;
    std::uint32_t draws = 0;
  };
  // What one request asks for.
  struct Part {
    std::size_t share = 0;  // which of the round's
    std::uint64_t request = 0;
    std::uint32_t count = 0;
    Strata strata;
    Nanoseconds sent{0};
    bool unsent = false;  // the socket took no more
    std::optional<wire::SampleReply> reply;
    SampleTable table;
    std::vector<wire::Frame> columns;
  };
  // Which item of which part.
  struct Pick {
    std::uint32_t part = 0;
    std::uint32_t item = 0;
  };
  struct Round {
    bool checked = false;  // that the rows are those that the shards sent
    std::uint32_t batches = 1;
    std::uint32_t taken = 0;
    std::vector<Share> shares;
    std::vector<Part> parts;
    std::vector<Pick> picks;  // [batches, batch], once all parts are there
  };

  void handle(Shard& shard, wire::Incoming&& message);
  void accept(Part& part, wire::SampleReply reply, wire::Incoming&& message);
  void check_parts(const wire::SampleReply& reply, const wire::Incoming& message) const;
  void ask(Shard& shard);
  void ask_to_save(Shard& shard, const std::string& directory);
  bool allot(Round& round, std::uint32_t draws, double portion);
  [[nodiscard]] std::vector<double> weights() const;
  std::size_t share_of(Round& round, const Shard& shard);
  void ask_for(Round& round, std::size_t share, Shard& shard, std::uint32_t draws);
  using Condition = std::function<bool(const Part&)>;
  void pass_on(Round& round, const Condition& owed);
  void ask_again_for(Round& round, std::size_t part);
  void follow_up(Round& round);
  [[nodiscard]] bool lost(const Part& part, const Shard* shard) const;
  void send(Shard& shard, Part& part);
  [[nodiscard]] float max_priority() const;
  [[nodiscard]] Shard* find(const Share& share);
  void deal(Round& round);
  void describe_items(const Round& round, std::span<const Pick> picks, SampledBatch& out) const;
  void number_rows(const Round& round, std::span<const Pick> picks, SampledBatch& out);
  [[nodiscard]] bool copy_rows(Round& round, const RowMemory& memory, SampledBatch& out);
  void drop_damaged(Round& round);
  void send_priorities();

  wire::Context& context_;
  const Clock& clock_;
  ClientOptions options_;
  std::vector<std::size_t> row_bytes_;  // of the columns a reply carries
  Rng rng_;
  std::uint64_t epoch_ = 0;
  std::vector<Shard> shards_;   // ordered by index
  std::uint32_t largest_part_;  // items a request asks for at most, so that no reply is too large a message
  std::deque<Round> pending_;
  std::size_t in_flight_ = 0;
  std::optional<Nanoseconds> priorities_since_;         // the oldest that are not sent
  std::vector<std::vector<std::uint32_t>> renumbered_;  // [part][row of its reply] row of the batch
  std::vector<Pick> sources_;                           // [row of the batch] part and row of its reply, by part
  std::optional<Helpers> helpers_;                      // from the first large batch on
  std::uint64_t next_request_ = 1;
  std::vector<Saved> saves_;
  SampledBatch spare_;
  wire::Traffic closed_;
};

}  // namespace qanat::replay
