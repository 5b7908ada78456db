// How fast an environment is: bare, through its C table, and as actors step it, through VectorEnv.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "envs/vector_env.h"

namespace qanat::envs {

struct BenchOptions {
  std::size_t slots = 16;
  double seconds = 2;  // of each kind; they take turns, so that a busy machine slows both alike
  std::uint64_t seed = 1;
};

struct BenchRate {
  double steps_per_second = 0;      // env steps (all slots) by the clock
  double steps_per_cpu_second = 0;  // by the processor time of the calling thread
};

struct BenchResult {
  std::string id;        // the environment's
  BenchRate bare;        // the table's step() in a loop, observations written, nothing looked at
  BenchRate vectorised;  // VectorEnv::step(), which checks actions and results and counts episodes
};

// Random actions, drawn beforehand where there is no mask. Throws as open_env and VectorEnv.
[[nodiscard]] BenchResult bench_environment(const EnvConfig& config, const BenchOptions& options);

}  // namespace qanat::envs
