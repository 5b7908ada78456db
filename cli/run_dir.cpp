#include "cli/run_dir.h"

#include <random>

#include "actors/environment.h"
#include "core/config_writer.h"
#include "core/error.h"
#include "core/files.h"
#include "learner/checkpoint.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

std::int64_t drawn_seed() {
  std::random_device entropy;
  return static_cast<std::int64_t>(entropy() & 0x7fffffffU);
}

std::uint64_t read_epoch(const fs::path& path) {
  if (!fs::exists(path / "epoch")) return 0;
  return std::stoull(read_text_file(path / "epoch", 64));
}

// What can be known to be wrong is refused before anything is made or started.
void check_runnable(const RunConfig& config) {
  const auto environment = envs::make(config.env, 1);
  const auto schema = actors::schema_of(environment->spec());
  (void)actors::network_of(config.network, environment->spec(), config.agent.stack);
  check_memory(config, schema);
}

}  // namespace

RunDirectory open_run(const TrainOptions& options) {
  RunDirectory run;
  auto config = load_run_config(options.config, options.overrides);
  if (!options.name.empty()) config.name = options.name;
  if (config.name.empty() || config.name.find('/') != std::string::npos || config.name.starts_with('.')) {
    throw ConfigError(text("the run's name is '", config.name, "', wanted a plain directory name (--name)"));
  }
  run.path = fs::path(options.runs_dir) / config.name;
  if (options.resume) {
    if (!fs::exists(run.path / "config.yaml")) {
      throw ConfigError(text("nothing to resume: there is no run in ", run.path.string(), "; leave out --resume to start one"));
    }
    // The run goes on as it was begun; what is given on the command line is laid over it.
    config = load_run_config((run.path / "config.yaml").string(), options.overrides);
    if (const auto checkpoint = learner::newest_checkpoint(run.path / "checkpoints")) {
      run.resume_from = fs::absolute(*checkpoint).string();
    }
    check_runnable(config);
  } else {
    check_runnable(config);
    if (options.seed >= 0) config.seed = options.seed;
    if (config.seed < 0) config.seed = drawn_seed();
    make_directories(options.runs_dir);
    if (!create_directory_exclusively(run.path)) {
      throw ConfigError(text("there is a run in ", run.path.string(),
                             " already; go on with it by --resume, or start another by --name NAME"));
    }
  }
  make_directories(run.path / "logs");
  make_directories(run.path / "checkpoints");
  run.epoch = read_epoch(run.path) + 1;
  write_file_atomically(run.path / "epoch", std::to_string(run.epoch) + "\n");
  write_file_atomically(run.path / "config.yaml", write_config(config));
  run.config = config;
  return run;
}

}  // namespace qanat::cli
