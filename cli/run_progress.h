// What `train` shows of a run while it goes on.
#pragma once

#include <string>

#include "cli/progress.h"
#include "control/member.h"
#include "core/clock.h"
#include "learner/config.h"

namespace qanat::cli {

class RunProgress {
 public:
  RunProgress(const Clock& clock, const learner::StopConfig& stop)
      : clock_(clock), stop_(stop), started_(clock.now()), line_(clock) {}

  // When it is time for a line; the last one always.
  void show(const control::Member& supervisor, bool last = false);

 private:
  [[nodiscard]] std::string time_left(const control::Member& supervisor) const;

  const Clock& clock_;
  learner::StopConfig stop_;
  Nanoseconds started_;
  ProgressLine line_;
};

}  // namespace qanat::cli
