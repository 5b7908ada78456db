// An environment in a process of its own, as a table of "qanat/env.h".
//
// Which program hosts it is the caller's business (envs/host/launch.h). This part watches over it: a call that takes
// longer than its limit, and a process that ends, are faults. The process is killed and started again after a pause
// that grows with the faults of late; every running episode ends as truncated, at the observation its agent saw last
// and with reward 0 for the action under way; new episodes begin from seeds derived from the old. Faults are told in
// EnvHandle::events. `most_faults` of them within `fault_window` end it: the call then fails with the first cause, and
// given_up is set. An error that the environment raises itself is none of these: it is handed on, and the process
// stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/clock.h"
#include "envs/env_handle.h"
#include "envs/host/protocol.h"

namespace qanat::envs::host {

inline constexpr std::size_t usual_most_faults = 5;
inline constexpr std::chrono::minutes fault_window{10};

struct HostOptions {
  std::string id;                      // how errors call it
  std::vector<std::string> arguments;  // the program and its arguments
  Request request;
  std::size_t slots = 1;
  Seconds start_limit{60};  // until an environment is made
  Seconds reset_limit{30};  // of one slot; half a second for each slot is added where all are reset at once
  Seconds step_limit{10};   // of one slot, or of all where they are stepped at once
  Seconds close_limit{5};   // of all
  std::size_t most_faults = usual_most_faults;
  Seconds first_pause{0.1};  // before the first restart; three times as long before each further one
};

// Starts the process. Throws ConfigError when it refuses or cannot be run, InputError, RunError and SystemError as
// HostProcess.
[[nodiscard]] EnvHandle create_hosted(HostOptions options);

}  // namespace qanat::envs::host
