// Playing whole episodes to see how good a network is.
//
// Fair counting: which slot plays how many episodes is fixed before the first step, so short episodes are not counted
// more often than long ones. Episodes that break off because their environment's process failed are played again. All
// running slots of a player are evaluated in one forward pass. One owner thread a player.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "actors/config.h"
#include "actors/observation_stack.h"
#include "actors/policy.h"
#include "actors/seeds.h"
#include "core/rng.h"
#include "envs/vector_env.h"

namespace qanat::actors {

struct EvaluationOptions {
  envs::EnvConfig environment;
  nn::NetworkConfig network;
  std::int64_t stack = 1;
  nn::NormalizationOptions normalization;
  std::string device = "cpu";
  std::int64_t episodes = 20;
  double epsilon = 0;
  std::int64_t max_steps = 0;  // see EvaluationConfig
  std::uint64_t seed = 0;      // the run's
  std::size_t players = 0;     // side by side in evaluate(), at most; 0: one a processor
};

struct EvaluationResult {
  double mean = 0;
  double standard_error = 0;  // of the mean; 0 for one episode
  std::int64_t episodes = 0;
  std::vector<double> returns;  // raw, by slot and then in order of play
  std::vector<std::int64_t> lengths;
  envs::Protocol environment;  // how it was set up, field by field; empty for most
  // From evaluate(): what befell the environments' processes. Episodes that broke off with one were played again.
  std::vector<std::string> events;
  [[nodiscard]] double mean_length() const;
};

// Slots [first, first + count) of an evaluation's min(episodes, 100).
struct SlotRange {
  std::size_t first = 0, count = 0;
};
[[nodiscard]] SlotRange all_slots(const EvaluationOptions& options);

// Plays evaluations one after the other, one batch step a call.
class EpisodePlayer {
 public:
  // Throws ConfigError when environment, network or settings do not fit.
  explicit EpisodePlayer(EvaluationOptions options) : EpisodePlayer(options, all_slots(options)) {}
  // One that plays these slots' share.
  EpisodePlayer(EvaluationOptions options, SlotRange share);
  ~EpisodePlayer();

  [[nodiscard]] const nn::NetworkSpec& network() const { return network_; }
  // To look at.
  [[nodiscard]] const envs::VectorEnv& environment() const { return *env_; }

  // Begins an evaluation of these weights (copied). The episodes depend on the options' seed, the purpose and `round`
  // alone. Throws InputError when they are not the network's, as nn::Normalization::load too.
  void begin(const nn::WeightsView& weights, SeedPurpose purpose, std::uint64_t round);
  // One env step of all slots. Precondition: begun and not done().
  void step();
  [[nodiscard]] bool done() const { return running_.empty(); }
  // Of the evaluation that is done.
  [[nodiscard]] EvaluationResult result() const;
  // See envs::VectorEnv.
  [[nodiscard]] std::uint64_t restarts() const { return env_->restarts(); }
  [[nodiscard]] std::vector<std::string> take_events() { return env_->take_events(); }
  void while_waiting(std::function<void()> call) { env_->while_waiting(std::move(call)); }

 private:
  struct Slot {
    std::int64_t episodes = 0;  // assigned to it
    Rng rng;                    // of exploration
    double episode_return = 0;  // of the one that is running
    std::int64_t steps = 0;
    std::vector<double> returns;
    std::vector<std::int64_t> lengths;
  };

  EvaluationOptions options_;
  SlotRange share_;
  std::unique_ptr<envs::VectorEnv> env_;
  nn::NetworkSpec network_;
  nn::Normalization normalization_;
  LocalPolicy policy_;
  ObservationStack stack_;
  std::int64_t max_steps_;
  SeedPurpose purpose_ = SeedPurpose::evaluation;
  std::uint64_t round_ = 0;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> running_;  // slots that still have episodes to play
  std::vector<std::int32_t> actions_;
};

// The evaluation that ends a run: several players side by side, each with an environment and a thread of its own.
// Throws SystemError when there is no thread left.
[[nodiscard]] EvaluationResult evaluate(const EvaluationOptions& options, const nn::WeightsView& weights,
                                        SeedPurpose purpose = SeedPurpose::final_evaluation);

}  // namespace qanat::actors
