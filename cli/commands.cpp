#include "cli/commands.h"

#include <cstdio>
#include <filesystem>
#include <random>

#include "cli/needs.h"
#include "cli/new_run.h"
#include "cli/roles.h"
#include "cli/run_config.h"
#include "core/config_writer.h"
#include "envs/host/serve.h"

namespace qanat::cli {

void print_schema() { std::fputs(config_schema(RunConfig{}, "Qanat run configuration").c_str(), stdout); }

void print_reference() { std::fputs(config_reference(RunConfig{}, "Configuration reference").c_str(), stdout); }

void print_config(const std::string& file, const std::vector<std::string>& overrides) {
  std::fputs(write_config(load_run_config(file, overrides)).c_str(), stdout);
}

void serve_environment(const std::vector<int>& descriptors) {
  envs::host::serve(descriptors[0], descriptors[1], descriptors[2], envs::open_requested);
}

void make_run_directory(const std::string& config_file, const std::string& run_dir) {
  auto config = load_run_config(config_file, {});
  check_needs("head");
  check_needs("head", config);
  check_bind_host(config.control.bind_host, config.control.port);
  if (config.seed < 0) config.seed = static_cast<std::int64_t>(std::random_device{}() & 0x7fffffffU);
  config.name = std::filesystem::path(run_dir).filename().string();
  make_run(run_dir, config, "leave out --config to go on with it, or name another");
}

}  // namespace qanat::cli
