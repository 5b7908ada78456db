// A process's log: one line a message, to a file, to standard error, or both.
//
//   2025-03-01T12:00:00.123Z INFO  actor-3: joined tcp://head:5555
//
// Thread safe without a lock: each line is one write() to a descriptor in append mode, so lines of several threads
// (and processes) never mix, and a SIGKILL loses nothing that was said. After construction nothing throws: a line
// that cannot be written (full disk) is counted in dropped(). There is no global logger: pass it as a reference.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/files.h"

namespace qanat {

enum class LogLevel : std::uint8_t { debug = 0, info = 1, warn = 2, error = 3 };

struct LogOptions {
  std::string who;                  // "learner-0": role and index
  std::filesystem::path path;       // appended to; empty: no file
  bool to_stderr = true;            // may be set beside a path
  LogLevel level = LogLevel::info;  // what is below it is not written
};

class Logger {
 public:
  // Throws SystemError when the file cannot be opened. Its directory must exist.
  explicit Logger(LogOptions options);
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  // The parts are joined as by text(); formatting costs nothing when the level is not written.
  template <class... Parts>
  void debug(const Parts&... parts) noexcept {
    say(LogLevel::debug, parts...);
  }
  template <class... Parts>
  void info(const Parts&... parts) noexcept {
    say(LogLevel::info, parts...);
  }
  template <class... Parts>
  void warn(const Parts&... parts) noexcept {
    say(LogLevel::warn, parts...);
  }
  template <class... Parts>
  void error(const Parts&... parts) noexcept {
    say(LogLevel::error, parts...);
  }

  [[nodiscard]] bool enabled(LogLevel level) const { return level >= options_.level; }
  // Lines lost because they could not be formatted or written.
  [[nodiscard]] std::uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  template <class... Parts>
  void say(LogLevel level, const Parts&... parts) noexcept {
    if (!enabled(level)) return;
    try {
      write(level, text(parts...));
    } catch (...) {
      dropped_.fetch_add(1, std::memory_order_relaxed);  // a lone counter: nothing is ordered by it
    }
  }

  // One line, whatever the message holds: control characters are escaped, so a peer's text cannot forge lines.
  void write(LogLevel level, std::string_view message);

  LogOptions options_;
  FileDescriptor file_;
  std::atomic<std::uint64_t> dropped_{0};
};

}  // namespace qanat
