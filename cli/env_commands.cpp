#include "cli/env_commands.h"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "actors/recording.h"
#include "cli/evaluate.h"
#include "cli/run_config.h"
#include "cli/watched.h"
#include "core/config_reader.h"
#include "core/error.h"
#include "core/files.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

constexpr int exit_faulty = 1;
constexpr int exit_refused = 2;

void print_fault(const envs::Finding& fault) {
  std::printf("FAULT %s: %s\n", fault.name.c_str(), fault.text.c_str());
  std::fflush(stdout);
}

int check_here(const envs::EnvConfig& config, envs::CheckOptions options) {
  options.on_fault = print_fault;
  const auto report = envs::check_environment(envs::open_env, config, options);
  for (const auto& line : report.seen) std::printf("  %s\n", line.c_str());
  for (const auto& line : report.warnings) std::printf("  warning: %s\n", line.c_str());
  for (const auto& line : report.not_seen) std::printf("  not tried: %s\n", line.c_str());
  if (report.faults.empty()) {
    std::printf("no fault found\n");
    return 0;
  }
  std::printf("%zu kind%s of fault\n", report.faults.size(), report.faults.size() == 1 ? "" : "s");
  return exit_faulty;
}

std::string rate_text(double rate) {
  if (rate >= 1e6) return text(std::round(rate / 1e4) / 100, " M");
  return text(std::round(rate / 10) / 100, " k");
}

}  // namespace

envs::EnvConfig env_config_of(const EnvArgument& argument) {
  const auto& name = argument.name;
  if (name.ends_with(".yaml") || name.ends_with(".yml")) return load_run_config(name, argument.overrides).env;
  constexpr std::string_view python = "gymnasium:";
  RunConfig config;
  if (name.ends_with(".so")) {
    config.env.plugin = name;
  } else if (name.starts_with(python)) {
    config.env.gymnasium = name.substr(python.size());
  } else {
    config.env.id = name;
  }
  ConfigTree tree;
  for (const auto& assignment : argument.overrides) tree.set(assignment);
  read_config(tree, config);
  return config.env;
}

int env_check(const EnvArgument& environment, const envs::CheckOptions& given) {
  const auto config = env_config_of(environment);
  std::printf("checking %s\n", environment.name.c_str());
  std::fflush(stdout);
  const auto check = [&](envs::ProbeProgress& progress, std::string&) {
    envs::CheckOptions options = given;
    options.progress = &progress;
    try {
      return check_here(config, options);
    } catch (const ConfigError& error) {
      std::fprintf(stderr, "qanat: %s\n", error.what());
      return exit_refused;
    } catch (const std::exception& error) {
      print_fault({"check", error.what()});
      return exit_faulty;
    }
  };
  const auto result = watched(check, given.call_timeout_seconds);
  if (!result.fault) return result.code;
  print_fault(*result.fault);
  return exit_faulty;
}

int env_bench(const EnvArgument& environment, const envs::BenchOptions& options, bool json) {
  const auto config = env_config_of(environment);
  const auto result = envs::bench_environment(config, options);
  const double share = result.vectorised.steps_per_cpu_second / result.bare.steps_per_cpu_second;
  if (json) {
    nlohmann::ordered_json line;
    line["env"] = result.id;
    line["slots"] = options.slots;
    line["seconds"] = options.seconds;
    const auto put = [&](const std::string& name, const envs::BenchRate& rate) {
      line[name + "_env_steps_per_second"] = rate.steps_per_second;
      line[name + "_env_steps_per_cpu_second"] = rate.steps_per_cpu_second;
    };
    put("bare", result.bare);
    put("vectorised", result.vectorised);
    std::printf("%s\n", line.dump().c_str());
    return 0;
  }
  std::printf("%s, %zu slots, one thread; env steps (all slots together)\n", result.id.c_str(), options.slots);
  const auto print = [&](const char* what, const envs::BenchRate& rate) {
    std::printf("  %-22s %10s/s  %10s/processor second\n", what, rate_text(rate.steps_per_second).c_str(),
                rate_text(rate.steps_per_cpu_second).c_str());
  };
  print("bare, by the C table", result.bare);
  print("through VectorEnv", result.vectorised);
  std::printf("  VectorEnv keeps %.0f %% of it by processor time\n", 100 * share);
  return 0;
}

int env_play(const EnvArgument& environment, const PlayOptions& options) {
  actors::RecordingOptions recording;
  std::optional<RunWeights> weights;
  if (options.policy != "random") {
    if (!fs::is_directory(options.policy)) {
      throw ConfigError(text("--policy ", options.policy, ": wanted random or the directory of a run"));
    }
    auto run = config_of_run(options.policy);
    run.env = env_config_of(environment);
    weights = load_run_weights(options.policy, run, envs::make(run.env, 1)->spec());
    recording.play = evaluation_options(run, options.episodes);
  } else {
    recording.play.environment = env_config_of(environment);
    recording.play.episodes = options.episodes;
  }
  recording.play.seed = static_cast<std::uint64_t>(options.seed);
  recording.max_frames = options.max_frames;
  const auto film =
      weights ? actors::record(recording, weights->weights.view()) : actors::record(recording, std::nullopt);
  write_file_atomically(options.output, film.film);
  std::printf("%s: %zu frames of %s, policy %s\n", options.output.c_str(), film.frames, film.source.c_str(),
              weights ? (options.policy + " (" + weights->which + ")").c_str() : "random");
  for (std::size_t i = 0; i < film.returns.size(); ++i) {
    std::printf("  episode %zu: return %g, %lld steps\n", i + 1, film.returns[i],
                static_cast<long long>(film.lengths[i]));
  }
  if (film.returns.size() < static_cast<std::size_t>(options.episodes)) {
    std::printf("  cut after %zu frames (--max-frames)\n", film.frames);
  }
  return 0;
}

}  // namespace qanat::cli
