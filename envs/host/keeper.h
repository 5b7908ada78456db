// The process between a role and a hosted environment's own: it outlives neither, and leaves nothing of them behind.
//
// Environments start processes of their own, some in sessions of their own, where no signal to a group reaches them.
// The keeper is their subreaper: whoever's parent ends becomes its child, so that it can find all of them. It ends them
// all when the environment's process ends, when its own parent asks (SIGUSR1) and when its parent is dead, however it
// died. What goes to a whole group or service (Ctrl-C, SIGTERM) it ignores; the environment's process begins with every
// signal's disposition as a new program expects it.
#pragma once

#include <csignal>
#include <cstdint>
#include <span>
#include <string>

namespace qanat::envs::host {

// Asks a keeper to end everything; its parent's death sends it too.
inline constexpr int keeper_ends = SIGUSR1;

// How it was with the environment's process before the keeper ended what was left. Written once, when all is gone.
struct KeeperReport {
  enum class Kind : std::int32_t { ended, running, stopped, not_run, keeper_not_run };
  Kind kind = Kind::running;
  std::int32_t value = 0;  // ended: as from waitpid(); not_run, keeper_not_run: errno
};

// Whether `arguments` (the program's name left out) are those of a keeper: "env", "keep", REPORT, program ...
[[nodiscard]] bool is_keeper(std::span<char* const> arguments);

// The keeper's whole life. `arguments`: as above, with a null pointer behind the last one. The last three arguments of
// the program are descriptors that only it shall hold. Returns the exit code.
int keep(std::span<char* const> arguments);

// Every signal's disposition as it is in a new program, but for what was ignored at the user's wish (nohup).
// Async-signal-safe.
void restore_signals();

}  // namespace qanat::envs::host
