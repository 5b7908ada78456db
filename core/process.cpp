#include "core/process.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>

#include "core/error.h"

namespace qanat {
namespace {

// The whole of a file in /proc, empty when it cannot be read: its process may end at any moment.
std::string read_proc(pid_t pid, const std::string& name) {
  std::ifstream file(text("/proc/", pid, '/', name));
  return {std::istreambuf_iterator<char>(file), {}};
}

// The names in a directory that are numbers.
std::vector<int> numbers_in(const std::string& path) {
  std::vector<int> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  if (!directory) return out;
  while (const auto* entry = readdir(directory.get())) {
    const std::string name = entry->d_name;
    int number = 0;
    const auto [end, wrong] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (wrong == std::errc{} && end == name.data() + name.size()) out.push_back(number);
  }
  return out;
}

}  // namespace

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

std::optional<ProcessState> process_state(pid_t pid) {
  const auto words = read_proc(pid, "stat");
  // The second field is the program's name in parentheses, and may hold anything. The state follows it, and the start
  // is the 22nd field.
  const auto name_end = words.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream rest(words.substr(name_end + 1));
  ProcessState out;
  if (!(rest >> out.state)) return std::nullopt;
  std::string skipped;
  for (int field = 4; field < 22; ++field) rest >> skipped;
  if (!(rest >> out.start)) return std::nullopt;
  return out;
}

std::vector<std::string> command_line(pid_t pid) {
  std::vector<std::string> out;
  std::istringstream words(read_proc(pid, "cmdline"));
  for (std::string word; std::getline(words, word, '\0');) out.push_back(word);
  return out;
}

std::vector<pid_t> processes_holding(int fd) {
  std::vector<pid_t> out;
  struct stat wanted {};
  if (fstat(fd, &wanted) != 0) return out;
  for (const auto pid : numbers_in("/proc")) {
    if (pid == getpid()) continue;
    for (const auto number : numbers_in(text("/proc/", pid, "/fd"))) {
      struct stat seen {};
      if (stat(text("/proc/", pid, "/fd/", number).c_str(), &seen) != 0) continue;
      if (seen.st_dev != wanted.st_dev || seen.st_ino != wanted.st_ino) continue;
      // Whoever merely reads the file has no such line.
      if (read_proc(pid, text("fdinfo/", number)).find("FLOCK") == std::string::npos) continue;
      out.push_back(pid);
      break;
    }
  }
  return out;
}

}  // namespace qanat
