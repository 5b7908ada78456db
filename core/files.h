// Files, with errors that name the path and what the system said.
//
// Every function throws SystemError on failure unless it says otherwise. Thread safe: nothing is shared; two
// writers of one path each write a whole file, and the last rename wins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/checksum.h"

namespace qanat {

// Owns a file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  [[nodiscard]] int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// "cannot ACTION 'PATH': No such file or directory", with the text of `error_number` (an errno value).
[[noreturn]] void throw_system_error(std::string_view action, const std::filesystem::path& path, int error_number);

inline constexpr std::uint64_t no_size_limit = std::numeric_limits<std::uint64_t>::max();

// The whole file. One larger than `max_bytes` is refused, before it is in memory.
[[nodiscard]] std::vector<std::byte> read_file(const std::filesystem::path& path,
                                               std::uint64_t max_bytes = no_size_limit);
[[nodiscard]] std::string read_text_file(const std::filesystem::path& path, std::uint64_t max_bytes = no_size_limit);

// A file as it was written, and as it must be when it is used again.
struct WrittenFile {
  std::string name;  // within its directory
  std::uint64_t bytes = 0;
  std::uint64_t checksum = 0;

  template <class A>
  void serialize(A& a) {  // for messages
    a(name, bytes, checksum);
  }
  friend bool operator==(const WrittenFile&, const WrittenFile&) = default;
};

// A file that appears whole or not at all: written beside `path` as PATH.tmp.PID.N, and in `commit` flushed to the
// disk, renamed over `path`, and the directory flushed. Without commit the temporary file is removed; only a
// SIGKILL or a power cut leaves one behind.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::span<const std::byte> bytes);
  // Call once; nothing may be written after.
  WrittenFile commit();
  // The same without flushing, for what is worth nothing after a power cut: a slow disk does not hold us up.
  void replace();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  FileDescriptor file_;
  std::uint64_t bytes_ = 0;
  Checksum checksum_;
  bool committed_ = false;
};

WrittenFile write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);
WrittenFile write_file_atomically(const std::filesystem::path& path, std::string_view text);
// As those, not flushed: after a power cut the file may be empty.
void replace_file(const std::filesystem::path& path, std::string_view text);
// Gives a file or directory another name, unless something has that already: false then.
[[nodiscard]] bool rename_exclusively(const std::filesystem::path& from, const std::filesystem::path& to);

// Reads the whole file, a piece at a time. Throws InputError when it is not as it was written, and SystemError when it
// cannot be read.
void verify_file(const std::filesystem::path& directory, const WrittenFile& written);

// Makes one directory; false when something of that name exists. Of several callers exactly one gets true.
[[nodiscard]] bool create_directory_exclusively(const std::filesystem::path& path);

// With all its parents; one that exists is fine. Not called as in std::filesystem, whose own function an argument-
// dependent look-up would find beside it.
void make_directories(const std::filesystem::path& path);

// The names (not paths) in a directory, sorted by their bytes, without "." and "..".
[[nodiscard]] std::vector<std::string> list_directory(const std::filesystem::path& path);

// Makes renames and new names within `path` survive a power cut.
void sync_directory(const std::filesystem::path& path);

// What one calls a span of characters' bytes.
[[nodiscard]] inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace qanat
