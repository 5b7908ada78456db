#include "cli/child.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace qanat::cli {

Child::Child(std::vector<std::string> arguments, const std::string& log, int on_parent_death) {
  std::vector<char*> argv;
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const auto parent = getpid();
  int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  // Where nothing can be written any more, its words are lost and not the run.
  if (out < 0) out = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (out < 0) throw SystemError(text("cannot open '", log, "': ", std::strerror(errno)));
  pid_ = fork();
  if (pid_ < 0) {
    close(out);
    throw SystemError(text("cannot start a process: ", std::strerror(errno)));
  }
  if (pid_ == 0) {
    // Only async-signal-safe calls from here on.
    // They go to the whole group, also in the moment before the new program has said that it ignores them.
    for (const int number : requests_to_end) ::signal(number, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, on_parent_death);
    if (getppid() != parent) _exit(1);  // it died before we could ask
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execv("/proc/self/exe", argv.data());
    _exit(127);
  }
  close(out);
}

Child::Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)), status_(other.status_) {}

Child& Child::operator=(Child&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(status_, other.status_);
  return *this;
}

Child::~Child() {
  if (pid_ <= 0 || poll()) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::optional<int> Child::poll() {
  if (status_ || pid_ <= 0) return status_;
  int raw = 0;
  const auto got = waitpid(pid_, &raw, WNOHANG);
  if (got == pid_) status_ = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
  if (got < 0 && errno == ECHILD) status_ = 127;
  return status_;
}

void Child::signal(int number) {
  if (running()) kill(pid_, number);
}

std::string describe_end(int status) {
  if (status < 128) return text("exit code ", status);
  return text("killed by signal ", status - 128, " (", strsignal(status - 128), ")");
}

}  // namespace qanat::cli
