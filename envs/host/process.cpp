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
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "core/limits.h"
#include "envs/host/keeper.h"

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
// A keeper ends everything in some milliseconds; one that hangs in the kernel is not waited for.
constexpr Nanoseconds keeper_limit = std::chrono::seconds(10);

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

// The child gave no answer in time; what() says how it was with it.
class LateAnswer : public RunError {
 public:
  using RunError::RunError;
};

std::string describe_status(int raw) {
  if (WIFEXITED(raw)) return text("it ended with exit code ", WEXITSTATUS(raw));
  return text("it was killed by signal ", WTERMSIG(raw), " (", strsignal(WTERMSIG(raw)), ")");
}

}  // namespace

// In tests the running program is not qanat itself.
std::string own_program() {
  const char* named = std::getenv("QANAT_PROGRAM");
  return named != nullptr && *named != '\0' ? named : "/proc/self/exe";
}

HostProcess::HostProcess(std::vector<std::string> arguments, std::function<void()> while_waiting)
    : program_(arguments.at(0)), while_waiting_(std::move(while_waiting)) {
  file_ = FileDescriptor(memfd_create("qanat-env", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file_) refuse("memfd_create");
  auto to = make_pipe();
  auto from = make_pipe();
  auto report = make_pipe();
  const std::array handed{report[1].get(), file_.get(), to[0].get(), from[1].get()};
  arguments.insert(arguments.begin(), {own_program(), "env", "keep", std::to_string(report[1].get())});
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
    restore_signals();
    prctl(PR_SET_PDEATHSIG, keeper_ends);
    if (getppid() != parent) _exit(1);  // it died before we could ask
    setpgid(0, 0);                      // Ctrl-C is the parent's business
    dup2(nothing.get(), STDIN_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);  // what an environment prints belongs in the log
    for (const int fd : handed) fcntl(fd, F_SETFD, 0);
    restore_descriptor_limit();
    execvp(argv[0], argv.data());
    const KeeperReport not_run{KeeperReport::Kind::keeper_not_run, errno};
    [[maybe_unused]] const auto written = write(report[1].get(), &not_run, sizeof not_run);
    _exit(127);
  }
  to_read_ = std::move(to[0]);
  to_write_ = std::move(to[1]);
  from_ = std::move(from[0]);
  report_ = std::move(report[0]);
}

HostProcess::~HostProcess() {
  try {
    kill();
  } catch (const Error&) {
    // It says that the program could not be run, and nobody is left to be told.
  }
}

std::string HostProcess::kill(bool has_closed) {
  if (pid_ <= 0) return "it was not running";
  // Its end of the pipe closes a moment before its end is known.
  const bool told = has_closed && wait_for_report(std::chrono::seconds(1));
  if (!told) {
    ::kill(pid_, keeper_ends);
    ::kill(pid_, SIGCONT);
  }
  KeeperReport report;
  const bool here = wait_for_report(keeper_limit) && read(report_.get(), &report, sizeof report) == sizeof report;
  if (!here) {
    ::kill(-pid_, SIGKILL);
    ::kill(pid_, SIGKILL);
  }
  int raw = 0;
  while (waitpid(pid_, &raw, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  if (!here) return text(describe_status(raw), ", the process that watched over it");
  using Kind = KeeperReport::Kind;
  switch (report.kind) {
    case Kind::ended:
      return describe_status(report.value);
    case Kind::stopped:
      return "it was stopped";
    case Kind::running:
      return "it was running";
    case Kind::not_run:
      throw ConfigError(text("cannot run '", program_, "': ", std::strerror(report.value)));
    case Kind::keeper_not_run:
      break;
  }
  throw SystemError(text("cannot run '", own_program(), "': ", std::strerror(report.value)));
}

bool HostProcess::wait_for_report(Nanoseconds limit) const {
  const auto deadline = now() + limit;
  while (true) {
    const auto left = std::max(deadline - now(), Nanoseconds(0));
    pollfd bell{.fd = report_.get(), .events = POLLIN, .revents = 0};
    const int ready = poll(&bell, 1, static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(left).count()));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
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
    if (!wait_readable(deadline)) throw LateAnswer(kill());
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

Description HostProcess::describe(const Request& request, std::size_t slots, Seconds limit) {
  send(encode(request));
  for (std::size_t made = 0;; ++made) {
    try {
      const auto bytes = receive(now() + std::chrono::duration_cast<Nanoseconds>(limit));
      if (!bytes.empty()) return decode_description(bytes, text("'", program_, "'"));
    } catch (const LateAnswer& late) {
      // Of several single ones, the first is reset to see what it gives once all are made.
      const bool all = made == 0 || made >= slots;
      throw RunError(text(made == 0       ? text("making it")
                          : made >= slots ? text("the first reset after making it")
                                          : text("making number ", made + 1, " of ", slots),
                          " took longer than ", limit.count(), " s (env.make_timeout_seconds",
                          all ? ", and half a second for each of its slots" : "", "); ", late.what()));
    }
    if (made > slots) throw InputError(text("'", program_, "' says that it made more than ", slots, " environments"));
  }
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

Answer HostProcess::call(Command command, const CallLimits& limits) {
  Control& control = memory_.control();
  const auto begin = now();
  control.command = static_cast<std::uint32_t>(command);
  control.think_ns = static_cast<std::uint32_t>(std::min<std::int64_t>((begin - answered_).count(), UINT32_MAX));
  control.request.store(++number_, std::memory_order_release);
  control.note_size = 0;
  const char bell = 1;
  busy_ = true;
  if (write(to_write_.get(), &bell, 1) != 1) refuse("write");
  control.rung.store(number_, std::memory_order_relaxed);  // a hint, as below
  const auto answer = wait_bell(number_, command, limits);
  if (!answer) return Answer::timed_out;
  busy_ = false;
  if (*answer == 0) return Answer::died;
  answered_ = now();
  // A moving average over about eight steps decides whether the next one is spun for.
  if (command == Command::step) usual_work_ += (Nanoseconds(control.work_ns) - usual_work_) / 8;
  return control.failed != 0 ? Answer::failed : Answer::ok;
}

// 1: it answered; 0: its end of the pipe is closed, or it broke the rules; nothing: the deadline passed.
std::optional<char> HostProcess::wait_bell(std::uint32_t number, Command command, const CallLimits& limits) {
  const Control& control = memory_.control();
  Stage stage = this->stage(command);
  auto deadline = now() + limits.of(stage);
  // A slot is stepped once and reset once a call: who says more than that only plays for time.
  std::size_t stages_left = 2 * slots_ + 2;
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
    // What the child is at is looked at every tenth of a second: each part of a call has its time for itself.
    if (!wait_readable(std::min(deadline, now() + longest_sleep))) {
      const Stage is = this->stage(command);
      if (!(is == stage) && stages_left > 0) {
        --stages_left;
        stage = is;
        deadline = now() + limits.of(stage);
      }
      if (now() >= deadline) return std::nullopt;
      continue;
    }
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

std::string HostProcess::take_note() {
  Control& control = memory_.control();
  const std::size_t size = std::min<std::size_t>(control.note_size, Control::note_bytes);
  control.note_size = 0;
  return {control.note.data(), size};
}

Stage HostProcess::stage(Command command) const {
  const auto phase = static_cast<Phase>(memory_.control().phase.load(std::memory_order_relaxed));
  return {progress(), command == Command::reset || phase == Phase::in_reset};
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
