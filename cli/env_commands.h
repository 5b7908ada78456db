// `qanat env check`, `bench` and `play`: what can be done with an environment apart from a run.
//
// An environment is named by ENV: a built-in id, the path of a plug-in (it ends with .so), gymnasium:ID, or a
// configuration file (.yaml), of which the section env counts. Settings are laid over it as for train:
// "env.options=sides=3".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "envs/bench.h"
#include "envs/check.h"

namespace qanat::cli {

struct EnvArgument {
  std::string name;
  std::vector<std::string> overrides;
};

// Throws ConfigError as the configuration's reader does.
[[nodiscard]] envs::EnvConfig env_config_of(const EnvArgument& argument);

// Prints each fault as it is found, then what was seen. The environment runs in a process of its own, so that one that
// crashes or hangs is reported too: a call may take twice the timeout and a second before it is killed.
// Returns 0 when no fault was found, 1 otherwise: also when there is no such environment. Throws as env_config_of.
int env_check(const EnvArgument& environment, const envs::CheckOptions& options);

// Prints a table, or one line of JSON. Returns 0.
int env_bench(const EnvArgument& environment, const envs::BenchOptions& options, bool json);

struct PlayOptions {
  std::int64_t episodes = 1;
  std::string policy = "random";  // or the directory of a run
  std::string output = "play.png";
  std::int64_t seed = 1;
  std::int64_t max_frames = 3000;
};

// Writes the film and says what is in it. Returns 0. Throws as actors::record.
int env_play(const EnvArgument& environment, const PlayOptions& options);

}  // namespace qanat::cli
