#include "cli/bounded_logs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/files.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

constexpr Milliseconds interval{250};

std::uint64_t size_of(const FileDescriptor& file) {
  struct stat about {};
  return fstat(file.get(), &about) == 0 ? static_cast<std::uint64_t>(about.st_size) : 0;
}

// Copies FROM's bytes from `begin` on to TO, until its end as it is by then. Returns where that was.
std::uint64_t copy_rest(const FileDescriptor& from, std::uint64_t begin, const FileDescriptor& to) {
  std::vector<char> block(std::size_t{1} << 16);
  for (;;) {
    const auto got = pread(from.get(), block.data(), block.size(), static_cast<off_t>(begin));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw SystemError(text("cannot read: ", std::strerror(errno)));
    if (got == 0) return begin;
    for (ssize_t put = 0; put < got;) {
      const auto some = write(to.get(), block.data() + put, static_cast<std::size_t>(got - put));
      if (some < 0 && errno != EINTR) throw SystemError(text("cannot write: ", std::strerror(errno)));
      put += std::max<ssize_t>(some, 0);
    }
    begin += static_cast<std::uint64_t>(got);
  }
}

}  // namespace

BoundedLogs::BoundedLogs(fs::path directory, std::uint64_t most_bytes)
    : directory_(std::move(directory)), most_bytes_(most_bytes) {}

void BoundedLogs::look(Nanoseconds now) {
  if (now < next_) return;
  next_ = now + interval;
  std::error_code wrong;
  for (fs::directory_iterator it(directory_, wrong), end; !wrong && it != end; it.increment(wrong)) {
    const auto& path = it->path();
    struct stat about {};
    if ((path.extension() != ".log" && path.extension() != ".out") || stat(path.c_str(), &about) != 0) continue;
    // Holes are no bytes: a writer that does not append leaves one where we have cut.
    const auto on_disk = std::min<std::uint64_t>(static_cast<std::uint64_t>(about.st_size),
                                                 static_cast<std::uint64_t>(about.st_blocks) * 512);
    if (on_disk > most_bytes_) cut(path);
  }
}

void BoundedLogs::cut(const fs::path& path) const {
  const FileDescriptor file(open(path.c_str(), O_RDWR | O_APPEND | O_CLOEXEC));
  if (!file) return;
  const auto kept_in = path.string() + ".1";
  const auto begin = size_of(file) - std::min(size_of(file), most_bytes_);
  std::uint64_t kept_to = begin;
  std::string trouble;
  {
    const FileDescriptor kept(open(kept_in.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    try {
      if (!kept) throw SystemError(text("cannot open: ", std::strerror(errno)));
      kept_to = copy_rest(file, begin, kept);
    } catch (const SystemError& error) {
      trouble = error.what();
    }
  }
  const auto all = size_of(file);
  if (ftruncate(file.get(), 0) != 0) return;
  const auto where =
      trouble.empty() ? text(kept_to - begin, " of them are in ") : text("none of them are kept (", trouble, ") in ");
  const auto line = text("[", all, " bytes were cut here (control.max_log_bytes is ", most_bytes_, "); ", where,
                         fs::path(kept_in).filename().string(), "]\n");
  [[maybe_unused]] const auto put = write(file.get(), line.data(), line.size());  // a full disk: then nobody is told
}

}  // namespace qanat::cli
