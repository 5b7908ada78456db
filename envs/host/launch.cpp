#include "envs/host/launch.h"

#include <cstdlib>
#include <filesystem>

#include "core/error.h"
#include "envs/host/hosted_env.h"
#include "envs/host/process.h"

namespace qanat::envs::host {
namespace {

namespace fs = std::filesystem;

HostOptions common(const EnvConfig& config, std::size_t slots) {
  if (slots == 0) throw ConfigError("an environment of no slots, at least one wanted");
  HostOptions options;
  options.slots = slots;
  // A vector class makes all of its slots at once.
  options.start_limit = Seconds(config.make_timeout_seconds) + Seconds(0.5) * static_cast<double>(slots);
  options.reset_limit = Seconds(config.reset_timeout_seconds);
  options.step_limit = Seconds(config.step_timeout_seconds);
  if (config.trial) options.most_faults = 1;
  options.close_limit = Seconds(config.close_timeout_seconds);
  options.request = {{"slots", std::to_string(slots)},
                     {"first_index", std::to_string(config.first_index)},
                     {"max_episode_steps", std::to_string(config.max_episode_steps)}};
  return options;
}

std::string lines(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& word : words) out += word + '\n';
  return out;
}

}  // namespace

std::string python_host() {
  const fs::path inside = fs::path("qanat_env_host") / "__main__.py";
  if (const char* named = std::getenv("QANAT_PYTHON_HOST"); named != nullptr && *named != '\0') {
    if (fs::exists(named / inside)) return (named / inside).parent_path();
    throw ConfigError(text("QANAT_PYTHON_HOST is '", named, "', wanted a folder with ", inside.string()));
  }
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  for (fs::path folder = program.parent_path(); !folder.empty(); folder = folder.parent_path()) {
    for (const auto& at : {folder / "share" / "qanat" / "python", folder / "python"}) {
      if (fs::exists(at / inside)) return (at / inside).parent_path();
    }
    if (folder == folder.root_path()) break;
  }
  throw ConfigError(text("the Python host (", inside.string(),
                         ") is neither in share/qanat/python nor in python above ", program.string(),
                         "; QANAT_PYTHON_HOST may name its folder"));
}

EnvHandle open_gymnasium(const EnvConfig& config, std::size_t slots) {
  if (!config.options.empty()) {
    throw ConfigError(
        text("env.options is \"", config.options, "\": a Gymnasium environment takes env.kwargs instead"));
  }
  if (config.isolate) throw ConfigError("env.isolate is for C and C++ environments: Python ones always are apart");
  if (!config.python_path.empty() && !fs::is_directory(config.python_path))
    throw ConfigError(text("env.python_path is ", config.python_path, ", which is no folder"));
  if (config.atari.preset != AtariConfig().preset && !config.gymnasium.starts_with("ALE/")) {
    throw ConfigError(text("env.atari.preset is ", config.atari.preset, ", which is for ids that begin with ALE/, and ",
                           "env.gymnasium is ", config.gymnasium));
  }
  HostOptions options = common(config, slots);
  options.id = config.gymnasium;
  options.arguments = {config.python, python_host()};
  options.request.insert({{"id", config.gymnasium},
                          {"path", config.python_path},
                          {"kwargs", config.kwargs},
                          {"vectorization", config.vectorization},
                          {"channels", config.channels},
                          {"observations", lines(config.observations)},
                          {"atari_preset", config.atari.preset},
                          {"atari_threads", std::to_string(config.atari.threads)},
                          {"evaluation", config.evaluation ? "1" : "0"}});
  return create_hosted(std::move(options));
}

EnvHandle open_isolated(const EnvConfig& config, std::size_t slots) {
  HostOptions options = common(config, slots);
  options.id = config.id.empty() ? config.plugin : config.id;
  options.arguments = {own_program(), "env", "serve"};
  options.request.insert({{"id", config.id}, {"plugin", config.plugin}, {"options", config.options}});
  return create_hosted(std::move(options));
}

}  // namespace qanat::envs::host
