// Time as an argument: real processes read the machine's clock, lockstep mode and tests turn their own.
#pragma once

#include <chrono>
#include <ctime>

namespace qanat {

using Nanoseconds = std::chrono::nanoseconds;
using Milliseconds = std::chrono::milliseconds;
using Seconds = std::chrono::duration<double>;

// Monotonic. `now` counts from an arbitrary origin that never changes within a process.
class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual Nanoseconds now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() const override {
    return std::chrono::duration_cast<Nanoseconds>(std::chrono::steady_clock::now().time_since_epoch());
  }
};

class VirtualClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() const override { return now_; }
  void advance(Nanoseconds by) { now_ += by; }
  void set(Nanoseconds to) { now_ = to; }

 private:
  Nanoseconds now_{0};
};

// Processor time of the calling thread: what was computed, not what was waited for or lost to others.
[[nodiscard]] inline Nanoseconds thread_cpu_time() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + Nanoseconds(time.tv_nsec);
}

[[nodiscard]] inline double seconds(Nanoseconds t) { return std::chrono::duration<double>(t).count(); }

}  // namespace qanat
