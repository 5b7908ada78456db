#include "cli/run_dir.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <random>

#include "actors/environment.h"
#include "cli/env_trial.h"
#include "cli/needs.h"
#include "cli/new_run.h"
#include "cli/roles.h"
#include "core/error.h"
#include "core/files.h"
#include "learner/checkpoint.h"
#include "nn/backend.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

std::int64_t drawn_seed() {
  std::random_device entropy;
  return static_cast<std::int64_t>(entropy() & 0x7fffffffU);
}

std::uint64_t read_epoch(const fs::path& path) {
  if (!fs::exists(path / "epoch")) return 0;
  const auto words = read_text_file(path / "epoch", 64);
  std::uint64_t epoch = 0;
  const auto [end, wrong] = std::from_chars(words.data(), words.data() + words.size(), epoch);
  if (wrong != std::errc{} || text(epoch, '\n') != words) {
    throw ConfigError(
        text((path / "epoch").string(), ": saw '", words, "', wanted the number of times the run was started"));
  }
  return epoch;
}

// What can be known to be wrong is refused before anything is made or started. `weights`: where the run begins, a
// file or a checkpoint's directory, or empty. Fills in what the environment is.
void check_runnable(const RunConfig& config, const fs::path& weights, RunDirectory& run) {
  check_needs_of_run(config);
  check_bind_host(config.control.bind_host, config.control.port);
  auto trial = try_for_a_run(config.env);
  if (!trial.out_of_bounds.empty()) {
    std::fprintf(stderr, "qanat: warning: %s: training takes it as it is, `qanat env check` says more\n",
                 trial.out_of_bounds.c_str());
  }
  run.spec = std::move(trial.spec);
  run.environment = std::move(trial.protocol);
  const auto schema = actors::schema_of(run.spec);
  const auto network = actors::network_of(config.network, run.spec, config.agent.stack);
  nn::Normalization normalization(config.agent.normalization(), network.input);
  check_messages(config, schema);
  check_memory(config, schema);
  if (const auto obstacle = nn::device_obstacle(config.learner.device); !obstacle.empty())
    throw ConfigError(text("learner.device ", config.learner.device, " cannot be used: ", obstacle));
  if (weights.empty()) return;
  try {
    const auto file = fs::is_directory(weights) ? weights / "weights.bin" : weights;
    normalization.load(learner::load_weights(file, network).statistics, file.string());
  } catch (const ConfigError&) {
    throw;
  } catch (const Error& error) {
    throw ConfigError(text("the weights to start from cannot be read: ", error.what()));
  }
}

void check_flags(const TrainOptions& options, const RunConfig& config) {
  if (config.name.empty() || config.name.find('/') != std::string::npos || config.name.starts_with('.')) {
    throw ConfigError(text("the run's name is '", config.name, "', wanted a plain directory name (--name)"));
  }
  if (options.lockstep && config.stop.updates == 0) {
    throw ConfigError("a lockstep run needs stop.updates: it is the one stop condition it has");
  }
  if (options.from_scratch && !options.resume) {
    throw ConfigError(
        "--from-scratch is for --resume: what to do when there is no checkpoint; a new run needs neither");
  }
  if (options.lockstep && config.stop.env_steps > 0) {
    throw ConfigError(text("stop.env_steps is ", config.stop.env_steps,
                           ", but a lockstep run ends at stop.updates alone; set it to 0"));
  }
  if (options.resume && !options.init_from.empty()) {
    throw ConfigError(
        "--init-from is for a new run: a resumed one goes on with its own weights; leave one of the two out");
  }
}

// A saved replay has the form of the settings under which it was filled.
void check_replay_fits(const RunConfig& saved, const RunConfig& wanted, const fs::path& checkpoint) {
  const auto names = list_directory(checkpoint);
  if (std::none_of(names.begin(), names.end(), [](const auto& name) { return name.starts_with("shard-"); })) return;
  std::string wrong;
  const auto compare = [&](const char* name, std::int64_t was, std::int64_t is) {
    if (was != is) wrong += text("\n  ", name, ": saw ", is, ", wanted ", was);
  };
  compare("replay.shards", saved.replay.shards, wanted.replay.shards);
  compare("replay.capacity_steps", saved.replay.capacity_steps, wanted.replay.capacity_steps);
  compare("agent.n_step", saved.agent.n_step, wanted.agent.n_step);
  compare("agent.stack", saved.agent.stack, wanted.agent.stack);
  compare("agent.normalize_rewards", saved.agent.normalize_rewards, wanted.agent.normalize_rewards);
  if (wanted.agent.normalize_rewards && saved.agent.gamma != wanted.agent.gamma) {
    wrong += text("\n  agent.gamma: saw ", wanted.agent.gamma, ", wanted ", saved.agent.gamma,
                  ": the discounted returns it holds were made with it");
  }
  if (!wrong.empty()) throw ConfigError(text("the replay in ", checkpoint.string(), " has another form:", wrong));
}

// What is damaged keeps its bytes under another name. Returns the warning, and says it.
std::string pass_over(const learner::VerifiedCheckpoint& checkpoint) {
  std::string warning;
  for (const auto& [directory, why] : checkpoint.newer) {
    warning += text("checkpoint ", directory.filename().string(), " is damaged: ", why, "; it is kept as ",
                    learner::set_aside(directory).filename().string(), "\n  ");
  }
  warning += text("going on from the older checkpoint ", checkpoint.directory.string(), " instead");
  std::fprintf(stderr, "qanat: warning: %s\n", warning.c_str());
  return warning;
}

// What the checkpoint had to do without, as a warning, which it says too; empty for most.
std::string say_what_is_missing(const fs::path& checkpoint) {
  const auto missing = learner::read_manifest(checkpoint).missing;
  if (missing.empty()) return {};
  auto warning = text("checkpoint ", checkpoint.filename().string(),
                      " was saved without a part of the replay, which starts empty:");
  for (const auto& one : missing) warning += "\n  " + one;
  std::fprintf(stderr, "qanat: warning: %s\n", warning.c_str());
  return warning;
}

// A run that never came to save, or whose checkpoints somebody took away, begins at update 0 again: that must be
// wanted.
void start_over(const TrainOptions& options, RunDirectory& run) {
  if (!options.from_scratch) {
    throw ConfigError(text("nothing to resume: there is no checkpoint in ", (run.path / "checkpoints").string(),
                           "; all that the run learned is lost. --from-scratch begins it again at update 0"));
  }
  run.warning =
      text("there is no checkpoint in ", (run.path / "checkpoints").string(), ": the run begins again at update 0");
  std::fprintf(stderr, "qanat: warning: %s\n", run.warning.c_str());
}

// Finds the run again. It goes on as it was begun; what is given on the command line is laid over it.
void reopen(const TrainOptions& options, RunDirectory& run) {
  const auto saved = run.path / "config.yaml";
  if (!fs::exists(saved)) {
    throw ConfigError(text("nothing to resume: there is no run in ", run.path.string(),
                           fs::exists(run.path)
                               ? ", which has no config.yaml; remove it and leave out --resume to start one"
                               : "; leave out --resume to start one"));
  }
  run.lock = RunLock::take_over(run.path, "train");
  run.config = load_run_config(saved.string(), options.overrides);
  if (options.seed >= 0 && options.seed != run.config.seed) {
    throw ConfigError(
        text("--seed ", options.seed, " is for a new run: this one goes on with its own, ", run.config.seed));
  }
  const auto checkpoint = learner::newest_verified_checkpoint(run.path / "checkpoints");
  if (checkpoint) run.resume_from = fs::absolute(checkpoint->directory).string();
  if (!checkpoint) start_over(options, run);
  check_runnable(run.config, run.resume_from, run);
  if (!run.resume_from.empty()) check_replay_fits(load_run_config(saved.string(), {}), run.config, run.resume_from);
  if (checkpoint && !checkpoint->newer.empty()) run.warning = pass_over(*checkpoint);
  if (checkpoint) run.warning += say_what_is_missing(checkpoint->directory);
}

}  // namespace

RunDirectory open_run(const TrainOptions& options) {
  RunDirectory run;
  run.config = load_run_config(options.config, options.overrides);
  if (!options.name.empty()) run.config.name = options.name;
  check_flags(options, run.config);
  run.path = fs::path(options.runs_dir) / run.config.name;
  if (options.resume) {
    reopen(options, run);
  } else {
    check_runnable(run.config, options.init_from, run);
    if (options.seed >= 0) run.config.seed = options.seed;
    if (run.config.seed < 0) run.config.seed = drawn_seed();
    // Locked before it has its name: nobody else comes in between.
    make_run(run.path, run.config, "go on with it by --resume, or start another by --name NAME",
             [&](const fs::path& made) { run.lock = RunLock(made, "train"); });
    return run;
  }
  make_directories(run.path / "logs");
  make_directories(run.path / "checkpoints");
  run.epoch = read_epoch(run.path) + 1;
  write_epoch(run.path, run.epoch);
  write_run_config(run.path, run.config);
  return run;
}

}  // namespace qanat::cli
