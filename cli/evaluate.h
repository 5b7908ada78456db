// Greedy evaluation of what a run has learned, apart from any running process.
#pragma once

#include <filesystem>
#include <string>

#include "actors/evaluator.h"
#include "cli/run_config.h"

namespace qanat::cli {

struct EvaluatedRun {
  actors::EvaluationResult evaluation;
  std::string weights;  // "best, update 1200" or "last, update 3000"
};

// Plays with the run's best weights by its own periodic evaluations, or the newest checkpoint's when there are none.
// Episode seeds are those of final evaluations: disjoint from training and from periodic evaluations.
// Throws ConfigError when the run has no weights.
[[nodiscard]] EvaluatedRun evaluate_run(const std::filesystem::path& run_dir, const RunConfig& config,
                                        std::int64_t episodes, bool prefer_best = true);

// `qanat evaluate RUN_DIR`: prints the result.
int evaluate_command(const std::string& run_dir, std::int64_t episodes, bool last);

}  // namespace qanat::cli
