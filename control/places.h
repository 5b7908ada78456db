// Who may have a place of a run: a role and an index.
//
// A place has one holder. While the holder lives, others are refused; whoever comes for the place of one that may be
// dead is asked to come again until that is known. Places of a supervisor are its own: it restarts what dies there, at
// once and as often as it sees fit, and nobody else is let in between. A run has one learner, whatever its index.
//
// Decides and remembers who waits; who is in the run is the head's business. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "core/clock.h"
#include "wire/messages.h"

namespace qanat::control {

// The process that started the head together with others: `qanat train`.
struct Supervisor {
  std::string host;
  std::int64_t pid = 0;
  std::map<wire::Role, std::int64_t> places;  // how many of each role it starts, from index 0
};

// A holder that was silent for this long counts as dead when somebody else wants its place. A living one is heard ten
// times a second, and no less than once a second.
constexpr Seconds holder_silence{2};

class Places {
 public:
  explicit Places(std::optional<Supervisor> supervisor) : supervisor_(std::move(supervisor)) {}

  struct Holder {
    std::int64_t pid = 0;
    std::string host;
    Nanoseconds heard{0};    // when it last said something
    Nanoseconds silence{0};  // for how long it has said nothing that could have been heard
  };
  struct Verdict {
    std::string objection;  // empty: it may have the place
    bool again = false;     // not yet decided
  };
  // About a process that is not in the run. `holder`: alive and in that place, or none. `free`: an index to go for.
  [[nodiscard]] Verdict judge(const wire::Join& join, std::int64_t index, const std::optional<Holder>& holder,
                              std::int64_t free, Nanoseconds now);

  // The index a process gets that asks for none: the lowest that is not taken and not a supervisor's.
  [[nodiscard]] std::int64_t free_index(wire::Role role, const std::set<std::int64_t>& taken) const;

  // Whether the run's supervisor started it.
  [[nodiscard]] bool supervised(const wire::Join& join) const;

 private:
  [[nodiscard]] bool reserved(wire::Role role, std::int64_t index) const;

  std::optional<Supervisor> supervisor_;
  std::map<std::uint64_t, Nanoseconds> asked_;  // since when newcomers, by incarnation, ask for a place that is held
};

}  // namespace qanat::control
