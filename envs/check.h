// Whether an environment keeps the contract of qanat/env.h: plays it hard and says precisely what is wrong.
//
// Works on the C table (a hosted environment has one too), below VectorEnv, whose own checks would stop at the first
// fault. One thread. An environment that crashes takes the caller along, and one that hangs keeps it: who does not
// trust it calls this in a process of its own and watches `progress` (cli/env_check.cpp does).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "envs/probe.h"
#include "envs/vector_env.h"
#include "qanat/env.h"

namespace qanat::envs {

struct Finding {
  std::string name;  // of docs/environments.md: "not-repeatable"
  std::string text;  // where, what was seen, what was wanted
};

struct CheckOptions {
  std::size_t slots = 8;             // at least 1; with one, whether slots are independent is not checked
  std::int64_t steps = 2000;         // of the batch, in the longest part; the others are a quarter of it
  double seconds = 20;               // no part begins a step after this much time; each has had at least 20 steps
  double call_timeout_seconds = 10;  // a reset or step that takes longer is a fault
  std::uint64_t seed = 1;            // of actions and of episodes
  ProbeProgress* progress = nullptr;
  std::function<void(const Finding&)> on_fault = {};  // called for each fault of the report as it is found
};

using EnvOpener = std::function<EnvHandle(const EnvConfig& config, std::size_t slots)>;

struct CheckReport {
  std::vector<Finding> faults;        // the first of each name, in the order met; empty: the contract is kept
  std::vector<std::string> seen;      // what it is and what it did: specification, ranges, episodes
  std::vector<std::string> warnings;  // what is taken although it is not as it should be
  std::vector<std::string> not_seen;  // parts of the contract that could not be tried, and why
};

// Throws nothing that comes from the environment.
// `open` makes the batches; open_env (envs/vector_env.h) for any environment that a configuration can name.
[[nodiscard]] CheckReport check_environment(const EnvOpener& open, const EnvConfig& config,
                                            const CheckOptions& options);

}  // namespace qanat::envs
