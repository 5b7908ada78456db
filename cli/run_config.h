// A run's whole configuration: every room's settings under its section, read strictly, checked together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/config.h"
#include "core/config_tree.h"
#include "envs/vector_env.h"
#include "learner/config.h"
#include "nn/network.h"
#include "replay/config.h"
#include "wire/messages.h"

namespace qanat::cli {

struct ControlConfig {
  std::string bind_host = "127.0.0.1";
  std::int64_t port = 0;
  double lost_after_seconds = 60;
  double give_up_seconds = 120;
  double metrics_every_seconds = 1;
  std::int64_t max_restarts = 5;
  std::int64_t max_log_bytes = 8 << 20;

  void describe(ConfigVisitor& v) {
    v.field(
        "bind_host", bind_host,
        "Address that the processes of the run listen on: IPv4, IPv6, or a name of this machine. 0.0.0.0 (or :: with "
        "IPv6) lets other hosts join; nothing is encrypted.");
    v.field("port", port, "TCP port of the head. 0: a free one, printed and written to head.address.",
            {.low = 0, .high = 65535});
    v.field("lost_after_seconds", lost_after_seconds,
            "Silence after which the head counts a process as lost, and train kills and replaces its own.", {.low = 6});
    v.field("give_up_seconds", give_up_seconds, "Silence of the head after which a process ends itself.", {.low = 6});
    v.field("metrics_every_seconds", metrics_every_seconds, "Between two lines of metrics.jsonl.", {.low = 0.1});
    v.field("max_restarts", max_restarts, "Restarts of one process before train ends the run.", {.low = 0});
    v.field(
        "max_log_bytes", max_log_bytes,
        "Of each file in logs/, which also take what environments print. A larger one is cut; its newest part is kept "
        "beside it as FILE.1.",
        {.low = 65'536});
  }
};

struct RunConfig {
  std::string name = "run";
  std::int64_t seed = -1;
  envs::EnvConfig env;
  nn::NetworkConfig network;
  learner::AgentConfig agent;
  replay::ReplayConfig replay;
  actors::ActorsConfig actors;
  learner::LearnerConfig learner;
  actors::EvaluationConfig evaluation;
  learner::CheckpointConfig checkpoint;
  learner::StopConfig stop;
  ControlConfig control;

  void describe(ConfigVisitor& v) {
    v.field("name", name, "Name of the run; its directory is RUNS_DIR/NAME.");
    v.field("seed", seed, "Seed of everything random. -1: drawn at the start, and written to the run's config.yaml.",
            {.low = -1});
    v.section("env", env, "The environment.");
    v.section("network", network, "The Q-network.");
    v.section("agent", agent, "What is learned.");
    v.section("replay", replay, "The replay memory and its shards.");
    v.section("actors", actors, "The processes that step environments.");
    v.section("learner", learner, "The process that updates the network.");
    v.section("evaluation", evaluation, "Greedy play, apart from training.");
    v.section("checkpoint", checkpoint, "What is saved, and when.");
    v.section("stop", stop, "When the run ends: the first condition met.");
    v.section("control", control, "The head, the network addresses, patience.");
  }

  [[nodiscard]] actors::AgentView agent_view() const;
  // Width of the ledger's window, trained steps: as configured, or four times the least.
  [[nodiscard]] double ratio_window() const;
};

// Reads, applies overrides in order, makes relative paths absolute (those of the file from its directory, those of
// overrides from the working directory), and checks what only the whole can tell. Throws ConfigError with every
// problem.
[[nodiscard]] RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides);
[[nodiscard]] RunConfig parse_run_config(const std::string& yaml, const std::string& source);

// The smallest window that cannot deadlock: batch * prefetch + ratio * chunk * streams.
[[nodiscard]] double least_window(const RunConfig& config);

// Throws ConfigError when a chunk may be a larger message than a shard accepts: it would be sent again for ever.
void check_messages(const RunConfig& config, const wire::EnvironmentSchema& environment);

// What the run will hold in memory, and what there is (cgroup limits count). Throws ConfigError with the sum when it
// does not fit.
void check_memory(const RunConfig& config, const wire::EnvironmentSchema& environment);

}  // namespace qanat::cli
