#include "core/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace qanat {

AppendFile::AppendFile(std::filesystem::path path, Mode mode) : path_(std::move(path)) {
  const int only_new = mode == Mode::create_new ? O_EXCL : 0;
  file_ = FileDescriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | only_new, 0666));
  if (!file_) throw_system_error("open", path_, errno);
  if (mode == Mode::append_lines) cut_torn_line();
}

void AppendFile::append(std::span<const std::byte> record) {
  const off_t before = ::lseek(file_.get(), 0, SEEK_END);
  if (before < 0) throw_system_error("seek in", path_, errno);
  while (!record.empty()) {
    const ssize_t put = ::write(file_.get(), record.data(), record.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      const int cause = errno;
      if (::ftruncate(file_.get(), before) != 0) throw_system_error("write, nor take back,", path_, cause);
      throw_system_error("write", path_, cause);
    }
    record = record.subspan(static_cast<std::size_t>(put));
  }
}

void AppendFile::cut_torn_line() {
  off_t end = ::lseek(file_.get(), 0, SEEK_END);
  if (end < 0) throw_system_error("seek in", path_, errno);
  char block[4096];
  while (end > 0) {
    const off_t size = std::min<off_t>(end, sizeof block);
    const ssize_t got = ::pread(file_.get(), block, static_cast<std::size_t>(size), end - size);
    if (got != size) throw_system_error("read", path_, got < 0 ? errno : EIO);
    off_t keep = size;
    while (keep > 0 && block[keep - 1] != '\n') --keep;
    end -= size - keep;
    if (keep > 0) break;
  }
  if (::ftruncate(file_.get(), end) != 0) throw_system_error("truncate", path_, errno);
}

}  // namespace qanat
