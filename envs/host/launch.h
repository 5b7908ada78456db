// Which program hosts an environment, and what it is told.
#pragma once

#include <cstddef>
#include <string>

#include "envs/env_handle.h"
#include "envs/vector_env.h"

namespace qanat::envs::host {

// config.gymnasium in a Python process. Throws ConfigError when Python, its packages, the id or the settings are not
// what they must be; what Python printed is on standard error.
[[nodiscard]] EnvHandle open_gymnasium(const EnvConfig& config, std::size_t slots);

// config.id (and options) in a process of this very program, `qanat env serve`.
[[nodiscard]] EnvHandle open_isolated(const EnvConfig& config, std::size_t slots);

// The folder with the Python host: QANAT_PYTHON_HOST where it is set, else share/qanat/python or python beside or above
// the running program. Throws ConfigError when it is nowhere.
[[nodiscard]] std::string python_host();

}  // namespace qanat::envs::host
