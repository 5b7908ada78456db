// The directory of a run's ipc sockets.
#pragma once

#include <filesystem>
#include <string_view>

#include "core/files.h"

namespace qanat::cli {

// Its name, for mkdtemp.
inline constexpr std::string_view socket_directory_pattern = "qanat-XXXXXX";

// In TMPDIR, or in /tmp when that is too long for sockets; gone afterwards. What is killed cannot tidy up: directories
// beside it whose run is dead are removed when the next one is made. A lock that all of a run's processes inherit tells
// the living from the dead.
class SocketDirectory {
 public:
  // Throws ConfigError when TMPDIR is not what it must be.
  SocketDirectory();
  ~SocketDirectory();
  SocketDirectory(const SocketDirectory&) = delete;
  SocketDirectory& operator=(const SocketDirectory&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  FileDescriptor owner_;
};

}  // namespace qanat::cli
