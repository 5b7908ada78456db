// Playing whole episodes to see how good a network is.
//
// Fair counting: which episodes are played is fixed before the first step, so short episodes are not counted more often
// than long ones. An environment slot that has ended one takes the next from the queue; each episode has seeds of its
// own, so the result does not depend on how many slots there are, nor on which of them is free first. Vector classes
// that reset all slots or none are the exception: there slot s of n plays every n-th episode as the class begins it.
// Episodes that break off because their environment's process failed are played again. All running slots of a player
// are evaluated in one forward pass. One owner thread a player.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
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
  std::size_t slots = 0;       // of environments, all players together, at most; 0: 100. Never more than episodes
  std::size_t players = 0;     // side by side in evaluate(), at most; 0: one a processor
  double max_seconds = 0;      // of evaluate(); see EvaluationConfig::final_max_seconds
};

struct EvaluationResult {
  double mean = 0;
  double standard_error = 0;  // of the mean; 0 for one episode
  std::int64_t episodes = 0;
  std::vector<double> returns;  // raw, by episode
  std::vector<std::int64_t> lengths;
  std::int64_t cut = 0;        // of `episodes`: the time was over, they count with their returns so far
  std::int64_t left_out = 0;   // not begun when the time was over; not in `episodes`
  envs::Protocol environment;  // how it was set up, field by field; empty for most
  // From evaluate(): what befell the environments' processes. Episodes that broke off with one were played again.
  std::vector<std::string> events;
  [[nodiscard]] double mean_length() const;
};

// A player's part of an evaluation: episodes [first, first + episodes), on so many slots.
struct Share {
  std::int64_t first = 0, episodes = 0;
  std::size_t slots = 0;
  std::int64_t first_slot = 0;  // among all players' slots
};
// The whole of it.
[[nodiscard]] Share all_of(const EvaluationOptions& options);

// How far an evaluation is.
struct EvaluationProgress {
  std::int64_t episodes = 0;        // that have ended
  std::int64_t ended_steps = 0;     // theirs
  std::int64_t steps = 0;           // of all that were begun
  double seconds = 0;               // since the evaluation began
  std::optional<double> playing{};  // seconds since its first step; nothing before that
};
// Called about every 100 ms on the thread that called evaluate().
using EvaluationWatch = std::function<void(const EvaluationProgress&)>;

// Plays evaluations one after the other, one batch step a call.
class EpisodePlayer {
 public:
  // Throws ConfigError when environment, network or settings do not fit.
  explicit EpisodePlayer(EvaluationOptions options) : EpisodePlayer(options, all_of(options)) {}
  EpisodePlayer(EvaluationOptions options, Share share);
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
  // Time is over: what is running counts as it is, but for what has no step yet, and nothing else is begun.
  void cut();
  // Of the evaluation that is done.
  [[nodiscard]] EvaluationResult result() const;
  [[nodiscard]] std::int64_t episodes_ended() const { return ended_; }
  [[nodiscard]] std::int64_t steps_of_ended() const { return ended_steps_; }
  [[nodiscard]] std::int64_t steps() const { return steps_; }
  // See envs::VectorEnv.
  [[nodiscard]] std::uint64_t restarts() const { return env_->restarts(); }
  [[nodiscard]] std::vector<std::string> take_events() { return env_->take_events(); }
  void while_waiting(std::function<void()> call) { env_->while_waiting(std::move(call)); }

 private:
  struct Slot {
    std::int64_t episode = 0;  // that it plays, of all
    Rng rng;                   // of exploration
    double episode_return = 0;
    std::int64_t steps = 0;
  };
  struct Played {
    double episode_return = 0;
    std::int64_t length = 0;  // 0: not ended yet
  };

  void take(Slot& slot, std::int64_t episode);
  void choose_actions();
  void begin_again();
  void follow_up();
  void count(const Slot& slot);
  [[nodiscard]] std::uint64_t seed_of(std::int64_t episode) const;

  EvaluationOptions options_;
  Share share_;
  std::unique_ptr<envs::VectorEnv> env_;
  nn::NetworkSpec network_;
  nn::Normalization normalization_;
  LocalPolicy policy_;
  ObservationStack stack_;
  std::int64_t max_steps_;
  SeedPurpose purpose_ = SeedPurpose::evaluation;
  std::uint64_t round_ = 0;
  bool resets_slots_;  // the environment can begin an episode in a single slot
  std::vector<Slot> slots_;
  std::vector<Played> played_;          // [share_.episodes]
  std::int64_t next_ = 0;               // of the queue
  std::vector<std::uint32_t> running_;  // slots that play an episode
  std::vector<std::uint32_t> over_;     // those whose episode ended in this step
  std::int64_t ended_ = 0, ended_steps_ = 0, steps_ = 0, cut_ = 0;
  std::vector<std::int32_t> actions_;
};

// The evaluation that ends a run: several players side by side, each with an environment and a thread of its own.
// Throws SystemError when there is no thread left, RunError when max_seconds are over before an episode has begun.
[[nodiscard]] EvaluationResult evaluate(const EvaluationOptions& options, const nn::WeightsView& weights,
                                        const EvaluationWatch& watch = {});

}  // namespace qanat::actors
