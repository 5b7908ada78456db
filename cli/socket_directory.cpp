#include "cli/socket_directory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"

namespace qanat::cli {
namespace {

// A socket's path may have 107 bytes; the longest name in the directory is "supervisor-" and 20 digits.
constexpr std::size_t longest_socket_directory = 107 - 32;

constexpr std::string_view owner_name = "owner";

bool is_name_of_one(std::string_view name) {
  const auto fixed = socket_directory_pattern.find('X');
  return name.size() == socket_directory_pattern.size() &&
         name.starts_with(socket_directory_pattern.substr(0, fixed)) &&
         std::all_of(name.begin() + static_cast<std::ptrdiff_t>(fixed), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0; });
}

// Whether it is ours to remove: this user's, and no process of its run lives. One without an owner's file is being
// made, or is something else.
bool is_abandoned(const std::filesystem::path& directory) {
  struct stat seen {};
  if (lstat(directory.c_str(), &seen) != 0 || !S_ISDIR(seen.st_mode) || seen.st_uid != geteuid()) return false;
  const FileDescriptor owner(open((directory / owner_name).c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  return owner && flock(owner.get(), LOCK_EX | LOCK_NB) == 0;
}

void remove_abandoned(const std::filesystem::path& place) {
  std::error_code ignored;
  for (std::filesystem::directory_iterator at(place, ignored), end; !ignored && at != end; at.increment(ignored)) {
    std::error_code not_removed;
    if (is_name_of_one(at->path().filename().string()) && is_abandoned(at->path()))
      std::filesystem::remove_all(at->path(), not_removed);
  }
}

// Takes the lock before the file has its name, so that nobody finds it free. Not closed on exec.
FileDescriptor own(const std::filesystem::path& directory) {
  const auto fresh = directory / "owner.new";
  FileDescriptor file(open(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
  if (!file) throw_system_error("create", fresh, errno);
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) throw_system_error("lock", fresh, errno);
  if (rename(fresh.c_str(), (directory / owner_name).c_str()) != 0) throw_system_error("rename", fresh, errno);
  return file;
}

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
  owner_ = own(path_);
  remove_abandoned(path_.parent_path());
}

SocketDirectory::~SocketDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace qanat::cli
