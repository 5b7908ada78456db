// A moment's play of one environment before a run starts with it: what would end the run's actors at their first steps
// is refused here, with words.
//
// Not the whole contract (envs/check.h), but what can be seen in some steps of one slot: calls that fail, values that
// are not finite, flags and masks that are none, limits that do not hold, writes beyond a buffer. One thread. An
// environment that crashes takes the caller along unless it is hosted: cli/env_trial.h tries a plug-in in a process of
// its own.
#pragma once

#include <cstdint>
#include <string>

#include "envs/probe.h"
#include "envs/vector_env.h"

namespace qanat::envs {

struct TrialOptions {
  std::int64_t most_steps = 200;
  std::int64_t steps_after_an_end = 8;  // an episode has ended and another has begun: it is enough
  double seconds = 0.2;                 // no step is begun after so much time; making and resetting have no bound here
  std::uint64_t seed = 1;
  ProbeProgress* progress = nullptr;
};

struct TrialResult {
  EnvSpec spec;  // with its actions numbered
  Protocol protocol;
  std::int64_t steps = 0;
  std::int64_t episodes = 0;  // that ended
  // The first observation outside the bounds that its space states, which trains all the same; empty for most.
  std::string out_of_bounds;
};

// Makes it, plays it, and closes it. Throws ConfigError that names the fault as `qanat env check` does.
[[nodiscard]] TrialResult try_environment(const EnvConfig& config, const TrialOptions& options = {});

}  // namespace qanat::envs
