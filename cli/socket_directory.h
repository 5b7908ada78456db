// The directory of a run's ipc sockets.
#pragma once

#include <filesystem>
#include <string_view>

namespace qanat::cli {

// Its name, for mkdtemp.
inline constexpr std::string_view socket_directory_pattern = "qanat-XXXXXX";

// In TMPDIR, or in /tmp when that is too long for sockets; gone afterwards.
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
};

}  // namespace qanat::cli
