#include "learner/checkpoint_coordinator.h"

#include <algorithm>
#include <set>

#include "core/error.h"

namespace qanat::learner {
namespace {

namespace fs = std::filesystem;

// From so many failed saves in a row on, a shard's failed part is done without, and from so many on the replay.
constexpr int without_failed_parts = 1;
constexpr int without_replay = 2;

// Why `work` could not be done for the disk's sake; empty when it was done.
template <class Work>
std::string failure_of(const Work& work) {
  try {
    work();
    return {};
  } catch (const SystemError& error) {
    return error.what();
  } catch (const fs::filesystem_error& error) {
    return error.what();
  }
}

// What is wrong with a part; empty: nothing.
std::string objection(const wire::SaveReply& reply, const std::set<std::string>& wanted) {
  if (!reply.error.empty()) return reply.error;
  std::multiset<std::string> seen;
  for (const auto& file : reply.files) seen.insert(file.name);
  if (std::equal(seen.begin(), seen.end(), wanted.begin(), wanted.end())) return {};
  return text("names ", seen.size(), " files, wanted ", *wanted.begin(),
              wanted.size() > 1 ? " and " + *wanted.rbegin() : "");
}

}  // namespace

CheckpointCoordinator::CheckpointCoordinator(const Clock& clock, Logger& log, CoordinatorOptions options,
                                             SaveOthers& others)
    : clock_(clock), log_(log), options_(std::move(options)), others_(others) {}

void CheckpointCoordinator::begin(std::uint64_t updates, WriteOwn write_own) {
  if (under_way()) return;
  state_ = State::writing;
  began_ = clock_.now();
  manifest_ = {};
  manifest_.updates = updates;
  manifest_.commit = options_.commit;
  parts_.clear();
  head_done_ = false;
  directory_ = options_.checkpoints / checkpoint_name(updates);
  why_failed_ = failure_of([&] { directory_ = new_checkpoint(options_.checkpoints, updates); });
  if (!why_failed_.empty()) return close();
  outcome_ = std::make_shared<Outcome>();
  disk_.give([outcome = outcome_, directory = directory_, write = std::move(write_own)] {
    outcome->error = failure_of([&] {
      (void)create_directory_exclusively(directory);  // not its parents: a run's folder that is gone stays gone
      outcome->files = write(directory);
    });
  });
}

void CheckpointCoordinator::ask() {
  others_.save_head(directory_.string());
  head_asked_ = clock_.now();
  if (!options_.replay) return;
  if (failures_ >= without_replay) return miss("replay", text("left out after ", failures_, " failed saves: ", error_));
  for (const auto& shard : others_.save_shards(directory_.string())) parts_.push_back({shard, clock_.now(), false});
  manifest_.shards = static_cast<std::int64_t>(parts_.size());
}

bool CheckpointCoordinator::is_ours(const wire::SaveReply& reply) const {
  return state_ == State::gathering && reply.directory == directory_.string();
}

void CheckpointCoordinator::take_head(const wire::SaveReply& reply) {
  if (!is_ours(reply) || head_done_) return;
  head_done_ = true;
  if (const auto why = objection(reply, {"head.bin"}); !why.empty()) {
    fail("head: " + why);
  } else {
    manifest_.files.insert(manifest_.files.end(), reply.files.begin(), reply.files.end());
  }
}

void CheckpointCoordinator::take_shard(std::int64_t shard, const wire::SaveReply& reply) {
  if (!is_ours(reply)) return;
  const auto part =
      std::find_if(parts_.begin(), parts_.end(), [&](const Part& one) { return one.shard.index == shard; });
  if (part == parts_.end() || part->done) return;
  part->done = true;
  const auto name = text("shard-", shard);
  const auto why = objection(reply, {name + ".bin", name + ".rng"});
  if (why.empty()) {
    manifest_.files.insert(manifest_.files.end(), reply.files.begin(), reply.files.end());
  } else if (failures_ >= without_failed_parts) {
    miss(name, why);
  } else {
    fail(text("replay-", shard, ": ", why));
  }
}

void CheckpointCoordinator::miss(const std::string& who, const std::string& why) {
  manifest_.missing.push_back(text(who, ": ", why));
}

void CheckpointCoordinator::fail(const std::string& why) {
  if (why_failed_.empty()) why_failed_ = why;
}

bool CheckpointCoordinator::all_done() const {
  return head_done_ && std::all_of(parts_.begin(), parts_.end(), [](const Part& part) { return part.done; });
}

void CheckpointCoordinator::step(const std::vector<ShardLife>& alive, std::uint64_t env_steps) {
  if (state_ == State::writing && disk_.idle()) {
    why_failed_ = outcome_->error;
    manifest_.files = outcome_->files;
    state_ = State::gathering;
    if (why_failed_.empty()) {
      ask();
    } else {
      close();
    }
  }
  if (state_ == State::gathering) {
    follow(alive);
    ask_again();
    manifest_.env_steps = env_steps;
    if (all_done()) close();
  }
  if (state_ == State::closing && disk_.idle()) end_save();
}

// Who has not answered may be slow, or has not heard the question; that takes either.
void CheckpointCoordinator::ask_again() {
  const auto now = clock_.now();
  const auto pause = std::chrono::duration_cast<Nanoseconds>(options_.ask_again);
  if (!head_done_ && now - head_asked_ >= pause) {
    head_asked_ = now;
    others_.save_head(directory_.string());
  }
  for (auto& part : parts_) {
    if (part.done || now - part.asked < pause) continue;
    part.asked = now;
    others_.save_shard_again(part.shard.index, directory_.string());
  }
}

// A shard that is gone sends no part any more.
void CheckpointCoordinator::follow(const std::vector<ShardLife>& alive) {
  for (auto& part : parts_) {
    if (part.done || std::find(alive.begin(), alive.end(), part.shard) != alive.end()) continue;
    part.done = true;
    miss(text("shard-", part.shard.index), "its process was lost during the save");
  }
}

// The save under way is over, one way or the other, when the disk has done the rest.
void CheckpointCoordinator::close() {
  state_ = State::closing;
  outcome_ = std::make_shared<Outcome>();
  // After a second failure all but the newest go: the disk may be full.
  const auto clean = [directory = directory_, checkpoints = options_.checkpoints, makes_room = failures_ > 0] {
    discard_checkpoint(directory);
    (void)failure_of([&] {
      remove_incomplete(checkpoints);
      if (makes_room) prune_checkpoints(checkpoints, 1);
    });
  };
  if (!why_failed_.empty()) {
    outcome_->error = why_failed_;
    return disk_.give(clean);
  }
  disk_.give([outcome = outcome_, directory = directory_, manifest = manifest_, options = options_, clean] {
    outcome->error = failure_of([&] {
      keep_only(directory, manifest.files);
      outcome->lasting = complete_checkpoint(directory, manifest);
    });
    if (!outcome->error.empty()) return clean();
    outcome->prune_error = failure_of([&] { prune_checkpoints(options.checkpoints, options.keep); });
  });
}

void CheckpointCoordinator::end_save() {
  state_ = State::idle;
  ended_ = clock_.now();
  if (outcome_->error.empty()) {
    newest_ = outcome_->lasting.string();
    failures_ = 0;
    error_.clear();
    return say_complete();
  }
  if (failures_ == 0) failing_since_ = began_;
  ++failures_;
  ++failed_;
  error_ = outcome_->error;
  const auto wait = std::min(options_.longest_retry, options_.retry_after * (1 << std::min(failures_ - 1, 10)));
  retry_at_ = ended_ + std::chrono::duration_cast<Nanoseconds>(wait);
  log_.error("checkpoint ", directory_.string(), " failed: ", error_, "; it is tried again",
             newest_.empty() ? "" : ", and the one before is kept: " + newest_);
}

void CheckpointCoordinator::say_complete() const {
  const auto took = seconds(clock_.now() - began_);
  if (manifest_.missing.empty()) {
    log_.info("checkpoint ", newest_, " in ", took, " s");
  } else {
    std::string missing;
    for (const auto& one : manifest_.missing) missing += (missing.empty() ? "" : "; ") + one;
    log_.warn("checkpoint ", newest_, " in ", took, " s, without a part of the replay: ", missing);
  }
  if (!outcome_->prune_error.empty()) log_.warn("older checkpoints stay for now: ", outcome_->prune_error);
}

CheckpointCoordinator::End CheckpointCoordinator::end(std::uint64_t updates,
                                                      const std::function<WriteOwn()>& own_part) {
  if (under_way()) return End::not_yet;
  if (last_attempts_ > 0) {
    if (failures_ == 0) return End::saved;
    if (last_attempts_ >= options_.last_attempts) return End::failed;
    if (clock_.now() - ended_ < std::chrono::duration_cast<Nanoseconds>(options_.last_retry)) return End::not_yet;
  }
  ++last_attempts_;
  begin(updates, own_part());
  return End::not_yet;
}

Seconds CheckpointCoordinator::failing_for() const {
  return failures_ == 0 ? Seconds(0) : Seconds(seconds(clock_.now() - failing_since_));
}

}  // namespace qanat::learner
