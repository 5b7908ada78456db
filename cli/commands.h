// Small subcommands that print something.
#pragma once

#include <string>
#include <vector>

namespace qanat::cli {

void print_schema();
void print_reference();
void print_config(const std::string& file, const std::vector<std::string>& overrides);

// Hosts one environment for another process of ours: three inherited descriptors, see envs/host/protocol.h.
void serve_environment(const std::vector<int>& descriptors);
// For a head started by hand: run_dir with the resolved configuration, made when it is not there.
void make_run_directory(const std::string& config, const std::string& run_dir);

}  // namespace qanat::cli
