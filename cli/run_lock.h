// The lock of a run's directory: two runs at once in one directory would ruin it.
//
// Held by all processes of a run that its first process starts, for they inherit it: the kernel gives it back when the
// last of them ends, however it ends. RUN_DIR/lock says who took it: role, pid, host and since when. Move only.
#pragma once

#include <filesystem>
#include <string>

#include "core/files.h"

namespace qanat::cli {

class RunLock {
 public:
  RunLock() = default;
  // For a process of that role, which starts the run. Throws ConfigError that names the holder when the run still goes
  // on.
  RunLock(const std::filesystem::path& run_dir, const std::string& role);

  // The same, for a run to go on with. When the one who took the lock is dead, whatever else of that run still lives is
  // waited for, as long as it may take to end by itself, and then killed, each with a line on standard error.
  [[nodiscard]] static RunLock take_over(const std::filesystem::path& run_dir, const std::string& role);

 private:
  explicit RunLock(const std::filesystem::path& run_dir);  // opened only
  [[nodiscard]] bool take(const std::string& role);
  [[nodiscard]] std::string still_goes_on() const;
  void end_leftovers(const std::string& role, const std::string& holder);

  std::filesystem::path path_;
  FileDescriptor file_;
};

}  // namespace qanat::cli
