// What the processes of a run need of descriptors and threads, so that too few are refused with a sentence before
// anything is made: ZeroMQ ends a process that gets none.
#pragma once

#include <cstdint>
#include <string_view>

#include "cli/run_config.h"

namespace qanat::cli {

// Throws ConfigError when this process could not even ask for its configuration.
void check_needs(std::string_view role);
// The same, having passed the first, when its connections in such a run would take more descriptors than there are.
void check_needs(std::string_view role, const RunConfig& config);
// The same for all processes of a run on this machine: each has as many descriptors as this one, and all of them share
// the user's processes and threads.
void check_needs_of_run(const RunConfig& config);

// For how many actors and evaluators a process of so many descriptors suffices, whichever role it has in such a run.
[[nodiscard]] std::uint64_t most_actors(std::uint64_t descriptors, const RunConfig& config);

}  // namespace qanat::cli
