// A run's directory as it is begun.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "cli/run_config.h"

namespace qanat::cli {

// Makes `path` with config.yaml, epoch, and folders for logs and checkpoints, and calls `prepare` with the directory
// while nobody else knows it. The directory appears complete under its name or not at all: it is made beside it, as
// `.NAME.new.PID`; what killed processes left of that kind is removed. Throws ConfigError when something has that name
// already, with `way_out`, and when no directory can be made there.
void make_run(const std::filesystem::path& path, const RunConfig& config, const std::string& way_out,
              const std::function<void(const std::filesystem::path&)>& prepare = {});

// Writes what the run goes on with.
void write_run_config(const std::filesystem::path& directory, const RunConfig& config);
void write_epoch(const std::filesystem::path& directory, std::uint64_t epoch);

}  // namespace qanat::cli
