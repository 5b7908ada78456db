// A shard's process: takes chunks from actors, serves samples to the learner, and acknowledges what it applied.
//
// Inserts and reads have sockets of their own, so that an insert held back by the ledger never blocks a read.
// A control::Role: one thread, never blocks.
//
// Readers are served in turn, and one that does not read gets no more once some batches' worth of rows are on their way
// to it: what it asks waits, and of that too only so much is kept.
//
// Acknowledgement: after a chunk is applied, with the next sequence number expected of its stream. What cannot be
// applied is refused with the reason (nothing of the chunk is kept). A stream that ended (its actor was given up)
// answers `refused` too, and the actor goes on with a new stream. Inserts that the ledger holds back may fill the shard
// once over; more stays in the sockets. Checkpoints go into the run's directory and nowhere else; a thread writes them,
// so that a disk may take its time. Only rows that would be overwritten before they are saved wait for it: inserts are
// then held.
#pragma once

#include <deque>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "control/ledger.h"
#include "control/member.h"
#include "control/role.h"
#include "core/io_thread.h"
#include "core/rng.h"
#include "replay/config.h"
#include "replay/sample_table.h"
#include "replay/shard.h"

namespace qanat::replay {

struct ServerOptions {
  control::MemberOptions member;
  std::vector<std::string> bind;  // "tcp://127.0.0.1:*", "ipc:///dir/replay-0"
  ReplayConfig replay;
  control::LedgerOptions ledger{.ratio = 0};  // what the head leases by
  std::uint32_t stack = 1;
  std::uint32_t n_step = 1;
  bool discounted_return = false;  // rows carry it, see schema_of
  // Insert credits asked for beyond what waits, at most: with more, the other shards would find the window leased out.
  std::uint64_t most_steps_ahead = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t seed = 0;
};

// Options of one of the run's shards: its part of the capacity.
[[nodiscard]] ShardOptions shard_options(const ReplayConfig& config, std::uint32_t stack, std::uint32_t n_step,
                                         std::uint32_t index);

class ShardServer : public control::Role {
 public:
  ShardServer(wire::Context& context, const Clock& clock, Logger& log, ServerOptions options);

  bool step() override;
  [[nodiscard]] std::vector<wire::Socket*> sockets() override;
  [[nodiscard]] bool finished() const override { return finished_; }
  void request_stop(const std::string& cause) override;

  [[nodiscard]] const Shard* shard() const { return shard_ ? &*shard_ : nullptr; }
  // Lockstep: nothing is held or being saved.
  [[nodiscard]] bool quiet() const { return pending_.empty() && readers_.empty() && !save_; }
  // Lockstep: this role's part of a checkpoint, at once.
  [[nodiscard]] std::vector<WrittenFile> save(const std::filesystem::path& directory);

 private:
  // A message whose chunks are applied one after the other, as the lease allows.
  struct Pending {
    std::string peer;
    wire::Insert head;
    std::vector<wire::Frame> columns;
    std::size_t next_chunk = 0;
    std::uint64_t next_row = 0;  // rows of the chunks before, in each column
    std::uint64_t admitted = 0;  // steps of the chunks before that were taken
  };
  // Who asks on the sample service: what it wants, in its order, and what is on its way to it.
  struct Reader {
    std::deque<wire::Incoming> requests;
    std::uint64_t request_bytes = 0;
    std::deque<wire::Message> answers;        // that its queue in the socket had no room for
    std::shared_ptr<wire::HeldBytes> unread;  // bytes of rows in answers that it has not taken
  };
  // A checkpoint's part on its way to the disk, by a thread of its own: one at a time.
  struct Save {
    Save(std::string asked_by, std::string directory);

    std::string peer;
    std::string directory;
    std::unique_ptr<WrittenFile> random_numbers = std::make_unique<WrittenFile>();
    Nanoseconds copy_again{Nanoseconds::min()};  // rows are not copied before, while others are served
    IoThread disk;
  };

  void build();
  [[nodiscard]] bool full() const;
  [[nodiscard]] bool within_run(const std::filesystem::path& directory) const;
  bool receive_inserts();
  bool apply_inserts();
  [[nodiscard]] std::uint64_t credits_for(const wire::ChunkHead& chunk) const;
  void learn_usual(std::uint64_t admitted);
  [[nodiscard]] std::uint64_t credits_needed(const Pending& pending) const;
  [[nodiscard]] static std::uint64_t steps_in(const Pending& pending);
  [[nodiscard]] static wire::StreamAck turn_away(const Pending& pending);
  [[nodiscard]] wire::StreamAck apply(const Pending& pending);
  void check(const Pending& pending) const;
  void end_departed();
  bool serve_reads();
  bool take_requests();
  bool serve_next(const std::string& peer, Reader& reader);
  void serve(const wire::Incoming& message, Reader& reader);
  void answer(const std::string& peer, wire::Message message);
  void send_answers(const std::string& peer, Reader& reader);
  [[nodiscard]] Reader& reader_of(const std::string& peer);
  void serve_sample(const wire::Incoming& message, Reader& reader);
  void serve_priorities(const wire::Incoming& message);
  void serve_save(const wire::Incoming& message);
  void begin_save(const std::string& peer, const std::string& directory);
  // `served`: in this step others were, who come first. True when it did something.
  bool continue_save(bool served);
  void end_save(const std::string& error, std::vector<WrittenFile> files);
  [[nodiscard]] std::filesystem::path part(const std::filesystem::path& directory) const;
  [[nodiscard]] wire::SampleReply state_reply(const wire::SampleRequest& request);
  void report();

  const Clock& clock_;
  Logger& log_;
  ServerOptions options_;
  wire::Socket inserts_;
  wire::Socket reads_;
  control::Member member_;
  std::optional<Shard> shard_;
  Rng rng_;
  Draw draw_;
  SampleTable table_;

  std::deque<Pending> pending_;
  std::uint64_t pending_steps_ = 0;                           // rows held
  std::uint64_t pending_credits_ = 0;                         // those of them that may be taken
  std::uint64_t usual_message_steps_ = 0;                     // taken of a message, about the most of late
  std::uint64_t used_ = 0;                                    // steps inserted by this process
  std::map<std::uint64_t, std::set<std::uint32_t>> streams_;  // by actor incarnation
  float other_shards_max_ = -1;
  std::uint64_t refused_ = 0;
  std::uint64_t resets_ = 0;  // connections, as last said
  // Over inproc an answer is its reader's own memory once it is sent: there it would count as unread while it is kept.
  bool counts_unread_;
  std::map<std::string, Reader> readers_;  // by identity: who has anything waiting or unread
  std::optional<Save> save_;
  std::optional<wire::SaveReply> saved_;  // the last part that was written
  bool finished_ = false;

  Nanoseconds measured_;
  Nanoseconds last_step_;
  Nanoseconds held_{0};
};

}  // namespace qanat::replay
