#include "cli/env_trial.h"

#include <algorithm>
#include <future>
#include <system_error>

#include "cli/progress.h"
#include "cli/watched.h"
#include "core/error.h"

namespace qanat::cli {
namespace {

constexpr int exit_refused = 2;
constexpr Milliseconds quiet_at_first{2000};
constexpr Milliseconds watch_every{100};

envs::TrialResult try_plugin(const envs::EnvConfig& config) {
  const auto body = [&](envs::ProbeProgress& progress, std::string& words) {
    try {
      words = envs::try_environment(config, {.progress = &progress}).out_of_bounds;
      return 0;
    } catch (const ConfigError& error) {
      words = error.what();
      return exit_refused;
    }
  };
  const auto limit = std::max(config.reset_timeout_seconds, config.step_timeout_seconds);
  const auto result = watched(body, limit);
  if (result.fault) {
    throw ConfigError(text("the environment fails at once (", result.fault->name, "): ", result.fault->text));
  }
  if (result.code != 0) throw ConfigError(result.words);
  // It has shown that it can be made and played: what it is can be asked here.
  const auto environment = envs::make(config, 1);
  envs::TrialResult trial;
  trial.spec = environment->spec();
  trial.protocol = environment->protocol();
  trial.out_of_bounds = result.words;
  return trial;
}

}  // namespace

envs::TrialResult try_for_a_run(const envs::EnvConfig& config) {
  const SteadyClock clock;
  const auto began = clock.now();
  ProgressLine progress(clock, quiet_at_first);
  std::future<envs::TrialResult> trial;
  try {
    trial = std::async(std::launch::async, [&] {
      return config.plugin.empty() || config.isolate ? envs::try_environment(config) : try_plugin(config);
    });
  } catch (const std::system_error& error) {
    throw SystemError(text("cannot start a thread to try the environment: ", error.what()));
  }
  while (trial.wait_for(watch_every) != std::future_status::ready) {
    if (progress.due())
      progress.show(text("making an environment and trying it for ", minutes_text(seconds(clock.now() - began))));
  }
  return trial.get();
}

}  // namespace qanat::cli
