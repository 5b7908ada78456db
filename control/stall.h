// Notices that a run does no updates, and when to say so: after ten seconds, and then every minute.
//
// Pure: time is an argument. One thread.
#pragma once

#include <cstdint>
#include <optional>

#include "core/clock.h"

namespace qanat::control {

class StallWatch {
 public:
  explicit StallWatch(Nanoseconds now) : since_(now) {}

  // The run's count of updates as it is now; one that falls is news too. True when it is time to say what is waited
  // for.
  bool look(Nanoseconds now, std::uint64_t updates) {
    if (updates != updates_) {
      updates_ = updates;
      since_ = now;
      said_.reset();
    }
    if (now - since_ < first_after || (said_ && now - *said_ < again_after)) return false;
    said_ = now;
    return true;
  }
  // For how long there was none.
  [[nodiscard]] Nanoseconds lasting(Nanoseconds now) const { return now - since_; }

 private:
  static constexpr std::chrono::seconds first_after{10};
  static constexpr std::chrono::seconds again_after{60};

  std::uint64_t updates_ = 0;
  Nanoseconds since_;
  std::optional<Nanoseconds> said_;
};

}  // namespace qanat::control
