// The environment of a run, tried before anything of the run is made or started.
#pragma once

#include "envs/trial.h"

namespace qanat::cli {

// As envs::try_environment, with a plug-in in a process of its own: one that crashes or hangs is refused like any
// other. What takes longer than two seconds says so. Throws ConfigError with the fault, SystemError without a process
// or a thread.
[[nodiscard]] envs::TrialResult try_for_a_run(const envs::EnvConfig& config);

}  // namespace qanat::cli
