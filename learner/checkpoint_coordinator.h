// Brings checkpoints about: the learner's own part, the head's and the shards', and the manifest that makes them one.
//
// Weights and the learner's state are never hostage to the replay. A shard that is lost or replaced while it saves is
// done without; one that lives is waited for, however slow its disk is. When a save fails, its folder is removed, the
// one before is kept, and another is due a moment later: that one does without the parts of shards that fail again, and
// from the next on without the replay. The manifest and the log say what is missing.
// A save that has failed is over once all who were asked have answered or are gone, so that no late part falls into the
// next one's folder.
//
// Knows neither sockets nor processes: its owner asks the others by way of `SaveOthers` and brings their answers.
// Whatever the disk does (full, over quota, read-only, gone) becomes a failed save and not an exception; a thread waits
// for it, so that training and heartbeats go on however slow it is. The others are asked once the own part is written.
// One owner.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/io_thread.h"
#include "core/log.h"
#include "learner/checkpoint.h"
#include "wire/messages.h"

namespace qanat::learner {

// One life of a shard: a restarted one has another incarnation.
struct ShardLife {
  std::int64_t index = 0;
  std::uint64_t incarnation = 0;
  friend bool operator==(const ShardLife&, const ShardLife&) = default;
};

// Asks the other processes for their parts of a checkpoint in `directory`.
class SaveOthers {
 public:
  virtual ~SaveOthers() = default;
  // May be called again when no answer came: the head answers once more.
  virtual void save_head(const std::string& directory) = 0;
  // Returns who was asked: all shards that are alive.
  virtual std::vector<ShardLife> save_shards(const std::string& directory) = 0;
  // One that has not answered: the question or its answer may be lost.
  virtual void save_shard_again(std::int64_t shard, const std::string& directory) = 0;
};

struct CoordinatorOptions {
  std::filesystem::path checkpoints;
  std::string commit;
  std::size_t keep = 2;
  bool replay = true;
  Seconds retry_after{5};     // after a failed save; twice as long after each further one
  Seconds longest_retry{60};  // but no longer
  Seconds last_retry{1};      // between the attempts at the run's end
  int last_attempts = 3;      // at the run's end
  Seconds ask_again{10};      // who has not answered: the question or the answer may be lost
};

class CheckpointCoordinator {
 public:
  // Writes the learner's own part into the folder and names its files; by the thread that waits for the disk.
  using WriteOwn = std::function<std::vector<WrittenFile>(const std::filesystem::path&)>;

  // The coordinator does not own `others`.
  CheckpointCoordinator(const Clock& clock, Logger& log, CoordinatorOptions options, SaveOthers& others);

  // Where the run goes on from: what counts as the newest checkpoint until another is complete.
  void resumed_from(const std::filesystem::path& directory) { newest_ = directory.string(); }

  // Begins a save, unless one is under way.
  void begin(std::uint64_t updates, WriteOwn write_own);
  // Answers. Those to saves that are over are ignored.
  void take_head(const wire::SaveReply& reply);
  void take_shard(std::int64_t shard, const wire::SaveReply& reply);
  // Completes the save under way when all parts are there or given up. `alive`: the shards by the newest directory.
  void step(const std::vector<ShardLife>& alive, std::uint64_t env_steps);

  [[nodiscard]] bool under_way() const { return state_ != State::idle; }
  // The save before failed, and it is time for another.
  [[nodiscard]] bool retry_due() const { return !under_way() && failures_ > 0 && clock_.now() >= retry_at_; }

  enum class End { not_yet, saved, failed };
  // The run's last save, tried several times: call it until it is no longer `not_yet`, with step() in between.
  // `own_part` is asked for what is to be written, once an attempt.
  [[nodiscard]] End end(std::uint64_t updates, const std::function<WriteOwn()>& own_part);
  // Waits for the disk: for an owner that has nothing else to do.
  void finish_writing() { disk_.finish(); }

  // The newest complete checkpoint; empty when there is none.
  [[nodiscard]] const std::string& newest() const { return newest_; }
  // Failed saves in all, those in a row, and why the last one failed: empty when it did not.
  [[nodiscard]] std::uint64_t failed() const { return failed_; }
  [[nodiscard]] int failed_in_a_row() const { return failures_; }
  [[nodiscard]] const std::string& error() const { return error_; }
  // How long no save has succeeded; zero when the last one did.
  [[nodiscard]] Seconds failing_for() const;

 private:
  enum class State { idle, writing, gathering, closing };
  // What a job for the disk had to say. The job alone touches it until the disk is idle.
  struct Outcome {
    std::string error;
    std::vector<WrittenFile> files;
    std::filesystem::path lasting;  // where a complete checkpoint lies
    std::string prune_error;
  };
  struct Part {
    ShardLife shard;
    Nanoseconds asked{0};
    bool done = false;  // answered, lost or replaced
  };

  void ask();
  void fail(const std::string& why);
  void miss(const std::string& who, const std::string& why);
  void follow(const std::vector<ShardLife>& alive);
  void ask_again();
  void close();
  void end_save();
  void say_complete() const;
  [[nodiscard]] bool all_done() const;
  [[nodiscard]] bool is_ours(const wire::SaveReply& reply) const;

  const Clock& clock_;
  Logger& log_;
  CoordinatorOptions options_;
  SaveOthers& others_;

  // The save under way.
  State state_ = State::idle;
  std::filesystem::path directory_;
  Manifest manifest_;
  bool head_done_ = false;
  Nanoseconds head_asked_{0};
  std::vector<Part> parts_;
  std::string why_failed_;
  Nanoseconds began_{0};
  Nanoseconds ended_{0};

  std::string newest_;
  std::uint64_t failed_ = 0;
  int failures_ = 0;  // in a row
  std::string error_;
  Nanoseconds failing_since_{0};
  Nanoseconds retry_at_{0};
  int last_attempts_ = 0;  // made so far

  std::shared_ptr<Outcome> outcome_;  // of the job that the disk has
  IoThread disk_{"checkpoint", 0};    // its jobs do not throw
};

}  // namespace qanat::learner
