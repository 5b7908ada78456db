// A process's side of its membership in a run: joins the head, heartbeats, learns of the others, and keeps the
// ledger lease topped up.
//
// Survives a head that pauses or restarts (it joins again under the same incarnation, trying its addresses in turn),
// and says `abandoned` when no head was heard for `give_up`; one that was paused itself asks before it says so.
// Malformed messages are dropped and counted in the
// socket's traffic. Never blocks; destruction waits up to a second for the last words to be sent. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/log.h"
#include "wire/messages.h"

namespace qanat::control {

struct MemberOptions {
  wire::Role role = wire::Role::actor;
  std::int64_t index = -1;  // -1: the head picks
  std::uint64_t incarnation = 0;
  std::vector<std::string> head;  // addresses, tried one after the other
  std::vector<wire::Endpoint> endpoints;
  std::vector<wire::EnvironmentSchema> schema;  // none or one
  std::uint64_t chunk_steps = 0;                // actors: the longest chunk that will be sent
  std::string commit;
  Milliseconds heartbeat{100};
  Seconds give_up{120};
  Logger* log = nullptr;  // where it says what it waits for; none: nowhere
};

// A number that no other process of the run has had: from the system's entropy, never 0.
[[nodiscard]] std::uint64_t new_incarnation();

class Member {
 public:
  Member(wire::Context& context, const Clock& clock, MemberOptions options);

  // Sends what is due and takes in what came. True when something came in.
  // Throws ConfigError when the head refuses us, saying why.
  bool step();

  [[nodiscard]] bool joined() const { return welcome_.has_value(); }
  [[nodiscard]] const wire::JoinReply& welcome() const { return *welcome_; }  // joined() must hold
  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }
  [[nodiscard]] std::uint64_t incarnation() const { return options_.incarnation; }
  [[nodiscard]] wire::RunState state() const { return state_; }
  [[nodiscard]] const std::string& stop_cause() const { return stop_cause_; }
  [[nodiscard]] const wire::Directory& directory() const { return directory_; }
  [[nodiscard]] const std::optional<wire::EnvironmentSchema>& schema() const { return schema_; }
  [[nodiscard]] std::uint64_t env_steps() const { return env_steps_; }
  [[nodiscard]] std::uint64_t updates() const { return updates_; }
  [[nodiscard]] const std::vector<std::pair<std::string, double>>& run_metrics() const { return run_metrics_; }
  // Why the last save failed; empty when it did not. The supervisor alone is told.
  [[nodiscard]] const std::string& save_error() const { return save_error_; }
  // What updates wait for, while none is done. The supervisor alone is told.
  [[nodiscard]] const std::string& run_waits_for() const { return run_waits_for_; }
  // No head was heard for `give_up`.
  [[nodiscard]] bool abandoned() const;
  // For how long no head was heard although we listened.
  [[nodiscard]] Nanoseconds silence() const;

  // Members of a role that are alive, by index.
  [[nodiscard]] std::vector<const wire::MemberInfo*> alive(wire::Role role) const;
  // The address of a service to use from here: the transport by which the head was reached, else tcp, with a
  // wildcard host replaced by the head's (the head has put in the hosts of members on other machines). Empty when
  // the member has no such service.
  [[nodiscard]] std::string address_of(const wire::MemberInfo& member, std::string_view service) const;

  // In place of step() where that cannot be called for long: sends a heartbeat when one is due, and takes nothing in.
  void keep_alive();

  // Newest values, sent with the next heartbeat.
  void set_metric(std::string_view name, double value);
  void add_episode(double episode_return, std::int64_t length) { beat_.episodes.emplace_back(episode_return, length); }
  void set_traffic(const wire::Traffic& traffic);
  void set_checkpoint(std::string directory) { beat_.checkpoint = std::move(directory); }
  void set_save_error(std::string error) { beat_.save_error = std::move(error); }
  // What this process cannot go on without, for the head's log and the user; empty: it goes on.
  void set_waiting(std::string what) { beat_.waiting = std::move(what); }
  // For a supervisor: its children that have ended, by pid. Takes the place of what was said before.
  void set_ended(std::vector<std::int64_t> pids) { beat_.ended = std::move(pids); }
  // A stop condition was met here; the head ends the run with this cause.
  void stop_run(std::string cause);
  void heartbeat_now() { next_beat_ = Nanoseconds::min(); }
  // The newest metrics, sent at once: for one that is about to fail.
  void tell_now() {
    heartbeat_now();
    keep_alive();
  }

  // The ledger: `used` so far and `wanted` in all, cumulative over this incarnation. Reported when the lease is
  // short or enough has changed, not at each call; the rest is reported by step() a moment later.
  void use(std::uint64_t used, std::uint64_t wanted, std::uint64_t drawable);
  [[nodiscard]] std::uint64_t granted() const { return grant_.granted; }
  [[nodiscard]] const wire::LedgerGrant& grant() const { return grant_; }

  // Asks the head to save its part of a checkpoint into `directory` (on its machine).
  void save_head(const std::string& directory);
  [[nodiscard]] std::optional<wire::SaveReply> take_save() { return std::exchange(save_, std::nullopt); }

  // The last word: nothing is sent after it, step() only listens.
  void leave(const std::string& reason);
  [[nodiscard]] wire::Socket& socket() { return socket_; }

 private:
  void open_socket();
  void send_join();
  void send_beat();
  void handle(const wire::Incoming& message);
  void take(const wire::Incoming& message);
  void try_next_address();
  void notice_pause();
  void report_silence();
  void report(bool urgent);
  // How often to say something that is usually said every `interval`: seldom while no head is heard, so that one
  // that comes back does not find a thousand old messages.
  [[nodiscard]] Nanoseconds paced(Nanoseconds interval) const;

  wire::Context& context_;
  const Clock& clock_;
  MemberOptions options_;
  std::size_t head_ = 0;  // which of the addresses
  wire::Socket socket_;
  std::optional<wire::JoinReply> welcome_;
  bool rejoin_ = false;
  bool asked_to_join_ = false;
  bool left_ = false;
  bool uses_ledger_ = false;
  std::uint64_t epoch_ = 0;
  wire::RunState state_ = wire::RunState::starting;
  std::string stop_cause_;
  wire::Directory directory_;
  std::optional<wire::EnvironmentSchema> schema_;
  std::uint64_t env_steps_ = 0;
  std::uint64_t updates_ = 0;
  std::vector<std::pair<std::string, double>> run_metrics_;
  std::string save_error_;
  std::string run_waits_for_;
  wire::Heartbeat beat_;
  wire::LedgerReport lease_;
  wire::LedgerReport reported_;
  wire::LedgerGrant grant_;
  std::optional<wire::SaveReply> save_;
  Nanoseconds next_join_{Nanoseconds::min()};
  Nanoseconds next_beat_{Nanoseconds::min()};
  Nanoseconds next_report_{Nanoseconds::min()};
  Nanoseconds last_heard_;
  Nanoseconds stepped_;
  Nanoseconds awake_since_;
  bool said_silence_ = false;
  bool said_held_ = false;
  Nanoseconds switched_;  // when the present address was taken up, or its head last heard
};

}  // namespace qanat::control
