#include "cli/progress.h"

#include <unistd.h>

#include <cstdio>

#include "core/error.h"

namespace qanat::cli {

ProgressLine::ProgressLine(const Clock& clock, Milliseconds quiet)
    : clock_(clock), terminal_(isatty(STDERR_FILENO) != 0), next_(clock.now() + quiet) {}

void ProgressLine::show(const std::string& line) {
  next_ = clock_.now() + (terminal_ ? Milliseconds(500) : Milliseconds(5000));
  if (terminal_) {
    std::fprintf(stderr, "\r\x1b[K%s", line.c_str());
    open_ = true;
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

void ProgressLine::end() {
  if (open_) std::fputc('\n', stderr);
  open_ = false;
}

std::string minutes_text(double seconds) {
  const auto whole = static_cast<long>(seconds);
  return text(whole / 60, "m", whole % 60 < 10 ? "0" : "", whole % 60, "s");
}

}  // namespace qanat::cli
