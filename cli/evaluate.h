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

// RUN_DIR/config.yaml. Throws ConfigError when there is no run.
[[nodiscard]] RunConfig config_of_run(const std::filesystem::path& run_dir);

// How the run's network is played.
[[nodiscard]] actors::EvaluationOptions evaluation_options(const RunConfig& config, std::int64_t episodes);

// Plays with the weights of load_run_weights.
// Episode seeds are those of final evaluations: disjoint from training and from periodic evaluations.
// Throws as load_run_weights.
[[nodiscard]] EvaluatedRun evaluate_run(const std::filesystem::path& run_dir, const RunConfig& config,
                                        std::int64_t episodes, bool prefer_best = true);

// `qanat evaluate RUN_DIR`: prints the result.
int evaluate_command(const std::string& run_dir, std::int64_t episodes, bool last);

}  // namespace qanat::cli
