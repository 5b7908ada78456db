#include "cli/run_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <map>
#include <sstream>
#include <thread>
#include <vector>

#include "cli/roles.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/process.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

// After the longest that an orphan takes to end by itself.
constexpr Seconds ends_by_itself = orphan_limit + Seconds(2);
constexpr Seconds killed_within{5};
constexpr Milliseconds look_every{50};

std::string now_text() {
  const auto now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char out[32];
  std::strftime(out, sizeof out, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return out;
}

// Who wrote a lock file, field by field. One of an older program, or one that is just being written, has none.
std::map<std::string, std::string> fields_of(const fs::path& path) {
  std::map<std::string, std::string> out;
  std::istringstream lines(read_text_file(path, 4096));
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.find(": ");
    if (colon != std::string::npos) out[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return out;
}

template <class Number>
Number number(const std::map<std::string, std::string>& fields, const char* name) {
  Number out{};
  const auto found = fields.find(name);
  if (found == fields.end()) return out;
  std::from_chars(found->second.data(), found->second.data() + found->second.size(), out);
  return out;
}

std::string describe(const std::map<std::string, std::string>& holder) {
  if (!holder.contains("since")) return "by whom is not known";
  return text(holder.at("role"), ", pid ", holder.at("pid"), " on ", holder.at("host"), " since ", holder.at("since"));
}

// On this machine; of others nothing is known, and they count as alive.
bool is_dead(const std::map<std::string, std::string>& holder) {
  if (!holder.contains("since") || holder.at("host") != host_name()) return false;
  const auto state = process_state(number<pid_t>(holder, "pid"));
  return !state || state->state == 'Z' || state->start != number<std::uint64_t>(holder, "start");
}

// "learner-0 (pid 5)", as its command line says.
std::string describe(pid_t pid) {
  const auto words = command_line(pid);
  std::string out = words.size() > 1 ? words[1] : words.empty() ? "a process" : words[0];
  for (std::size_t i = 2; i + 1 < words.size(); ++i) {
    if (words[i] == "--index") out += text('-', words[i + 1]);
  }
  return text(out, " (pid ", pid, ')');
}

bool all_stopped(const std::vector<pid_t>& pids) {
  for (const auto pid : pids) {
    const auto state = process_state(pid);
    if (state && state->state != 'T' && state->state != 't') return false;
  }
  return !pids.empty();
}

}  // namespace

RunLock::RunLock(const fs::path& run_dir) : path_(run_dir / "lock") {
  // Not closed on exec: as long as a process of the run lives, the run is not free.
  file_ = FileDescriptor(open(path_.c_str(), O_RDWR | O_CREAT, 0644));
  if (!file_) throw_system_error("open", path_, errno);
}

RunLock::RunLock(const fs::path& run_dir, const std::string& role) : RunLock(run_dir) {
  if (!take(role)) throw ConfigError(still_goes_on());
}

std::string RunLock::still_goes_on() const {
  return text("the run in ", path_.parent_path().string(), " still goes on: ", describe(fields_of(path_)),
              "; end it, or wait for its processes to end");
}

bool RunLock::take(const std::string& role) {
  if (flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw_system_error("lock", path_, errno);
    return false;
  }
  const auto self = process_state(getpid());
  const auto holder = text("role: ", role, "\npid: ", getpid(), "\nstart: ", self ? self->start : 0,
                           "\nhost: ", host_name(), "\nsince: ", now_text(), '\n');
  if (ftruncate(file_.get(), 0) != 0 || pwrite(file_.get(), holder.data(), holder.size(), 0) < 0)
    throw_system_error("write", path_, errno);
  return true;
}

RunLock RunLock::take_over(const fs::path& run_dir, const std::string& role) {
  RunLock lock(run_dir);
  if (lock.take(role)) return lock;
  const auto holder = fields_of(lock.path_);
  if (!is_dead(holder)) throw ConfigError(lock.still_goes_on());
  lock.end_leftovers(role, describe(holder));
  return lock;
}

void RunLock::end_leftovers(const std::string& role, const std::string& holder) {
  const SteadyClock clock;
  const auto begin = clock.now();
  bool said = false;
  bool killed = false;
  while (!take(role)) {
    if (!is_dead(fields_of(path_))) throw ConfigError(still_goes_on());  // somebody else has taken it over
    const auto left = processes_holding(file_.get());
    const auto waited = clock.now() - begin;
    if (!said) {
      std::string names;
      for (const auto pid : left) names += (names.empty() ? "" : ", ") + describe(pid);
      std::fprintf(stderr,
                   "qanat: of the run before (%s), which is dead, these still live: %s; waiting for them to end\n",
                   holder.c_str(), names.c_str());
      said = true;
    }
    if (!killed && (waited > ends_by_itself || all_stopped(left))) {
      killed = true;
      for (const auto pid : left) {
        std::fprintf(stderr, "qanat: killed %s, a leftover of the run before\n", describe(pid).c_str());
        kill(pid, SIGKILL);
      }
    }
    if (waited > ends_by_itself + killed_within) {
      throw ConfigError(text("processes of the run before (", holder, ") hold ", path_.string(),
                             " and cannot be ended: end them first"));
    }
    std::this_thread::sleep_for(look_every);
  }
}

}  // namespace qanat::cli
