// What the kernel says of processes: states, starts, and who holds a lock.
#include "core/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/files.h"
#include "temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;

namespace {

// A child that waits to be killed.
class Waiting {
 public:
  Waiting() : pid_(fork()) {
    if (pid_ == 0) {
      for (;;) pause();
    }
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  ~Waiting() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

}  // namespace

TEST_CASE("process: its state and start, as long as it is there") {
  const auto self = process_state(getpid());
  REQUIRE(self);
  CHECK(self->state == 'R');
  pid_t pid = 0;
  {
    const Waiting child;
    pid = child.pid();
    const auto start = process_state(pid)->start;
    CHECK(start >= self->start);
    kill(pid, SIGSTOP);
    int how = 0;
    REQUIRE(waitpid(pid, &how, WUNTRACED) == pid);
    CHECK(process_state(pid)->state == 'T');
    CHECK(process_state(pid)->start == start);
    kill(pid, SIGKILL);
    siginfo_t info{};
    REQUIRE(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) == 0);
    CHECK(process_state(pid)->state == 'Z');
  }
  CHECK_FALSE(process_state(pid));
  CHECK(command_line(pid).empty());
  CHECK(command_line(getpid()).size() >= 1);
}

TEST_CASE("process: a lock's holders are those that inherited it, and not who merely has the file open") {
  const test::TemporaryDirectory directory;
  const auto path = directory / "lock";
  const FileDescriptor lock(open(path.c_str(), O_RDWR | O_CREAT, 0600));
  REQUIRE(flock(lock.get(), LOCK_EX | LOCK_NB) == 0);
  const Waiting heir;
  CHECK(processes_holding(lock.get()) == std::vector<pid_t>{heir.pid()});
  const FileDescriptor reader(open(path.c_str(), O_RDONLY));
  CHECK(processes_holding(reader.get()) == std::vector<pid_t>{heir.pid()});
  REQUIRE(flock(lock.get(), LOCK_UN) == 0);
  CHECK(processes_holding(lock.get()).empty());
}
