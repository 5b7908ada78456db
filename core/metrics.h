// A run's numbers over time: `metrics.jsonl` for programs, event files for TensorBoard.
//
// metrics.jsonl holds one JSON object a line: {"time": seconds since the start, "env_steps": N, "updates": N,
// "NAME": value, ...}. A value that is not finite is null, because JSON has no NaN. A resumed run appends. What came
// after the checkpoint that it goes on from was undone: those lines move to `metrics.undone.jsonl`, and TensorBoard is
// told to drop them, so that time, env_steps and updates never fall.
// Not thread safe: one owner each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
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

// Where a run begins (all 0) or goes on.
struct MetricsStart {
  double time_seconds = 0;
  std::int64_t env_steps = 0;
  std::int64_t updates = 0;
};

class MetricsWriter {
 public:
  // Opens DIRECTORY/metrics.jsonl (appending) and a new event file, whose x axis is env_steps. No `start`: nothing of
  // what is there was undone. Throws SystemError.
  MetricsWriter(const std::filesystem::path& directory, const std::optional<MetricsStart>& start);

  // Throws SystemError, naming the file that refused; what is in the files then is whole.
  void write(const MetricsRow& row);

 private:
  AppendFile lines_;
  EventFile events_;
};

}  // namespace qanat
