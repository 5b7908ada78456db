// A run's directory: made once, entered again only to resume.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "cli/run_config.h"
#include "cli/run_lock.h"
#include "cli/train.h"

namespace qanat::cli {

struct RunDirectory {
  std::filesystem::path path;
  RunConfig config;         // resolved; also in path/config.yaml
  std::string resume_from;  // the checkpoint, when resuming
  std::string warning;      // for the log: damaged or missing checkpoints, missing parts; empty for most
  std::uint64_t epoch = 1;
  envs::EnvSpec spec;          // training's environment
  envs::Protocol environment;  // how it is set up, field by field; empty for most
  RunLock lock;
};

// Reads the configuration and makes the directory, or finds it again with `resume`. Throws ConfigError when it is
// there already (or is not, or is in use, when resuming), naming the way out; and for all that can be known to be
// wrong before a process is started. Resuming verifies the newest checkpoint's files; of damaged ones a warning goes to
// stderr, they are set aside, and the next older one is taken. InputError when all are damaged; ConfigError when there
// is none, unless `from_scratch` says what to do then. What is left of a run that died is ended before that.
[[nodiscard]] RunDirectory open_run(const TrainOptions& options);

}  // namespace qanat::cli
