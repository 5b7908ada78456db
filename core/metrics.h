// A run's numbers over time: `metrics.jsonl` for programs, event files for TensorBoard.
//
// metrics.jsonl holds one JSON object a line: {"time": seconds since the start, "env_steps": N, "updates": N,
// "NAME": value, ...}. A value that is not finite is null, because JSON has no NaN. A resumed run appends; rows
// between its checkpoint and its end are then there twice, so env_steps may step back once a resume.
// Not thread safe: one owner each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/append_file.h"
#include "core/tensorboard.h"

namespace qanat {

struct MetricsRow {
  double time_seconds = 0;  // since the run's first start, pauses left out
  std::int64_t env_steps = 0;
  std::int64_t updates = 0;
  // Names are unique within a row and none of time, env_steps, updates.
  std::vector<Metric> values;
};

class MetricsWriter {
 public:
  // Opens DIRECTORY/metrics.jsonl (appending) and a new event file. Throws SystemError.
  explicit MetricsWriter(const std::filesystem::path& directory);

  // `tensorboard_step` is the event's x axis, as a rule env_steps. Throws SystemError, naming the file that refused.
  void write(const MetricsRow& row, std::int64_t tensorboard_step);

 private:
  AppendFile lines_;
  EventFile events_;
};

}  // namespace qanat
