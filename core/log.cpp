#include "core/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <ctime>

#include "core/utf8.h"

namespace qanat {
namespace {

constexpr std::string_view names[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};

std::string utc_now() {
  const auto now = std::chrono::system_clock::now();
  const auto whole = std::chrono::floor<std::chrono::seconds>(now);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now - whole).count();
  const std::time_t time = std::chrono::system_clock::to_time_t(whole);
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  char date[32];
  const std::size_t size = std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  char fraction[16];
  std::snprintf(fraction, sizeof fraction, ".%03dZ", static_cast<int>(millis));
  return std::string(date, size) + fraction;
}

void append_escaped(std::string& line, std::string_view message) {
  constexpr char digits[] = "0123456789abcdef";
  for (const char c : message) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '\n') {
      line += "\\n";
    } else if ((code < 0x20 && c != '\t') || code == 0x7f) {
      line += {'\\', 'x', digits[code >> 4], digits[code & 15]};
    } else {
      line += c;
    }
  }
}

bool write_line(int fd, std::string_view line) {
  while (!line.empty()) {
    const ssize_t put = ::write(fd, line.data(), line.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return false;
    line.remove_prefix(static_cast<std::size_t>(put));
  }
  return true;
}

}  // namespace

Logger::Logger(LogOptions options) : options_(std::move(options)) {
  if (options_.path.empty()) return;
  file_ = FileDescriptor(::open(options_.path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!file_) throw_system_error("open log", options_.path, errno);
}

void Logger::write(LogLevel level, std::string_view message) {
  std::string line = utc_now();
  line += ' ';
  line += names[static_cast<std::size_t>(level)];
  line += ' ';
  line += options_.who;
  line += ": ";
  append_escaped(line, to_utf8(message));
  line += '\n';
  bool whole = true;
  if (file_) whole = write_line(file_.get(), line);
  if (options_.to_stderr) whole = write_line(STDERR_FILENO, line) && whole;
  if (!whole) dropped_.fetch_add(1, std::memory_order_relaxed);  // a lone counter: nothing is ordered by it
}

}  // namespace qanat
