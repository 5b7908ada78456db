// Processes of this machine, as the kernel knows them.
//
// A pid alone names a process only while it lives: the kernel hands it out again. With the time of its start it names
// one for as long as the machine is up.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qanat {

[[nodiscard]] std::string host_name();

struct ProcessState {
  char state = '?';         // as ps shows it: 'R', 'S', 'T' is stopped, 'Z' is dead and not reaped
  std::uint64_t start = 0;  // clock ticks after the machine's
};
// None when there is no such process, or it is not to be seen.
[[nodiscard]] std::optional<ProcessState> process_state(pid_t pid);

// The words it was started with; empty when it is gone or not ours to see.
[[nodiscard]] std::vector<std::string> command_line(pid_t pid);

// Other processes that hold a lock (flock) by this open file, as those do that inherited it. Those of other users are
// not seen.
[[nodiscard]] std::vector<pid_t> processes_holding(int fd);

}  // namespace qanat
