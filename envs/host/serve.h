// The child's side for environments of a C table: what `qanat env serve` does.
#pragma once

#include <functional>

#include "envs/env_handle.h"
#include "envs/host/protocol.h"

namespace qanat::envs::host {

// Makes the environment that a request asks for.
using Open = std::function<EnvHandle(const Request& request, std::size_t slots)>;

// Serves one environment over the three inherited descriptors until the other side closes the pipe. An exception of
// `open` is told to the other side. Throws InputError when the other side talks nonsense, SystemError.
void serve(int memory_file, int from, int to, const Open& open);

}  // namespace qanat::envs::host

namespace qanat::envs {

// What open_isolated() asked for, made in this process. Throws ConfigError and InputError as create_env().
[[nodiscard]] EnvHandle open_requested(const host::Request& request, std::size_t slots);

}  // namespace qanat::envs
