// The learner's process: draws batches, updates, sends priorities back, publishes weights, writes checkpoints.
//
// A control::Role: one thread, never blocks for others (an update itself takes its time). The next `prefetch`
// batches are always under way, as far as the ledger's lease allows; as many updates are in flight as the trainer
// takes, and come to rest before weights are read.
#pragma once

#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/member.h"
#include "control/role.h"
#include "control/weights.h"
#include "learner/agent.h"
#include "learner/best_weights.h"
#include "learner/checkpoint.h"
#include "learner/checkpoint_coordinator.h"
#include "learner/config.h"
#include "replay/client.h"
#include "replay/config.h"

namespace qanat::learner {

struct LearnerOptions {
  control::MemberOptions member;
  std::vector<std::string> publish_addresses;  // to bind weights and announcements to
  AgentConfig agent;
  LearnerConfig learner;
  nn::NetworkConfig network;
  replay::ReplayConfig replay;
  CheckpointConfig checkpoint;
  StopConfig stop;
  double ratio_window = 0;  // trained steps that the two sides of the replay ratio may be apart
  std::uint64_t seed = 0;
  std::string init_from;  // weights file or checkpoint directory to start from, or empty
};

class Learner : public control::Role, private SaveOthers {
 public:
  Learner(wire::Context& context, const Clock& clock, Logger& log, LearnerOptions options);
  ~Learner() override;

  bool step() override;
  [[nodiscard]] std::vector<wire::Socket*> sockets() override;
  [[nodiscard]] bool finished() const override { return finished_; }
  void request_stop(const std::string& cause) override;

  [[nodiscard]] std::uint64_t updates() const { return updates_; }
  // Hash of the online parameters: what lockstep runs compare.
  [[nodiscard]] std::uint64_t weights_hash();

  // Lockstep: no update after this one; quiet() once it is done and no batch is under way.
  void pause_at(std::uint64_t updates) { pause_at_ = updates; }
  [[nodiscard]] bool quiet() const {
    return client_ && updates_ >= pause_at_ && client_->in_flight() == 0 && running_.empty();
  }
  // Lockstep: saves this role's part into a directory that the runner completes.
  [[nodiscard]] std::vector<WrittenFile> save(const std::filesystem::path& directory);

 private:
  // Why there was nothing to train on: all that may be under way is, or the ledger has no credits for it.
  enum class Idle { no, for_batch, for_credits };

  void build();
  void follow_directory();
  void request_batches();
  bool train();
  void start_update(replay::SampledBatch batch);
  void finish_update();
  void finish_updates();
  void after_updates();
  void skip(const replay::SampledBatch& batch, const nn::UpdateResult& result);
  void publish();
  void take_evaluations();
  void save_head(const std::string& directory) override { member_.save_head(directory); }
  std::vector<ShardLife> save_shards(const std::string& directory) override;
  void save_shard_again(std::int64_t shard, const std::string& directory) override {
    client_->save_again(shard, directory);
  }
  [[nodiscard]] std::vector<ShardLife> shards_alive() const;
  [[nodiscard]] CheckpointCoordinator::WriteOwn own_part();
  void begin_checkpoint();
  void continue_checkpoint();
  void report_saves();
  void end();
  void load(const std::filesystem::path& directory);
  [[nodiscard]] LearnerState state();
  [[nodiscard]] std::uint64_t lease_ahead() const;
  [[nodiscard]] double learning_rate() const;
  [[nodiscard]] double beta() const;
  [[nodiscard]] bool wants_batches(std::uint64_t further = 0) const;
  [[nodiscard]] bool has_credits(std::uint64_t further = 0) const;
  [[nodiscard]] std::uint64_t batches_a_round() const;
  [[nodiscard]] bool has_room() const;
  [[nodiscard]] bool short_of_credits() const;
  [[nodiscard]] bool limit_reached(std::uint64_t requested) const;
  void report_counts();
  void measure(Nanoseconds begin, Idle idle);

  wire::Context& context_;
  const Clock& clock_;
  Logger& log_;
  LearnerOptions options_;
  control::WeightPublisher publisher_;
  control::Member member_;

  // Made once the environment's schema is known.
  std::optional<nn::NetworkSpec> network_;
  std::unique_ptr<nn::QTrainer> trainer_;
  std::optional<DqnAgent> agent_;
  std::optional<replay::ReplayClient> client_;
  std::deque<replay::SampledBatch> running_;  // of updates submitted to the trainer, oldest first
  std::uint64_t layout_ = 0;
  std::uint64_t directory_seen_ = 0;

  std::uint64_t updates_ = 0;         // submitted ones
  std::uint64_t trained_before_ = 0;  // by learners before this process
  std::uint64_t trained_ = 0;
  std::uint64_t skipped_ = 0;
  int skipped_in_a_row_ = 0;
  std::uint64_t published_ = 0;
  std::vector<replay::ShardAddress> shards_;  // alive by the newest directory
  std::optional<BestWeights> best_;
  std::optional<CheckpointCoordinator> saves_;
  std::uint64_t checkpoint_updates_ = 0;
  Nanoseconds checkpoint_time_{0};
  std::vector<float> td_abs_;

  std::uint64_t pause_at_ = 0;  // 0: never
  bool ending_ = false;
  std::optional<Nanoseconds> ended_;  // the last save failed for good; others may hear of it until then
  bool finished_ = false;

  // Since the last metrics.
  Nanoseconds measured_;
  Nanoseconds waited_{0};
  Nanoseconds held_{0};
  Idle idle_ = Idle::no;
  double device_seconds_ = 0;
  Nanoseconds trained_time_{0};
  Nanoseconds last_step_;
  double loss_sum_ = 0;
  double norm_sum_ = 0;
  double q_sum_ = 0;
  int measured_updates_ = 0;
};

}  // namespace qanat::learner
