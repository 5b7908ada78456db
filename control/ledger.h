// The replay-ratio ledger: balance = ratio * inserted - drawn, kept within a window by leasing credits.
//
// Shards lease insert credits (steps), learners draw credits (trained steps). All counts are cumulative over
// a member's life, so lost or repeated messages change nothing, nor does a member that leaves and comes back.
// Counting starts when `min_size` items are drawable; until then inserts are free and nothing may be drawn. A
// member that falls silent gives its unused lease back.
//
// Once counting, credits are granted so that the balance stays in the window even when every lease is used up,
// whatever order the reports come in. What may step over the edge: leases from before counting started, those that a
// member used although it was given up (it knew nothing of that), and inserts while less than `min_size` is drawable
// (shards that lost what they held), when the learner could not bring the balance down. All are counted, so the ratio
// holds in the end.
//
// Pure arithmetic: no clock, no sockets. One owner.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/bytes.h"

namespace qanat::control {

// The cause of a stop at stop.env_steps: from then on no more experience is taken.
inline constexpr std::string_view stop_by_env_steps = "env_steps";

struct LedgerOptions {
  double ratio = 1;            // trained steps per inserted step; 0: both sides run free
  std::uint64_t min_size = 1;  // drawable items before counting starts
  // Width of the balance's range, trained steps: [-window/2, window/2]. At least 2 * max(1, ratio), so that a step
  // on either side fits; no deadlock from batch * prefetch + ratio * chunk * streams on.
  double window = 1024;
  std::uint64_t batch = 0;  // trained steps that the learner draws at once
  // Steps in all, after which nobody gets credits for inserts any more; shortly before, each shard has those of a
  // chunk. 0: never.
  std::uint64_t stop = 0;
  std::uint64_t chunk = 1;  // steps of the largest chunk
};

// Why an insert of so many steps at once might wait for ever, with the sum; empty when it gets its lease.
[[nodiscard]] std::string never_granted(const LedgerOptions& options, std::uint64_t steps);

class Ledger {
 public:
  enum class Side { insert, draw };
  struct Grant {
    std::uint64_t member;
    std::uint64_t granted;
  };

  explicit Ledger(LedgerOptions options);  // throws ConfigError

  void join(std::uint64_t member, Side side);  // again, or back after leaving: its counts go on
  // The unused lease returns; what was used stays counted.
  void leave(std::uint64_t member);
  // As leave, for good: one that comes back is counted anew.
  void forget(std::uint64_t member);
  // A report whose count falls is ignored (an old message), and so is one of a member that is not in.
  // `known_grant`: what the member believes it may use; a lease from before a restart of the ledger counts.
  void report(std::uint64_t member, std::uint64_t used, std::uint64_t wanted, std::uint64_t drawable,
              std::uint64_t known_grant = 0);
  // Ends the coupling: everybody gets what they want. For draining.
  void release() { released_ = true; }
  // Chunks of so many steps come: at least so much may be granted near the stop.
  void expect_chunk(std::uint64_t steps) { options_.chunk = std::max(options_.chunk, steps); }

  // New grants since the last call. Who asks shares alike, but nobody gets less than a sixteenth of the window, or
  // 2,048 trained steps, at a time unless that is all they asked for: they take turns instead.
  [[nodiscard]] std::vector<Grant> grants();

  [[nodiscard]] std::uint64_t granted(std::uint64_t member) const;
  [[nodiscard]] bool counting() const { return counting_; }
  [[nodiscard]] double balance() const;
  // All steps ever inserted or drawn, and those since counting started.
  [[nodiscard]] std::uint64_t inserted_total() const;
  [[nodiscard]] std::uint64_t drawn_total() const;
  // drawn / inserted since counting started; 0 before.
  [[nodiscard]] double actual_ratio() const;
  [[nodiscard]] std::uint64_t drawable() const;
  // Which side waits and for what, with the sum; empty when none or both do (the next report moves one).
  [[nodiscard]] std::string waiting() const;
  [[nodiscard]] const LedgerOptions& options() const { return options_; }

  // With the counts of each member, so that those who outlive the ledger's process go on where they were. Members
  // who were out when it was saved become part of the sums.
  void save(ByteWriter& out) const;
  void load(ByteReader& in);  // throws InputError; the ledger must be fresh

 private:
  struct Member {
    Side side = Side::insert;
    bool present = true;  // false: left; kept for its counts
    std::uint64_t used = 0;
    std::uint64_t wanted = 0;
    std::uint64_t granted = 0;
    std::uint64_t drawable = 0;
  };
  [[nodiscard]] std::uint64_t used(Side side) const;
  [[nodiscard]] std::uint64_t leased(Side side) const;
  [[nodiscard]] double room(Side side) const;
  // The most that this member may still get before the stop.
  [[nodiscard]] std::uint64_t before_stop(const Member& entry) const;

  LedgerOptions options_;
  std::map<std::uint64_t, Member> members_;
  std::uint64_t gone_inserted_ = 0;  // used by members that were forgotten
  std::uint64_t gone_drawn_ = 0;
  std::uint64_t inserted_before_ = 0;  // inserted when counting started
  std::uint64_t served_insert_ = 0;    // who got the last grant of that side
  std::uint64_t served_draw_ = 0;
  bool counting_ = false;
  bool released_ = false;
};

}  // namespace qanat::control
