// The head: who is in the run, which epoch it is, how far it got, and who may insert or draw how much.
//
// Small and replaceable: its state is one small file (save/load), members join again by themselves when it
// restarts. It never touches experience or weights. A control::Role: one thread, never blocks.
//
// A process that comes for the role and index of another is refused while that one lives, and replaces it when it is
// dead (control/places.h); one that was replaced is refused if it wakes up again. A replaced learner raises the epoch,
// so that what the old one still says is recognised everywhere.
//
// A run goes starting -> running (a learner and all expected shards are in) -> draining (a stop condition was
// met: actors finish and leave) -> closing (the learner saves and leaves) -> ended (everybody leaves).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "control/head_saver.h"
#include "control/ledger.h"
#include "control/places.h"
#include "control/role.h"
#include "control/stall.h"
#include "core/log.h"
#include "wire/messages.h"

namespace qanat::control {

struct HeadOptions {
  std::vector<std::string> bind;  // "tcp://127.0.0.1:*", "ipc:///..."
  std::string run_name;
  std::string run_dir;
  std::string config;       // the resolved YAML that joining members are handed
  std::string resume_from;  // checkpoint directory, or empty
  std::uint64_t epoch = 1;
  LedgerOptions ledger;
  std::int64_t expected_shards = 1;
  // Actors and evaluators beyond these are refused by name: the run's processes have no descriptors for more.
  std::uint64_t most_actors = std::numeric_limits<std::uint64_t>::max();
  std::optional<Supervisor> supervisor;
  std::uint64_t stop_env_steps = 0;  // 0: never
  double stop_wall_seconds = 0;      // 0: never
  double wall_before = 0;            // seconds the run took before it was resumed
  std::uint64_t updates_before = 0;  // done before it was resumed: what counts until a learner says where it stands
  Seconds lost_after{60};            // silence after which a member counts as lost
  Seconds drain_limit{8};            // how long a phase of the end may take before it goes on without
  Seconds metrics_every{1};
  std::vector<wire::EnvironmentSchema> schema;  // none: the first actor's holds
};

struct MemberSummary {
  wire::Role role = wire::Role::actor;
  std::int64_t index = 0;
  std::int64_t pid = 0;
  std::uint64_t starts = 0;  // how often this role and index joined with a new incarnation
  std::array<std::uint64_t, 5> traffic{};
};

struct HeadStatus {
  wire::RunState state = wire::RunState::starting;
  std::string stop_cause;
  std::uint64_t epoch = 0;
  std::uint64_t env_steps = 0;
  std::uint64_t updates = 0;
  std::uint64_t env_restarts = 0;  // of hosted environments' processes, by every process since this head began
  double wall_seconds = 0;
  std::string checkpoint;
  std::string save_error;  // why the learner's last save failed; empty: it did not
  std::vector<std::pair<std::string, double>> metrics;
  std::vector<MemberSummary> members;  // every process that ever took part: the newest of each role and index
};

class Head : public Role {
 public:
  // Called every `metrics_every` with the run's newest values.
  using OnMetrics = std::function<void(const HeadStatus&)>;

  Head(wire::Context& context, const Clock& clock, Logger& log, HeadOptions options, OnMetrics on_metrics);

  bool step() override;
  [[nodiscard]] std::vector<wire::Socket*> sockets() override { return {&socket_}; }
  [[nodiscard]] bool finished() const override;
  void request_stop(const std::string& cause) override;

  // Where it listens, in the order of options.bind.
  [[nodiscard]] const std::vector<std::string>& addresses() const { return addresses_; }
  [[nodiscard]] HeadStatus status() const;
  [[nodiscard]] const Ledger& ledger() const { return ledger_; }
  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }
  // Of its own socket; `refused` counts what was malformed or not for a head.
  [[nodiscard]] const wire::Traffic& traffic() const { return socket_.traffic(); }

  // What a restart needs: the ledger, the wall time, the epoch, recent episodes, who was started how often. Members
  // are not in it: those who live on join again. Load throws InputError; the head must be fresh. The epoch becomes
  // the larger of the saved one and the options'.
  void save(ByteWriter& out) const;
  void load(ByteReader& in);
  // Waits until what is being saved is written: for an owner that has nothing else to do.
  void finish_writing() { saver_.finish_writing(); }
  // Lockstep, before it saves: nothing is held back any more.
  void release_ledger() { ledger_.release(); }

 private:
  struct Entry {
    wire::MemberInfo info;
    std::string peer;
    std::int64_t parent = 0;
    std::string host;
    Nanoseconds last_heard{0};
    Nanoseconds heard_awake{0};  // the same by awake_
    std::vector<std::pair<std::string, double>> metrics;
    std::array<std::uint64_t, 5> traffic{};
    std::string waiting;  // as it says
  };
  // How often a role and index was started.
  struct Starts {
    std::uint64_t count = 0;
    std::uint64_t incarnation = 0;  // the newest
    std::uint64_t since_load = 0;
  };

  void handle(const wire::Incoming& message);
  void on_join(const wire::Incoming& message);
  void on_heartbeat(const wire::Incoming& message);
  void on_save(const wire::Incoming& message);
  void answer_saves();
  void on_ledger_report(const wire::Incoming& message);
  // Why `join` cannot be; empty when it can.
  [[nodiscard]] std::string objection(const wire::Join& join) const;
  Entry& admit(const wire::Join& join, std::int64_t index);
  void drop(const wire::Incoming& message, const std::string& why);
  void refuse(const std::string& peer, const std::string& reason);
  [[nodiscard]] bool has_place(const wire::Incoming& message, const wire::Join& join, std::int64_t index);
  // The supervisor's children that have ended.
  void bury(const Entry& supervisor, const std::vector<std::int64_t>& pids);
  void change(Entry& entry, wire::MemberState state, const std::string& why);
  void forget_old();
  void advance();
  void enter(wire::RunState state, const std::string& why);
  void send_grants();
  void watch();
  void report_waiting();
  // Why no update is done, from what is seen here and what the members say.
  [[nodiscard]] std::string obstacle() const;
  void write_metrics();
  [[nodiscard]] std::size_t actors_draining() const;
  [[nodiscard]] std::size_t alive(wire::Role role) const;
  [[nodiscard]] bool full_for(wire::Role role) const;
  [[nodiscard]] std::int64_t free_index(wire::Role role) const;
  void hear(Entry& member);
  // For how long it has said nothing while we listened.
  [[nodiscard]] Nanoseconds silence(const Entry& member) const { return awake_ - member.heard_awake; }
  [[nodiscard]] Entry* find(std::uint64_t incarnation);
  // The alive member of that role and index, or null.
  [[nodiscard]] Entry* holder(wire::Role role, std::int64_t index);
  // Summed over roles and indices, the newest incarnation that has it; it outlives its member, so that the run's
  // progress does not fall when one is lost. None: nobody has said.
  [[nodiscard]] std::optional<double> last_value(std::string_view name) const;
  [[nodiscard]] std::uint64_t updates() const;
  [[nodiscard]] static std::uint64_t env_restarts_of(const Entry& member);
  [[nodiscard]] std::uint64_t env_restarts() const;
  [[nodiscard]] std::vector<std::pair<std::string, double>> gather_metrics() const;
  [[nodiscard]] double wall_seconds() const;

  const Clock& clock_;
  Logger& log_;
  HeadOptions options_;
  OnMetrics on_metrics_;
  wire::Socket socket_;
  std::vector<std::string> addresses_;
  Ledger ledger_;
  Places places_;
  HeadSaver saver_;
  std::vector<Entry> members_;
  std::uint64_t env_restarts_of_forgotten_ = 0;
  std::uint64_t directory_version_ = 1;
  std::map<std::pair<wire::Role, std::int64_t>, Starts> starts_;
  std::uint64_t epoch_;
  std::optional<wire::EnvironmentSchema> schema_;
  wire::RunState state_ = wire::RunState::starting;
  std::string stop_cause_;
  std::optional<double> ratio_at_stop_;
  std::string checkpoint_;
  std::string save_error_;
  // Wall time is counted from the first env step on: making environments is no training.
  std::optional<Nanoseconds> first_step_;
  std::uint64_t steps_before_ = 0;  // of a resumed run
  Nanoseconds entered_{0};
  Nanoseconds stepped_;
  Nanoseconds awake_{0};  // time without our own pauses, in which nobody can be heard
  Nanoseconds next_metrics_{0};
  std::deque<std::pair<double, std::int64_t>> episodes_;  // the last 100
  std::uint64_t episodes_total_ = 0;
  std::vector<std::pair<std::string, double>> rates_;
  std::uint64_t last_env_steps_ = 0;
  std::optional<double> last_updates_;
  Nanoseconds last_metrics_{0};
  Nanoseconds next_waiting_{0};
  StallWatch stall_;
  std::uint64_t dropped_ = 0;  // since the log last said so
  Nanoseconds next_dropped_{Nanoseconds::min()};
};

}  // namespace qanat::control
