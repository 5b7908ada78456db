// What can go wrong with the outside world, as exceptions that say what was seen and what was wanted.
//
// Expected outcomes (would block, timeout, stale handle) are return values, never exceptions; bugs are
// asserts. Everything here is thrown by value and caught at a thread's or a process's boundary.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace qanat {

// Concatenates its arguments with operator<<. For messages, not for hot paths.
template <class... Parts>
[[nodiscard]] std::string text(const Parts&... parts) {
  std::ostringstream out;
  out.precision(9);
  (out << ... << parts);
  return out.str();
}

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A setting, flag or schema the user can mend. Exit code 2.
class ConfigError : public Error {
 public:
  using Error::Error;
};

// Bytes from outside (wire, file, plug-in) that are not what they must be.
class InputError : public Error {
 public:
  using Error::Error;
};

// The operating system or a library refused: file, socket, process, memory.
class SystemError : public Error {
 public:
  using Error::Error;
};

// The run cannot go on: a peer is gone, training diverged, the environment keeps failing.
class RunError : public Error {
 public:
  using Error::Error;
};

}  // namespace qanat
