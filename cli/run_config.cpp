#include "cli/run_config.h"

#include <algorithm>
#include <filesystem>

#include "cli/config_seal.h"
#include "core/config_reader.h"
#include "core/error.h"
#include "core/files.h"
#include "core/memory.h"
#include "nn/backend.h"
#include "replay/run_schema.h"
#include "replay/server.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

// Bytes a process takes before it holds anything of the run: code, libraries, sockets, buffers.
constexpr std::uint64_t process_bytes = 40ULL << 20;
constexpr std::uint64_t largest_file_bytes = 1 << 20;

void check_together(const RunConfig& config) {
  std::string wrong;
  const auto complain = [&](const auto&... parts) { wrong += (wrong.empty() ? "" : "\n") + text(parts...); };
  if (config.actors.slots % 2 != 0) complain("actors.slots is ", config.actors.slots, ", wanted an even number");
  if (config.replay.ratio_window_steps > 0 &&
      static_cast<double>(config.replay.ratio_window_steps) < least_window(config)) {
    complain("replay.ratio_window_steps is ", config.replay.ratio_window_steps,
             ", wanted at least learner.batch * learner.prefetch + ",
             "replay.ratio * actors.chunk_steps * actors.count * actors.slots = ", config.learner.batch, " * ",
             config.learner.prefetch, " + ", config.replay.ratio, " * ", config.actors.chunk_steps, " * ",
             config.actors.count, " * ", config.actors.slots, " = ", least_window(config),
             "; a smaller one could stop both sides for ever");
  }
  const auto per_shard = config.replay.capacity_steps / config.replay.shards;
  const auto span = 2 * (config.agent.stack + config.agent.n_step);
  if (per_shard < span) {
    complain("replay.capacity_steps is ", config.replay.capacity_steps, " for ", config.replay.shards,
             " shards, wanted at least 2 * (agent.stack + agent.n_step) = ", span, " each");
  }
  if (config.actors.chunk_steps > per_shard / 4) {
    complain("actors.chunk_steps is ", config.actors.chunk_steps, ", wanted at most a quarter of a shard's ", per_shard,
             " rows");
  }
  if (config.replay.min_size > config.replay.capacity_steps / 2) {
    complain("replay.min_size is ", config.replay.min_size, ", wanted at most half of replay.capacity_steps, ",
             config.replay.capacity_steps);
  }
  if (config.agent.normalize_rewards && config.agent.reward_clip > 0) {
    complain("agent.reward_clip is ", config.agent.reward_clip,
             ", wanted 0 where agent.normalize_rewards is true: both set the scale of rewards, and "
             "agent.normalization_clip bounds what was normalised");
  }
  if (!nn::is_device(config.learner.device)) {
    complain("learner.device is '", config.learner.device, "', wanted auto, cpu, cuda:N or reference");
  }
  if (!config.learner.device.starts_with("cuda") && config.learner.device != "auto") {
    if (config.learner.precision != "auto" && config.learner.precision != "fp32") {
      complain("learner.precision is ", config.learner.precision, ", but learner.device ", config.learner.device,
               " computes in fp32");
    }
    if (config.learner.kernels == "fused") complain("learner.kernels is fused, which is for a GPU");
  }
  if (!wrong.empty()) throw ConfigError(wrong);
}

// Paths in a file are meant from where it is, those of --set from where the command is given. Made absolute, they hold
// in the run's own configuration and in processes that start elsewhere.
void resolve_paths(const ConfigTree& tree, const std::string& file, RunConfig& config) {
  const auto* section = tree.root().find("env");
  const auto resolve = [&](const char* key, std::string& path) {
    const auto* written = section != nullptr ? section->find(key) : nullptr;
    const bool by_flag = written != nullptr && written->origin.source.starts_with("--set");
    const fs::path from = by_flag ? fs::current_path() : fs::absolute(file).parent_path();
    path = (path.empty() ? from : from / path).lexically_normal().string();
  };
  auto& env = config.env;
  if (!env.plugin.empty()) resolve("plugin", env.plugin);
  // The name of a program alone is looked for on the PATH.
  if (env.python.find('/') != std::string::npos) resolve("python", env.python);
  if (!env.gymnasium.empty()) resolve("python_path", env.python_path);
}

}  // namespace

actors::AgentView RunConfig::agent_view() const {
  return {agent.n_step, agent.gamma, agent.td(), agent.reward_clip, replay.priority_epsilon, agent.normalization()};
}

double least_window(const RunConfig& config) {
  return static_cast<double>(config.learner.batch * config.learner.prefetch) +
         config.replay.ratio *
             static_cast<double>(config.actors.chunk_steps * config.actors.count * config.actors.slots);
}

double RunConfig::ratio_window() const {
  return replay.ratio_window_steps > 0 ? static_cast<double>(replay.ratio_window_steps) : 4 * least_window(*this);
}

RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides) {
  RunConfig config;
  auto tree = [&] {
    try {
      const auto content = read_text_file(path, largest_file_bytes);
      check_seal(content, path);
      return ConfigTree(content, path);
    } catch (const SystemError& error) {
      throw ConfigError(text("configuration: ", error.what()));
    }
  }();
  for (const auto& assignment : overrides) tree.set(assignment);
  read_config(tree, config);
  resolve_paths(tree, path, config);
  check_together(config);
  return config;
}

RunConfig parse_run_config(const std::string& yaml, const std::string& source) {
  check_seal(yaml, source);
  RunConfig config;
  read_config(ConfigTree(yaml, source), config);
  check_together(config);
  return config;
}

void check_messages(const RunConfig& config, const wire::EnvironmentSchema& environment) {
  std::uint64_t widest = 0;
  std::string name;
  for (const auto& column : environment.observations) {
    if (column.tensor.bytes() <= widest) continue;
    widest = column.tensor.bytes();
    name = column.tensor.describe();
  }
  // Each episode has one more row, its last observation.
  const auto rows = 2 * static_cast<std::uint64_t>(config.actors.chunk_steps);
  const auto most = static_cast<std::uint64_t>(config.replay.max_frame_megabytes) << 20;
  if (rows * widest <= most) return;
  throw ConfigError(
      text("a chunk of a slot may have 2 * actors.chunk_steps = ", rows,
           " rows (an episode may end at each "
           "step) of ",
           widest, " bytes (", name, ") = ", human_bytes(rows * widest),
           ", and a shard accepts at most replay.max_frame_megabytes = ", config.replay.max_frame_megabytes,
           "; lower actors.chunk_steps to at most ", most / widest / 2, " or raise the other"));
}

void check_memory(const RunConfig& config, const wire::EnvironmentSchema& environment) {
  const auto schema = replay::schema_of(environment, config.agent.normalize_rewards);
  std::uint64_t replay_bytes = 0;
  for (std::int64_t shard = 0; shard < config.replay.shards; ++shard) {
    replay_bytes += replay::predicted_bytes(
        replay::shard_options(config.replay, static_cast<std::uint32_t>(config.agent.stack),
                              static_cast<std::uint32_t>(config.agent.n_step), static_cast<std::uint32_t>(shard)),
        schema);
  }
  const auto processes = static_cast<std::uint64_t>(config.replay.shards + config.actors.count + 4);
  const auto wanted = replay_bytes + processes * process_bytes;
  const auto available = available_memory();
  if (wanted <= available.bytes) return;
  throw ConfigError(text("this run needs about ", human_bytes(wanted), " of memory and ", human_bytes(available.bytes),
                         " are available (", available.bound_by, "): replay ", human_bytes(replay_bytes),
                         " (replay.capacity_steps = ", config.replay.capacity_steps, " rows of ", schema.row_bytes(),
                         " bytes and their index) + ", processes, " processes of ", human_bytes(process_bytes),
                         "; lower replay.capacity_steps"));
}

}  // namespace qanat::cli
