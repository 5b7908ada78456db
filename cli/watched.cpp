#include "cli/watched.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <thread>

#include "cli/child.h"
#include "core/error.h"
#include "core/files.h"

namespace qanat::cli {
namespace {

constexpr int exit_of_a_throw = 1;

// What a child leaves for its parent.
struct Report {
  envs::ProbeProgress progress;
  std::size_t length = 0;
  char words[4096] = {};
};

// A report in memory that a child shares.
class SharedReport {
 public:
  SharedReport() {
    void* at = mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw_system_error("map shared memory for", "an environment's process", errno);
    report_ = new (at) Report;
  }
  ~SharedReport() { munmap(report_, sizeof(Report)); }
  SharedReport(const SharedReport&) = delete;
  SharedReport& operator=(const SharedReport&) = delete;
  [[nodiscard]] Report& operator*() const { return *report_; }

 private:
  Report* report_;
};

// What a child process does: everything ends here, nothing of the parent's is destroyed or flushed twice.
[[noreturn]] void run_in_child(const WatchedBody& body, Report& report) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int code = exit_of_a_throw;
  std::string words;
  try {
    code = body(report.progress, words);
  } catch (const std::exception& error) {
    words = error.what();
  }
  report.length = std::min(words.size(), sizeof report.words);
  std::memcpy(report.words, words.data(), report.length);
  std::fflush(stdout);
  report.progress.finished = true;
  _exit(code);
}

std::int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

std::string call_text(const envs::ProbeProgress& progress) {
  const char* call = progress.call;
  if (call == nullptr) return "outside any call";
  const auto step = progress.step.load();
  return step > 0 ? text("in ", call, ", step ", step, " of the batch") : text("in ", call);
}

}  // namespace

WatchedResult watched(const WatchedBody& body, double call_seconds) {
  const SharedReport shared;
  Report& report = *shared;
  const auto& progress = report.progress;
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) throw SystemError(text("cannot start a process for the environment: ", std::strerror(errno)));
  if (child == 0) run_in_child(body, report);
  int status = 0;
  auto pause = std::chrono::microseconds(200);
  while (true) {
    const pid_t got = waitpid(child, &status, WNOHANG);
    if (got == child) break;
    if (got < 0 && errno != EINTR) throw SystemError(text("cannot wait for the environment: ", std::strerror(errno)));
    const char* call = progress.call;
    const double in_call = static_cast<double>(now_ns() - progress.entered.load()) * 1e-9;
    if (call != nullptr && in_call > 2 * call_seconds + 1) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return {0, "",
              envs::Finding{"hang", text(call_text(progress), ": it has not come back after ", in_call,
                                         " s, wanted at most ", call_seconds, " s")}};
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(10'000));
  }
  if (WIFEXITED(status) && progress.finished)
    return {WEXITSTATUS(status), std::string(report.words, report.length), std::nullopt};
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {0, "",
          envs::Finding{"crash", text("the process of the environment ended with ", describe_end(code), " ",
                                      call_text(progress))}};
}

}  // namespace qanat::cli
