// Every message head that crosses a process boundary, and the codec (Cereal) that turns it into bytes.
//
// Heads are small; bulk data travels as parts beside them, and each head says what its parts are. Decoding is
// safe on hostile bytes: a length that exceeds what is left is an InputError, never an allocation, and so are a
// boolean or an enumeration without meaning. Numbers are not judged here: that is their user's task.
//
// Who says what to whom:
//   all -> head      ConfigGet, Join, Heartbeat, Leave, LedgerReport, SaveRequest
//   head -> all      ConfigReply, JoinReply, HeartbeatReply, LedgerGrant, SaveReply
//   actor -> shard   Insert                                     shard -> actor InsertAck
//   learner -> shard SampleRequest, PriorityUpdate, SaveRequest shard -> learner SampleReply, SaveReply
//   learner -> subscribers WeightsAnnounce;  anyone -> learner WeightsGet, EvaluationReport;  learner -> asker Weights
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/files.h"
#include "core/tensor.h"
#include "wire/socket.h"

namespace qanat::wire {

enum class MessageType : std::uint16_t {
  join = 1,
  join_reply,
  heartbeat,
  heartbeat_reply,
  leave,
  ledger_report,
  ledger_grant,
  config_get,
  config_reply,
  insert = 32,
  insert_ack,
  sample_request,
  sample_reply,
  priority_update,
  save_request,
  save_reply,
  weights_announce = 64,
  weights_get,
  weights,
  evaluation_report,
};

enum class Role : std::uint8_t { head = 0, learner, replay, actor, evaluate, supervisor };
[[nodiscard]] std::string_view name_of(Role role);

// ---- the head ---------------------------------------------------------------------------------------------

// What an environment looks like to those who never load it (shards, learner): fixed for a run.
struct EnvironmentSchema {
  struct Observation {
    TensorSpec tensor;
    double low = 0;
    double high = 0;
    template <class A>
    void serialize(A& a) {
      a(tensor.name, tensor.dtype, tensor.shape, low, high);
    }
    friend bool operator==(const Observation&, const Observation&) = default;
  };
  std::string id;
  std::vector<Observation> observations;
  std::int64_t actions = 0;  // Discrete
  bool has_action_mask = false;
  std::int64_t max_episode_steps = 0;  // 0: none

  template <class A>
  void serialize(A& a) {
    a(id, observations, actions, has_action_mask, max_episode_steps);
  }
  friend bool operator==(const EnvironmentSchema&, const EnvironmentSchema&) = default;
  [[nodiscard]] std::string describe() const;
};

// A socket that others may connect to, under every address it is bound to.
struct Endpoint {
  std::string service;  // "insert", "sample", "weights", "announce"
  std::vector<std::string> addresses;
  template <class A>
  void serialize(A& a) {
    a(service, addresses);
  }
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

enum class MemberState : std::uint8_t { alive = 0, left, lost };

struct MemberInfo {
  Role role = Role::actor;
  std::int64_t index = 0;
  std::uint64_t incarnation = 0;
  MemberState state = MemberState::alive;
  std::int64_t pid = 0;  // on its machine
  std::vector<Endpoint> endpoints;
  template <class A>
  void serialize(A& a) {
    a(role, index, incarnation, state, pid, endpoints);
  }
};

// Who is in the run. Versions only grow within an epoch.
struct Directory {
  std::uint64_t version = 0;
  std::vector<MemberInfo> members;
  template <class A>
  void serialize(A& a) {
    a(version, members);
  }
};

enum class RunState : std::uint8_t { starting = 0, running, draining, closing, ended };
[[nodiscard]] std::string_view name_of(RunState state);

// Asked before joining, by a process that knows nothing but the head's address.
struct ConfigGet {
  static constexpr auto type = MessageType::config_get;
  std::uint8_t unused = 0;
  template <class A>
  void serialize(A& a) {
    a(unused);
  }
};

struct ConfigReply {
  static constexpr auto type = MessageType::config_reply;
  std::string config;  // the resolved YAML of the run
  std::string run_name;
  std::string run_dir;  // on the head's machine
  std::uint64_t epoch = 0;
  template <class A>
  void serialize(A& a) {
    a(config, run_name, run_dir, epoch);
  }
};

struct Join {
  static constexpr auto type = MessageType::join;
  Role role = Role::actor;
  std::int64_t index = -1;  // -1: the head picks the lowest free one
  std::uint64_t incarnation = 0;
  std::int64_t pid = 0;
  std::int64_t parent = 0;  // the pid of the process that started it
  std::string host;
  std::string commit;
  std::vector<Endpoint> endpoints;
  std::vector<EnvironmentSchema> schema;  // none or one
  std::uint64_t chunk_steps = 0;          // actors: the longest chunk that will be sent
  template <class A>
  void serialize(A& a) {
    a(role, index, incarnation, pid, parent, host, commit, endpoints, schema, chunk_steps);
  }
};

struct JoinReply {
  static constexpr auto type = MessageType::join_reply;
  bool accepted = false;
  std::string reason;  // why not, or empty
  bool again = false;  // not accepted yet: whoever has the place may be dead, so ask again
  std::int64_t index = 0;
  std::uint64_t epoch = 0;
  std::uint64_t start_count = 0;  // how often this role and index was started before; part of its seed
  std::string run_dir;            // on the head's machine
  std::string resume_from;        // checkpoint directory, or empty
  template <class A>
  void serialize(A& a) {
    a(accepted, reason, again, index, epoch, start_count, run_dir, resume_from);
  }
};

struct Heartbeat {
  static constexpr auto type = MessageType::heartbeat;
  std::uint64_t incarnation = 0;
  std::uint64_t directory_version = 0;  // the newest one known to the sender
  bool has_schema = false;
  std::vector<std::pair<std::string, double>> metrics;    // newest values, not increments
  std::vector<std::pair<double, std::int64_t>> episodes;  // (return, length) ended since the last heartbeat
  std::array<std::uint64_t, 5> traffic{};                 // messages in, out, bytes in, out, refused
  std::string stop_cause;                                 // set by a role that met a stop condition (learner)
  std::string checkpoint;                                 // the newest complete checkpoint (learner)
  std::string save_error;                                 // why the last save failed; empty: it did not (learner)
  std::vector<std::int64_t> ended;                        // pids of children that have ended (supervisor)
  std::string waiting;                                    // what it waits for and cannot go on without; empty: nothing
  template <class A>
  void serialize(A& a) {
    a(incarnation, directory_version, has_schema, metrics, episodes, traffic, stop_cause, checkpoint, save_error, ended,
      waiting);
  }
};

struct HeartbeatReply {
  static constexpr auto type = MessageType::heartbeat_reply;
  bool known = true;  // false: the head restarted or gave the sender up; join again
  std::uint64_t epoch = 0;
  RunState state = RunState::starting;
  std::string stop_cause;
  std::vector<Directory> directory;       // none when the sender's is the newest
  std::vector<EnvironmentSchema> schema;  // none when the sender has it or nobody knows yet
  std::uint64_t env_steps = 0;            // of the whole run
  std::uint64_t updates = 0;
  std::vector<std::pair<std::string, double>> metrics;  // for the supervisor: the run's newest values
  std::string save_error;                               // for the supervisor: why the last save failed
  std::string waiting;  // for the supervisor, while no update is done: what they wait for
  template <class A>
  void serialize(A& a) {
    a(known, epoch, state, stop_cause, directory, schema, env_steps, updates, metrics, save_error, waiting);
  }
};

struct Leave {
  static constexpr auto type = MessageType::leave;
  std::uint64_t incarnation = 0;
  std::string reason;
  template <class A>
  void serialize(A& a) {
    a(incarnation, reason);
  }
};

// Cumulative counts, so that a lost or repeated message changes nothing. Steps for shards, trained steps for
// learners.
struct LedgerReport {
  static constexpr auto type = MessageType::ledger_report;
  std::uint64_t incarnation = 0;
  std::uint64_t used = 0;  // inserted or drawn so far by this incarnation
  // What it will surely use in all by the time it asks again: a lease is not taken back from a living member, so
  // credits asked for and not used hold up the others.
  std::uint64_t wanted = 0;
  std::uint64_t drawable = 0;  // shards: items that may be drawn now
  std::uint64_t granted = 0;   // the newest grant it knows, so that a lost one is sent again
  template <class A>
  void serialize(A& a) {
    a(incarnation, used, wanted, drawable, granted);
  }
};

struct LedgerGrant {
  static constexpr auto type = MessageType::ledger_grant;
  std::uint64_t granted = 0;  // may be used in all; never falls
  bool counting = false;      // min_size was reached
  double balance = 0;         // ratio * inserted - drawn, trained steps
  template <class A>
  void serialize(A& a) {
    a(granted, counting, balance);
  }
};

// ---- replay -----------------------------------------------------------------------------------------------

struct ChunkHead {
  std::uint64_t incarnation = 0;
  std::uint32_t slot = 0;
  std::uint64_t sequence = 0;
  std::uint64_t first_row = 0;
  std::uint32_t rows = 0;
  std::uint32_t priority_n = 0;  // the n its priorities were computed with; 0: none given
  std::uint64_t weights_version = 0;
  std::vector<std::uint64_t> item_starts;  // start rows of the items this chunk completes
  std::vector<float> item_priorities;
  template <class A>
  void serialize(A& a) {
    a(incarnation, slot, sequence, first_row, rows, priority_n, weights_version, item_starts, item_priorities);
  }
};

// Parts: one a column of the schema, the last column first (flags ... observations: what is short leaves with the
// head), each the chunks' rows one after the other.
struct Insert {
  static constexpr auto type = MessageType::insert;
  std::uint64_t epoch = 0;
  std::vector<ChunkHead> chunks;
  template <class A>
  void serialize(A& a) {
    a(epoch, chunks);
  }
};

// unwanted: not stored, as the run has all the steps that it was to have; nothing is wrong with it.
enum class AckStatus : std::uint8_t { applied = 0, duplicate, refused, unwanted };

struct StreamAck {
  std::uint64_t incarnation = 0;
  std::uint32_t slot = 0;
  std::uint64_t next_sequence = 0;  // everything below is stored (or was, and is evicted), or unwanted
  AckStatus status = AckStatus::applied;
  std::string reason;  // for refused
  // Of the chunk that is answered. One refused above next_sequence came too early: some before it are missing.
  std::uint64_t sequence = 0;
  template <class A>
  void serialize(A& a) {
    a(incarnation, slot, next_sequence, status, reason, sequence);
  }
};

struct InsertAck {
  static constexpr auto type = MessageType::insert_ack;
  std::uint64_t shard_incarnation = 0;
  std::vector<StreamAck> acks;
  template <class A>
  void serialize(A& a) {
    a(shard_incarnation, acks);
  }
};

struct SampleRequest {
  static constexpr auto type = MessageType::sample_request;
  std::uint64_t epoch = 0;
  std::uint64_t request = 0;  // echoed
  std::uint32_t count = 0;    // 0: only the shard's state is wanted
  float max_priority = 0;     // the largest raw priority the learner knows of, over all shards
  // Draw i lies in stratum (first + i) mod strata of the shard's whole mass, so that several requests share its strata.
  std::uint32_t first = 0;
  std::uint32_t strata = 0;  // at least `count`; 0: `count`
  template <class A>
  void serialize(A& a) {
    a(epoch, request, count, max_priority, first, strata);
  }
};

// Parts, when count > 0: the item table (see replay/sample_table.h), then one a column that samples need:
// observations and extras, `rows` rows each.
struct SampleReply {
  static constexpr auto type = MessageType::sample_reply;
  std::uint64_t epoch = 0;
  std::uint64_t request = 0;
  std::uint64_t shard_incarnation = 0;
  std::uint32_t count = 0;  // as asked, or 0 when nothing is drawable
  std::uint32_t rows = 0;
  std::uint64_t mass = 0;  // at the moment of the draw; 0: drawn uniformly by count
  std::uint64_t items = 0;
  float max_priority = 0;
  template <class A>
  void serialize(A& a) {
    a(epoch, request, shard_incarnation, count, rows, mass, items, max_priority);
  }
};

// Part 0: handles {u32 slot, u64 generation} as u32[count] then u64[count]; part 1: raw priorities f32[count].
struct PriorityUpdate {
  static constexpr auto type = MessageType::priority_update;
  std::uint64_t epoch = 0;
  std::uint64_t shard_incarnation = 0;
  std::uint32_t count = 0;
  template <class A>
  void serialize(A& a) {
    a(epoch, shard_incarnation, count);
  }
};

// In band: the shard's part of a checkpoint holds exactly what was applied before this message.
struct SaveRequest {
  static constexpr auto type = MessageType::save_request;
  std::uint64_t epoch = 0;
  std::string directory;
  template <class A>
  void serialize(A& a) {
    a(epoch, directory);
  }
};

struct SaveReply {
  static constexpr auto type = MessageType::save_reply;
  std::string directory;
  std::string error;               // empty: done
  std::vector<WrittenFile> files;  // what the sender has put there
  template <class A>
  void serialize(A& a) {
    a(directory, error, files);
  }
};

// ---- weights ----------------------------------------------------------------------------------------------

struct WeightVersion {
  std::uint64_t epoch = 0;
  std::uint64_t version = 0;  // updates done when the weights were taken
  template <class A>
  void serialize(A& a) {
    a(epoch, version);
  }
  friend auto operator<=>(const WeightVersion&, const WeightVersion&) = default;
};

struct WeightsAnnounce {
  static constexpr auto type = MessageType::weights_announce;
  WeightVersion version;
  std::uint64_t hash = 0;
  std::uint64_t bytes = 0;
  template <class A>
  void serialize(A& a) {
    a(version, hash, bytes);
  }
};

struct WeightsGet {
  static constexpr auto type = MessageType::weights_get;
  WeightVersion have;           // answered only with something newer (held until there is)
  bool for_evaluation = false;  // the learner keeps a copy until the report comes
  template <class A>
  void serialize(A& a) {
    a(have, for_evaluation);
  }
};

// Part 0: the parameters, f32, one flat block in canonical layout. Part 1: the statistics by which the network's inputs
// are normalised (nn/normalization.h); empty when nothing is.
struct Weights {
  static constexpr auto type = MessageType::weights;
  WeightVersion version;
  std::uint64_t hash = 0;    // of both parts, one after the other
  std::uint64_t layout = 0;  // hash of tensor names and shapes: another network is refused
  template <class A>
  void serialize(A& a) {
    a(version, hash, layout);
  }
};

struct EvaluationReport {
  static constexpr auto type = MessageType::evaluation_report;
  WeightVersion version;
  std::int64_t episodes = 0;
  double mean = 0;
  double standard_error = 0;
  double mean_length = 0;
  template <class A>
  void serialize(A& a) {
    a(version, episodes, mean, standard_error, mean_length);
  }
};

// ---- codec ------------------------------------------------------------------------------------------------

template <class Head>
[[nodiscard]] Message encode(const Head& head, std::vector<Frame> parts = {});

// Throws InputError when the bytes are not exactly one `Head`, or the message is of another type.
template <class Head>
[[nodiscard]] Head decode(const Message& message);

}  // namespace qanat::wire
