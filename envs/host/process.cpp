#include "envs/host/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "core/error.h"
#include "core/limits.h"

namespace qanat::envs::host {
namespace {

// A child that usually works for less than `worth_spinning` is waited for without sleeping, up to twice that time. To
// wake a sleeper costs 35 us each way on the machine this was measured on (pipe, eventfd and socket alike; pipe and
// spinning: 2 us both ways). Slower environments are slept for: the wake-up is then a small part. Judged by the child's
// own working time: the time we wait holds its wake-up too, so that one slow answer would make all others slow.
constexpr Nanoseconds worth_spinning = std::chrono::microseconds(200);
constexpr Nanoseconds longest_spin = std::chrono::microseconds(400);
constexpr Nanoseconds waking = std::chrono::microseconds(80);  // one sleep of the child does not make us sleep too
constexpr int looks_between_times = 64;
// Between two calls of while_waiting. A role's heartbeats are as far apart.
constexpr Nanoseconds longest_sleep = std::chrono::milliseconds(100);

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

Nanoseconds now() {
  return std::chrono::duration_cast<Nanoseconds>(std::chrono::steady_clock::now().time_since_epoch());
}

[[noreturn]] void refuse(const char* what) {
  throw SystemError(text("cannot start an environment host: ", what, ": ", std::strerror(errno)));
}

std::array<FileDescriptor, 2> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) refuse("pipe");
  return {FileDescriptor(ends[0]), FileDescriptor(ends[1])};
}

std::string describe_status(int raw) {
  if (WIFEXITED(raw)) return text("it ended with exit code ", WEXITSTATUS(raw));
  return text("it was killed by signal ", WTERMSIG(raw), " (", strsignal(WTERMSIG(raw)), ")");
}

}  // namespace

HostProcess::HostProcess(std::vector<std::string> arguments, std::function<void()> while_waiting)
    : program_(arguments.at(0)), while_waiting_(std::move(while_waiting)) {
  file_ = FileDescriptor(memfd_create("qanat-env", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file_) refuse("memfd_create");
  auto to = make_pipe();
  auto from = make_pipe();
  auto failure = make_pipe();  // tells that exec failed; closed when it works
  for (const int fd : {file_.get(), to[0].get(), from[1].get()}) arguments.push_back(std::to_string(fd));
  std::vector<char*> argv;
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const FileDescriptor nothing(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto parent = getpid();
  pid_ = fork();
  if (pid_ < 0) refuse("fork");
  if (pid_ == 0) {
    // Only async-signal-safe calls from here on.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);  // it died before we could ask
    setpgid(0, 0);                      // Ctrl-C is the parent's business, and kill() reaches the child's children
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    dup2(nothing.get(), STDIN_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);  // what an environment prints belongs in the log
    for (const int fd : {file_.get(), to[0].get(), from[1].get()}) fcntl(fd, F_SETFD, 0);
    restore_descriptor_limit();
    execvp(argv[0], argv.data());
    const int why = errno;
    [[maybe_unused]] const auto written = write(failure[1].get(), &why, sizeof why);
    _exit(127);
  }
  to_read_ = std::move(to[0]);
  to_write_ = std::move(to[1]);
  from_ = std::move(from[0]);
  {
    const FileDescriptor closed_here = std::move(from[1]);
    const FileDescriptor closed_too = std::move(failure[1]);
  }
  int why = 0;
  if (read(failure[0].get(), &why, sizeof why) == sizeof why) {
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
    throw ConfigError(text("cannot run '", program_, "': ", std::strerror(why)));
  }
}

HostProcess::~HostProcess() { kill(); }

std::string HostProcess::kill(bool has_closed) {
  if (pid_ <= 0) return "it was not running";
  int raw = 0;
  // Its end of the pipe closes a moment before it can be reaped.
  siginfo_t info{};
  for (int i = 0; has_closed && i < 1000 && info.si_pid == 0; ++i) {
    if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT | WNOHANG) != 0) break;
    if (info.si_pid == 0) usleep(1000);
  }
  std::string was = "it was running";
  const auto got = waitpid(pid_, &raw, WNOHANG | WUNTRACED);
  const bool ended = got == pid_ && !WIFSTOPPED(raw);
  if (got == pid_) was = ended ? describe_status(raw) : "it was stopped";
  ::kill(-pid_, SIGKILL);
  if (!ended) waitpid(pid_, nullptr, 0);
  pid_ = -1;
  return was;
}

bool HostProcess::wait_readable(Nanoseconds deadline) {
  while (true) {
    const auto left = deadline - now();
    if (left.count() <= 0) return false;
    const timespec limit{.tv_sec = 0, .tv_nsec = std::min(left, longest_sleep).count()};
    pollfd bell{.fd = from_.get(), .events = POLLIN, .revents = 0};
    const int ready = ppoll(&bell, 1, &limit, nullptr);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) refuse("poll");
    if (ready == 0) while_waiting_();
  }
}

void HostProcess::send(std::span<const std::byte> message) {
  // A pipe holds 64 KiB: what we send fits, so this never waits for a child that does not read.
  constexpr std::size_t pipe_bytes = 60 << 10;
  const std::uint64_t size = message.size();
  if (size > pipe_bytes) throw ConfigError(text("an environment's settings have ", size, " bytes, too many"));
  if (write(to_write_.get(), &size, sizeof size) != sizeof size) refuse("write");
  if (write(to_write_.get(), message.data(), size) != static_cast<ssize_t>(size)) refuse("write");
}

void HostProcess::read_exactly(std::byte* out, std::size_t size, Nanoseconds deadline) {
  while (size > 0) {
    if (!wait_readable(deadline)) throw RunError(text("'", program_, "' gave no answer in time; ", kill()));
    const auto got = read(from_.get(), out, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      throw ConfigError(text("'", program_, "' ended while the environment was being made: ", kill(true),
                             "; what it printed is above, or in the log"));
    }
    out += got;
    size -= static_cast<std::size_t>(got);
  }
}

std::vector<std::byte> HostProcess::receive(Nanoseconds deadline) {
  std::uint64_t size = 0;
  read_exactly(reinterpret_cast<std::byte*>(&size), sizeof size, deadline);
  if (size > max_message_bytes) {
    throw InputError(
        text("'", program_, "' sent a message of ", size, " bytes, at most ", max_message_bytes, " wanted"));
  }
  std::vector<std::byte> bytes(size);
  read_exactly(bytes.data(), bytes.size(), deadline);
  return bytes;
}

Description HostProcess::describe(const Request& request, Seconds limit) {
  const auto deadline = now() + std::chrono::duration_cast<Nanoseconds>(limit);
  send(encode(request));
  return decode_description(receive(deadline), text("'", program_, "'"));
}

void HostProcess::share(const Layout& layout, Seconds limit) {
  const auto deadline = now() + std::chrono::duration_cast<Nanoseconds>(limit);
  if (ftruncate(file_.get(), static_cast<off_t>(layout.total)) != 0) refuse("ftruncate");
  if (fcntl(file_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) refuse("seal");
  memory_ = SharedMemory(file_.get(), layout.total);
  slots_ = layout.slots;
  memory_.control().progress.store(-1, std::memory_order_relaxed);
  send(encode(layout));
  std::byte ready{};
  read_exactly(&ready, 1, deadline);
  if (ready != std::byte{1})
    throw InputError(text("'", program_, "' answered the layout with ", static_cast<int>(ready)));
}

Answer HostProcess::call(Command command, Nanoseconds limit) {
  Control& control = memory_.control();
  const auto begin = now();
  control.command = static_cast<std::uint32_t>(command);
  control.think_ns = static_cast<std::uint32_t>(std::min<std::int64_t>((begin - answered_).count(), UINT32_MAX));
  control.request.store(++number_, std::memory_order_release);
  const char bell = 1;
  if (write(to_write_.get(), &bell, 1) != 1) refuse("write");
  control.rung.store(number_, std::memory_order_relaxed);  // a hint, as below
  const auto answer = wait_bell(number_, begin + limit);
  if (!answer) return Answer::timed_out;
  if (*answer == 0) return Answer::died;
  answered_ = now();
  // A moving average over about eight steps decides whether the next one is spun for.
  if (command == Command::step) usual_work_ += (Nanoseconds(control.work_ns) - usual_work_) / 8;
  return control.failed != 0 ? Answer::failed : Answer::ok;
}

// 1: it answered; 0: its end of the pipe is closed, or it broke the rules; nothing: the deadline passed.
std::optional<char> HostProcess::wait_bell(std::uint32_t number, Nanoseconds deadline) {
  const Control& control = memory_.control();
  if (usual_work_ < worth_spinning) {
    const auto until = std::min(now() + std::min(longest_spin, 2 * usual_work_ + waking), deadline);
    // A hint only: the byte in the pipe is what orders memory.
    for (int i = 1; control.answered.load(std::memory_order_relaxed) != number; ++i) {
      relax();
      // No sched_yield(): on a busy machine it gives away whole milliseconds. Spinning is short enough without.
      if (i % looks_between_times == 0 && now() > until) break;
    }
  }
  while (true) {
    if (!wait_readable(deadline)) return std::nullopt;
    char byte = 0;
    const auto got = read(from_.get(), &byte, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return char{0};
    if (byte != 1 || control.response.load(std::memory_order_acquire) != number) return char{0};
    return char{1};
  }
}

std::string HostProcess::error() const {
  const Control& control = memory_.control();
  // The child may still write: the size is read once.
  const std::size_t size = std::min<std::uint64_t>(control.error_size, Control::error_bytes);
  return {control.error.data(), size};
}

std::int64_t HostProcess::error_slot() const {
  const std::int64_t slot = memory_.control().error_slot;
  return slot >= 0 && static_cast<std::uint64_t>(slot) < slots_ ? slot : -1;
}

std::int64_t HostProcess::progress() const {
  const std::int64_t slot = memory_.control().progress.load(std::memory_order_relaxed);
  return slot >= 0 && static_cast<std::uint64_t>(slot) < slots_ ? slot : -1;
}

}  // namespace qanat::envs::host
