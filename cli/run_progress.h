// What `train` shows of a run while it goes on.
#pragma once

#include <string>

#include "cli/progress.h"
#include "control/member.h"
#include "control/stall.h"
#include "core/clock.h"
#include "learner/config.h"

namespace qanat::cli {

class RunProgress {
 public:
  RunProgress(const Clock& clock, const learner::StopConfig& stop)
      : clock_(clock), stop_(stop), started_(clock.now()), line_(clock), stall_(clock.now()) {}

  // When it is time for a line; the last one always.
  void show(const control::Member& supervisor, bool last = false);
  // What the run waited for as long as it did no update; empty when it did one, or when nobody knows.
  [[nodiscard]] const std::string& never_came() const { return waited_for_; }

 private:
  void show_stall(const control::Member& supervisor);
  [[nodiscard]] std::string time_left(const control::Member& supervisor) const;

  const Clock& clock_;
  learner::StopConfig stop_;
  Nanoseconds started_;
  ProgressLine line_;
  control::StallWatch stall_;
  std::string waited_for_;
  bool ended_ = false;
};

}  // namespace qanat::cli
