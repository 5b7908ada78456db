// An environment's calls in a process of their own, so that one that crashes or hangs does not take the program along.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "envs/check.h"
#include "envs/probe.h"

namespace qanat::cli {

// Runs in the child, whose exit code it returns; `words` (some thousand bytes at most) go to the parent.
using WatchedBody = std::function<int(envs::ProbeProgress& progress, std::string& words)>;

struct WatchedResult {
  int code = 0;
  std::string words;
  std::optional<envs::Finding> fault;  // "crash" or "hang": there is no code and there are no words then
};

// Forks, and waits for the child's end. A call that `body` marks in `progress` and that lasts longer than twice
// `call_seconds` and a second is a hang: the child is killed. Throws SystemError when there is no process to be had.
[[nodiscard]] WatchedResult watched(const WatchedBody& body, double call_seconds);

}  // namespace qanat::cli
