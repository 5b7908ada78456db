// What the rest of the run needs to know of an environment, made from its spec.
//
// The first two throw ConfigError when its actions are not Discrete, which is all that agents can learn so far.
#pragma once

#include "core/log.h"
#include "envs/vector_env.h"
#include "nn/network.h"
#include "wire/messages.h"

namespace qanat::actors {

[[nodiscard]] wire::EnvironmentSchema schema_of(const envs::EnvSpec& spec);

// Networks read the first observation column; others are stored beside it. Throws as
// nn::build_network too.
[[nodiscard]] nn::NetworkSpec network_of(const nn::NetworkConfig& config, const envs::EnvSpec& spec,
                                         std::int64_t stack);

// How it was set up, a line a field.
void log_protocol(Logger& log, const envs::VectorEnv& env);

}  // namespace qanat::actors
