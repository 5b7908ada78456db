#include "core/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "core/error.h"

namespace qanat {
namespace {

namespace fs = std::filesystem;

// Linux moves at most 0x7ffff000 bytes a call; smaller pieces also keep a signal's wait short.
constexpr std::size_t largest_transfer_bytes = std::size_t{1} << 28;
constexpr std::size_t verified_piece_bytes = std::size_t{1} << 20;

// 0 only at the file's end.
std::size_t read_some(const FileDescriptor& file, const fs::path& path, std::span<std::byte> into) {
  while (true) {
    const ssize_t got = ::read(file.get(), into.data(), std::min(into.size(), largest_transfer_bytes));
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR) throw_system_error("read", path, errno);
  }
}

template <class Container>
Container read_all(const fs::path& path, std::uint64_t max_bytes) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) throw_system_error("open", path, errno);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) throw_system_error("inspect", path, errno);
  if (S_ISDIR(info.st_mode)) throw_system_error("read", path, EISDIR);

  Container content;
  std::size_t filled = 0;
  // The size is a hint: files in /proc say 0, and a file may grow while it is read.
  const auto hint = static_cast<std::uint64_t>(std::max<off_t>(info.st_size, 0));
  content.resize(static_cast<std::size_t>(std::min(hint, max_bytes)) + 1);
  while (true) {
    if (filled == content.size()) content.resize(content.size() + content.size() / 2 + 4096);
    const auto got = read_some(file, path, std::as_writable_bytes(std::span(content)).subspan(filled));
    if (got == 0) break;
    filled += got;
    if (filled > max_bytes) {
      throw SystemError(text("cannot read '", path.string(), "': it is larger than ", max_bytes, " bytes"));
    }
  }
  content.resize(filled);
  return content;
}

fs::path directory_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

void throw_system_error(std::string_view action, const fs::path& path, int error_number) {
  // generic_category().message is thread safe, strerror is not.
  throw SystemError(text("cannot ", action, " '", path.string(), "': ", std::generic_category().message(error_number)));
}

std::vector<std::byte> read_file(const fs::path& path, std::uint64_t max_bytes) {
  return read_all<std::vector<std::byte>>(path, max_bytes);
}

std::string read_text_file(const fs::path& path, std::uint64_t max_bytes) {
  return read_all<std::string>(path, max_bytes);
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  // The temporary file lies in the same directory, because a rename does not cross file systems. A dead process
  // may have left the same name behind, hence the number.
  for (int attempt = 0; !file_; ++attempt) {
    temporary_ = path_;
    temporary_ += text(".tmp.", ::getpid(), '.', attempt);
    file_ = FileDescriptor(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (!file_ && errno != EEXIST && errno != EINTR) throw_system_error("create", temporary_, errno);
  }
}

AtomicFile::~AtomicFile() {
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  bytes_ += bytes.size();
  checksum_.add(bytes);
  while (!bytes.empty()) {
    const ssize_t put = ::write(file_.get(), bytes.data(), std::min(bytes.size(), largest_transfer_bytes));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw_system_error("write", temporary_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
}

WrittenFile AtomicFile::commit() {
  if (::fsync(file_.get()) != 0) throw_system_error("flush", temporary_, errno);
  replace();
  sync_directory(directory_of(path_));
  return {path_.filename().string(), bytes_, checksum_.value()};
}

void AtomicFile::replace() {
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw_system_error("rename a new file to", path_, errno);
  committed_ = true;
}

WrittenFile write_file_atomically(const fs::path& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  return file.commit();
}

WrittenFile write_file_atomically(const fs::path& path, std::string_view text) {
  return write_file_atomically(path, bytes_of(text));
}

void replace_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(bytes_of(text));
  file.replace();
}

bool rename_exclusively(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  if (errno == EEXIST) return false;
  // Some file systems do not know the flag; what comes to be between the two calls is then replaced.
  if (errno != EINVAL && errno != ENOSYS) throw_system_error("rename a new directory to", to, errno);
  struct stat info {};
  if (::lstat(to.c_str(), &info) == 0) return false;
  if (::rename(from.c_str(), to.c_str()) != 0) throw_system_error("rename a new directory to", to, errno);
  return true;
}

void verify_file(const fs::path& directory, const WrittenFile& written) {
  const auto path = directory / written.name;
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file && errno == ENOENT) throw InputError(text(path.string(), " is missing, wanted ", written.bytes, " bytes"));
  if (!file) throw_system_error("open", path, errno);
  std::vector<std::byte> piece(verified_piece_bytes);
  std::uint64_t bytes = 0;
  Checksum sum;
  while (const auto got = read_some(file, path, piece)) {
    bytes += got;
    sum.add(std::span(piece).first(got));
  }
  if (bytes != written.bytes) {
    throw InputError(text(path.string(), ": saw ", bytes, " bytes, wanted the ", written.bytes, " that were written"));
  }
  if (sum.value() != written.checksum) {
    throw InputError(text(path.string(), ": checksum mismatch, the file is damaged: saw ", sum.value(), ", wanted ",
                          written.checksum));
  }
}

bool create_directory_exclusively(const fs::path& path) {
  if (::mkdir(path.c_str(), 0777) == 0) return true;
  if (errno == EEXIST) return false;
  throw_system_error("create directory", path, errno);
}

void make_directories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw_system_error("create directory", path, error.value());
}

std::vector<std::string> list_directory(const fs::path& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator entry(path, error); !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) throw_system_error("list", path, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

void sync_directory(const fs::path& path) {
  const FileDescriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) throw_system_error("open directory", path, errno);
  // EINVAL: a file system that cannot flush directories (some network mounts) has nothing to flush.
  if (::fsync(directory.get()) != 0 && errno != EINVAL) throw_system_error("flush directory", path, errno);
}

}  // namespace qanat
