// A run's directory: made once, entered again only to resume.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "cli/run_config.h"
#include "cli/train.h"

namespace qanat::cli {

struct RunDirectory {
  std::filesystem::path path;
  RunConfig config;         // resolved; also in path/config.yaml
  std::string resume_from;  // newest checkpoint, when resuming
  std::uint64_t epoch = 1;
};

// Reads the configuration and makes the directory, or finds it again with `resume`. Throws ConfigError when it is
// there already (or is not, when resuming), naming the way out.
[[nodiscard]] RunDirectory open_run(const TrainOptions& options);

}  // namespace qanat::cli
