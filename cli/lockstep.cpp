#include "cli/lockstep.h"

#include <cstdio>

#include "cli/evaluate.h"
#include "cli/roles.h"
#include "cli/run_records.h"
#include "cli/summary.h"
#include "cli/version.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/files.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

constexpr Milliseconds tick{1};
// Rounds without any update before the run counts as stuck: a deadlock must end with a word, not hang.
constexpr int most_idle_rounds = 200'000;

// All roles of one stretch between two checkpoints.
class Stretch {
 public:
  Stretch(const RunDirectory& run, const RunConfig& config, Logger& log, const std::string& resume_from,
          const std::string& init_from, RunRecords& records)
      : config_(config), log_(log), resume_from_(resume_from) {
    auto head = head_options(config, fs::absolute(run.path).string());
    head.bind = {"inproc://head"};
    head.epoch = run.epoch;
    head.resume_from = resume_from;
    if (!resume_from.empty()) head.updates_before = learner::read_manifest(resume_from).updates;
    head.stop_env_steps = 0;
    head.stop_wall_seconds = 0;
    head_ = std::make_unique<control::Head>(context_, clock_, log, head,
                                            [&](const control::HeadStatus& status) { records.write_metrics(status); });
    if (!resume_from.empty()) load_from(fs::path(resume_from) / "head.bin", [&](ByteReader& in) { head_->load(in); });
    for (std::int64_t i = 0; i < config.replay.shards; ++i)
      shards_.push_back(make_replay(parts(wire::Role::replay, i)));
    for (std::int64_t i = 0; i < config.actors.count; ++i) {
      actors_.push_back(make_actor(parts(wire::Role::actor, i)));
      if (!resume_from.empty()) {
        load_from(fs::path(resume_from) / text("actor-", i, ".bin"), [&](ByteReader& in) { actors_.back()->load(in); });
      }
    }
    learner_ = make_learner(parts(wire::Role::learner, 0), resume_from.empty() ? init_from : "");
  }

  // Runs until `updates` are done and everything is at rest.
  void run_to(std::uint64_t updates) {
    learner_->pause_at(updates);
    std::uint64_t seen = 0;
    int idle = 0;
    while (!learner_->quiet()) {
      round();
      idle = learner_->updates() == seen ? idle + 1 : 0;
      seen = learner_->updates();
      if (idle > most_idle_rounds)
        throw RunError(text("lockstep run is stuck at update ", seen, ": ", head_->ledger().waiting()));
    }
    head_->release_ledger();
    for (auto& actor : actors_) actor->quiesce();
    for (int rounds = 0; !at_rest(); ++rounds) {
      round();
      if (rounds > most_idle_rounds) throw RunError("lockstep run does not come to rest");
    }
  }

  // Returns where the checkpoint lies.
  fs::path save(const fs::path& directory) {
    make_directories(directory);
    auto files = learner_->save(directory);
    for (auto& shard : shards_) {
      for (auto& file : shard->save(directory)) files.push_back(std::move(file));
    }
    ByteWriter head;
    head_->save(head);
    files.push_back(write_file_atomically(directory / "head.bin", head.bytes()));
    for (std::size_t i = 0; i < actors_.size(); ++i) {
      ByteWriter actor;
      actors_[i]->save(actor);
      files.push_back(write_file_atomically(directory / text("actor-", i, ".bin"), actor.bytes()));
    }
    return learner::complete_checkpoint(directory, {learner_->updates(), head_->status().env_steps,
                                                    static_cast<std::int64_t>(shards_.size()), commit, files});
  }

  [[nodiscard]] std::uint64_t weights_hash() { return learner_->weights_hash(); }
  [[nodiscard]] control::HeadStatus status() const { return head_->status(); }
  [[nodiscard]] std::uint64_t env_restarts() const {
    std::uint64_t sum = 0;
    for (const auto& actor : actors_) sum += actor->env_restarts();
    return sum;
  }

 private:
  Parts parts(wire::Role role, std::int64_t index) {
    control::MemberOptions member;
    member.role = role;
    member.index = index;
    // The same at every resumption: streams go on.
    member.incarnation = derive_seed(run_seed(config_), static_cast<int>(role), index) | 1;
    member.head = {"inproc://head"};
    member.commit = commit;
    return {context_, clock_, log_, config_, member, {text("inproc://", wire::name_of(role), '-', index)}};
  }

  static void load_from(const fs::path& file, const std::function<void(ByteReader&)>& load) {
    const auto bytes = read_file(file);
    ByteReader in(bytes, file.string());
    load(in);
  }

  void round() {
    clock_.advance(tick);
    head_->step();
    for (auto& shard : shards_) shard->step();
    for (auto& actor : actors_) actor->step();
    learner_->step();
  }

  bool at_rest() {
    for (const auto& actor : actors_) {
      if (!actor->quiet()) return false;
    }
    for (const auto& shard : shards_) {
      if (!shard->quiet()) return false;
    }
    return true;
  }

  const RunConfig& config_;
  Logger& log_;
  std::string resume_from_;
  VirtualClock clock_;
  wire::Context context_{0};
  std::unique_ptr<control::Head> head_;
  std::vector<std::unique_ptr<replay::ShardServer>> shards_;
  std::vector<std::unique_ptr<actors::Actor>> actors_;
  std::unique_ptr<learner::Learner> learner_;
};

}  // namespace

int train_lockstep(const TrainOptions& options, const RunDirectory& run) {
  auto config = run.config;
  if (config.learner.device.starts_with("cuda")) {
    throw ConfigError(text("learner.device is ", config.learner.device,
                           ", but --lockstep promises the same bits in every run, and a GPU's libraries choose their "
                           "order of sums anew in each process; set it to cpu"));
  }
  if (config.learner.device == "auto") config.learner.device = "cpu";
  if (config.actors.precision == "auto") config.actors.precision = "fp32";  // whatever processor goes on with it
  const auto last = static_cast<std::uint64_t>(config.stop.updates);
  const auto every =
      config.checkpoint.every_updates > 0 ? static_cast<std::uint64_t>(config.checkpoint.every_updates) : last;
  // The runner decides when to save and when to end.
  config.stop = {};
  config.checkpoint.every_updates = 0;
  config.checkpoint.every_seconds = 0;
  Logger log({.who = "lockstep", .path = run.path / "logs" / "lockstep.log", .to_stderr = false});
  if (!run.warning.empty()) log.warn(run.warning);
  const SteadyClock clock;
  const auto started = clock.now();
  std::string from = run.resume_from;
  if (!from.empty() && !fs::exists(fs::path(from) / "actor-0.bin")) {
    throw ConfigError(
        text(from, " is not of a lockstep run: it lacks the actors' state; leave out --lockstep to go on from it"));
  }
  const auto resumed = from.empty() ? control::HeadStatus{} : status_of_checkpoint(config, run.path, from);
  RunRecords records(run.path, log, metrics_start(resumed));
  std::uint64_t done = from.empty() ? 0 : learner::read_manifest(from).updates;
  if (done >= last)
    throw ConfigError(text("nothing to do: the run is at update ", done, "; raise stop.updates, which is ", last));
  std::uint64_t hash = 0;
  std::uint64_t env_restarts = 0;
  control::HeadStatus status;
  while (done < last) {
    const auto next = std::min(last, (done / every + 1) * every);
    Stretch stretch(run, config, log, from, options.init_from, records);
    stretch.run_to(next);
    from = stretch.save(learner::new_checkpoint(fs::absolute(run.path) / "checkpoints", next)).string();
    hash = stretch.weights_hash();
    status = stretch.status();
    env_restarts += stretch.env_restarts();
    done = next;
    learner::prune_checkpoints(run.path / "checkpoints", static_cast<std::size_t>(config.checkpoint.keep));
  }
  status.stop_cause = "updates";
  // The roles' metrics are older than their last step.
  status.updates = done;
  status.env_restarts = env_restarts;
  status.state = wire::RunState::ended;
  status.checkpoint = from;
  write_status(run.path, status);
  RunOutcome outcome;
  outcome.seed = run_seed(config);
  outcome.environment = run.environment;
  config.evaluation.final_max_seconds = 0;  // what is cut by the time is not repeatable
  const auto result = evaluate_run(run.path, config, run.spec, config.evaluation.final_episodes, false);
  outcome.evaluation = result.evaluation;
  outcome.evaluated = result.weights;
  outcome.command_seconds = seconds(clock.now() - started);
  write_summary(run.path, outcome);
  std::printf("lockstep: %llu updates, weights %016llx, evaluation mean %.2f\n%s\n",
              static_cast<unsigned long long>(done), static_cast<unsigned long long>(hash), result.evaluation.mean,
              run.path.c_str());
  return 0;
}

}  // namespace qanat::cli
