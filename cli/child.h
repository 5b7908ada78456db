// A child process running a subcommand of this very executable.
//
// Move only; the destructor kills and reaps what is still running, so no path out of the supervisor leaves a
// process behind. When the supervisor itself dies, the kernel sends the child `on_parent_death`.
#pragma once

#include <sys/types.h>

#include <array>
#include <csignal>
#include <optional>
#include <string>
#include <vector>

namespace qanat::cli {

// What asks a process to end in good order. A terminal or a scheduler often sends them to all processes of a job.
inline constexpr std::array requests_to_end{SIGINT, SIGTERM, SIGHUP, SIGUSR1};

class Child {
 public:
  // Throws SystemError when the process cannot be made. `log`: its standard output and error are appended there. It
  // starts with requests to end ignored, and inherits every file that is not closed on exec.
  Child(std::vector<std::string> arguments, const std::string& log, int on_parent_death);
  Child(Child&& other) noexcept;
  Child& operator=(Child&& other) noexcept;
  ~Child();

  [[nodiscard]] pid_t pid() const { return pid_; }
  // How it ended, once it has: the exit code, or 128 + the signal. Never blocks.
  std::optional<int> poll();
  [[nodiscard]] bool running() { return !poll().has_value(); }
  void signal(int number);

 private:
  pid_t pid_ = -1;
  std::optional<int> status_;
};

// "exit code 1", "killed by signal 9 (Killed)"
[[nodiscard]] std::string describe_end(int status);

}  // namespace qanat::cli
