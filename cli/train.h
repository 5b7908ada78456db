// `qanat train`: starts and supervises all processes of a run on this machine, shows its progress, evaluates the
// result.
#pragma once

#include <string>
#include <vector>

namespace qanat::cli {

struct TrainOptions {
  std::string config;
  std::string name;  // empty: the configuration's
  std::string runs_dir = "runs";
  long long seed = -1;  // -1: the configuration's
  std::vector<std::string> overrides;
  bool resume = false;
  bool from_scratch = false;  // when there is no checkpoint to resume from: begin again at update 0
  std::string init_from;
  bool lockstep = false;
};

// Returns the exit code: 0 the run ended by a stop condition, 85 it was told to stop and can be resumed, 130 after
// Ctrl-C. Throws ConfigError, before any process starts, for what the user can mend, RunError when the run failed.
int train(const TrainOptions& options);

}  // namespace qanat::cli
