#include "cli/socket_directory.h"

#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"

namespace qanat::cli {
namespace {

// A socket's path may have 107 bytes; the longest name in the directory is "supervisor-" and 20 digits.
constexpr std::size_t longest_socket_directory = 107 - 32;

}  // namespace

SocketDirectory::SocketDirectory() {
  const char* named = std::getenv("TMPDIR");
  const std::string place = named != nullptr && *named != '\0' ? named : "/tmp";
  std::string pattern = (std::filesystem::path(place) / socket_directory_pattern).string();
  if (pattern.size() > longest_socket_directory) pattern = text("/tmp/", socket_directory_pattern);
  if (!mkdtemp(pattern.data())) {
    throw ConfigError(text("TMPDIR is '", place, "', wanted a directory in which one for sockets can be made (",
                           pattern, ": ", std::strerror(errno), "); unset it for /tmp"));
  }
  path_ = pattern;
}

SocketDirectory::~SocketDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace qanat::cli
