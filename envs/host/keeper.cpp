#include "envs/host/keeper.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

namespace qanat::envs::host {
namespace {

constexpr int descriptors_of_program = 3;
// What the kernel has not ended by then hangs in it (a dead disk); it is not waited for.
constexpr int longest_end_ms = 8000;

sigset_t watched() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, keeper_ends);
  sigaddset(&set, SIGCHLD);
  return set;
}

// Signals that go to a group or a service as a whole: the parent decides what they mean for us.
constexpr int ignored[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGTSTP};

pid_t start(char* const* program) {
  int failure[2];
  if (pipe2(failure, O_CLOEXEC) != 0) return -1;
  const auto parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    setpgid(0, 0);
    restore_signals();
    execvp(program[0], program);
    const int why = errno;
    [[maybe_unused]] const auto written = write(failure[1], &why, sizeof why);
    _exit(127);
  }
  int why = pid < 0 ? errno : 0;
  close(failure[1]);
  if (pid > 0 && read(failure[0], &why, sizeof why) == sizeof why) waitpid(pid, nullptr, 0);
  close(failure[0]);
  errno = why;
  return why == 0 ? pid : -1;
}

// The parent's process id from the text of /proc/PID/stat; the name before it may hold anything, parentheses too.
pid_t parent_of(pid_t pid) {
  char path[32];
  std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  char line[512];
  const auto size = read(file, line, sizeof line - 1);
  close(file);
  if (size <= 0) return -1;
  line[size] = '\0';
  const char* behind_name = std::strrchr(line, ')');
  int parent = -1;
  char state = 0;
  return behind_name != nullptr && std::sscanf(behind_name + 1, " %c %d", &state, &parent) == 2 ? parent : -1;
}

void kill_children() {
  DIR* all = opendir("/proc");
  if (all == nullptr) return;
  const auto self = getpid();
  while (const dirent* entry = readdir(all)) {
    const pid_t pid = std::atoi(entry->d_name);
    if (pid > 0 && parent_of(pid) == self) kill(pid, SIGKILL);
  }
  closedir(all);
}

// Whose parent is killed becomes our child: that is repeated until there is none.
void end_all(pid_t program) {
  kill(-program, SIGKILL);
  for (int waited_ms = 0; waited_ms < longest_end_ms; ++waited_ms) {
    pid_t got = 0;
    while ((got = waitpid(-1, nullptr, WNOHANG)) > 0) {
    }
    if (got < 0 && errno == ECHILD) return;
    kill_children();
    usleep(1000);
  }
}

// Waits until the program has ended, or is to be ended.
KeeperReport watch(pid_t program, pid_t parent) {
  const sigset_t set = watched();
  while (true) {
    int raw = 0;
    pid_t got = 0;
    while ((got = waitpid(-1, &raw, WNOHANG)) > 0) {
      if (got == program) return {KeeperReport::Kind::ended, raw};
    }
    const bool ends = getppid() != parent;
    const int number = ends ? keeper_ends : sigwaitinfo(&set, nullptr);
    if (number != keeper_ends) continue;
    got = waitpid(program, &raw, WNOHANG | WUNTRACED);
    if (got != program) return {KeeperReport::Kind::running, 0};
    if (WIFSTOPPED(raw)) return {KeeperReport::Kind::stopped, 0};
    return {KeeperReport::Kind::ended, raw};
  }
}

}  // namespace

void restore_signals() {
  for (int number = 1; number < NSIG; ++number) {
    struct sigaction now = {};
    if (sigaction(number, nullptr, &now) != 0) continue;
    if (number == SIGHUP && now.sa_handler == SIG_IGN) continue;
    now = {};
    now.sa_handler = SIG_DFL;
    sigaction(number, &now, nullptr);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool is_keeper(std::span<char* const> arguments) {
  return arguments.size() > 3 + descriptors_of_program && std::string_view(arguments[0]) == "env" &&
         std::string_view(arguments[1]) == "keep";
}

int keep(std::span<char* const> arguments) {
  const auto parent = getppid();
  const int report_to = std::atoi(arguments[2]);
  fcntl(report_to, F_SETFD, FD_CLOEXEC);
  const sigset_t set = watched();
  sigprocmask(SIG_BLOCK, &set, nullptr);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t program = start(arguments.data() + 3);
  const int why = errno;
  // Only the program holds these: that it ended is seen by its pipe's end.
  for (const char* number : arguments.last(descriptors_of_program)) close(std::atoi(number));
  for (const int number : ignored) std::signal(number, SIG_IGN);
  KeeperReport report{KeeperReport::Kind::not_run, why};
  if (program > 0) {
    report = watch(program, parent);
    end_all(program);
  }
  return write(report_to, &report, sizeof report) == sizeof report ? 0 : 1;
}

}  // namespace qanat::envs::host
