// How far a command is: on a terminal one line that renews itself, elsewhere a line now and then. One thread.
#pragma once

#include <string>

#include "core/clock.h"

namespace qanat::cli {

class ProgressLine {
 public:
  // Nothing is shown before `quiet` is over: what is done by then needs no word.
  explicit ProgressLine(const Clock& clock, Milliseconds quiet = Milliseconds(0));
  ~ProgressLine() { end(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Whether it is time for the next line.
  [[nodiscard]] bool due() const { return clock_.now() >= next_; }
  // Shows it on standard error, due or not.
  void show(const std::string& line);
  // What renews itself on a terminal stays as it is, and what follows begins a line of its own.
  void end();

 private:
  const Clock& clock_;
  bool terminal_;
  bool open_ = false;
  Nanoseconds next_;
};

// "1m07s"
[[nodiscard]] std::string minutes_text(double seconds);

}  // namespace qanat::cli
