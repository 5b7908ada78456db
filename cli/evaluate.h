// Greedy evaluation of what a run has learned, apart from any running process.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "actors/evaluator.h"
#include "cli/run_config.h"

namespace qanat::cli {

struct EvaluatedRun {
  actors::EvaluationResult evaluation;
  std::string weights;  // "best, update 1200" or "last, update 3000"
};

struct RunWeights {
  nn::Weights weights;
  std::string which;  // as EvaluatedRun::weights
};

// The run's best weights by its own periodic evaluations, or the newest checkpoint's when there are none. Throws
// ConfigError when the run has none, InputError when they are not of the network that `config` makes for `environment`.
[[nodiscard]] RunWeights load_run_weights(const std::filesystem::path& run_dir, const RunConfig& config,
                                          const envs::EnvSpec& environment, bool prefer_best = true);

// RUN_DIR/config.yaml with `overrides` laid over it. Throws ConfigError when there is no run, and as load_run_config.
[[nodiscard]] RunConfig config_of_run(const std::filesystem::path& run_dir,
                                      const std::vector<std::string>& overrides = {});

// How the run's network is played.
[[nodiscard]] actors::EvaluationOptions evaluation_options(const RunConfig& config, std::int64_t episodes);

// Plays with the weights of load_run_weights; what takes longer than two seconds says how far it is. `environment` is
// the configuration's. Episode seeds are those of final evaluations: disjoint from training and from periodic
// evaluations. Throws as load_run_weights.
[[nodiscard]] EvaluatedRun evaluate_run(const std::filesystem::path& run_dir, const RunConfig& config,
                                        const envs::EnvSpec& environment, std::int64_t episodes,
                                        bool prefer_best = true);

// "evaluating: 12 of 100 episodes, 4070 steps | left 1m07s"; `max_seconds` as EvaluationConfig::final_max_seconds.
[[nodiscard]] std::string progress_text(const actors::EvaluationProgress& progress, std::int64_t episodes,
                                        double max_seconds);

struct EvaluateOptions {
  std::string run_dir;
  std::int64_t episodes = 0;  // 0: the run's evaluation.final_episodes
  bool last = false;
  std::vector<std::string> overrides;  // of the run's settings
};

// `qanat evaluate RUN_DIR`: prints the result.
int evaluate_command(const EvaluateOptions& options);

}  // namespace qanat::cli
