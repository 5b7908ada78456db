// What a run leaves behind in figures: status.json while it goes on, summary.json at the end.
//
// Plain files in the run's directory: they appear whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "actors/evaluator.h"
#include "control/head.h"
#include "core/metrics.h"
#include "learner/checkpoint.h"

namespace qanat::cli {

// The head's view, for the supervisor and for people: status.json.
void write_status(const std::filesystem::path& run_dir, const control::HeadStatus& status);

// One line of metrics.jsonl, and the same values for TensorBoard. `failed_writes`: of such records so far.
[[nodiscard]] MetricsRow metrics_row(const control::HeadStatus& status, std::uint64_t failed_writes);

struct RunOutcome {
  std::uint64_t seed = 0;
  std::int64_t restarts = 0;
  double command_seconds = 0;  // from the command to the result, evaluation included
  std::optional<actors::EvaluationResult> evaluation;
  envs::Protocol environment;  // training's; the evaluation has its own
  std::string evaluated;       // "best" or "last", and the update
  std::string stop_cause;      // overrides the head's when not empty
};

// Joins status.json with the outcome into summary.json, and returns its text.
std::string write_summary(const std::filesystem::path& run_dir, const RunOutcome& outcome);

// Updates done, as status.json says; 0 when there is none.
[[nodiscard]] std::uint64_t updates_of_status(const std::filesystem::path& run_dir);

}  // namespace qanat::cli
