// Starts one role in this process: options from the run's configuration, a log file, signals, the run loop.
//
// What every role process does alike: it asks the head for the configuration, joins, and runs until it is finished.
// Exit codes are the caller's; failures are exceptions.
#pragma once

#include <atomic>
#include <csignal>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "actors/actor.h"
#include "actors/evaluator.h"
#include "cli/run_config.h"
#include "control/head.h"
#include "core/log.h"
#include "learner/learner.h"
#include "replay/server.h"

namespace qanat::cli {

// Set by signals; see install_signals().
struct Signals {
  std::atomic<bool> stop{false};      // one of requests_to_end came
  std::atomic<int> which{0};          // the first of them
  std::atomic<int> asked{0};          // how many of them, SIGHUP apart
  std::atomic<int> interrupts{0};     // how many SIGINTs
  std::atomic<bool> orphaned{false};  // the parent died
};
[[nodiscard]] Signals& signals();
// `supervised`: Ctrl-C and requests to end, which often go to all processes of a job at once, are the supervisor's
// business, which ends the run in good order; its death is noticed. Otherwise those that were ignored at the start stay
// ignored.
void install_signals(bool supervised);
// From now on such a signal, unless it is ignored, ends this process on the spot with `interrupted` (Ctrl-C) or
// `terminated`.
void exit_on_signals(int interrupted, int terminated);
// What a supervised process is sent when its supervisor dies.
constexpr int orphaned_signal = SIGUSR2;
// How long a process whose supervisor is gone may take to finish in good order.
constexpr Seconds orphan_limit{8};

// How a role finds its run and what it calls itself.
struct RoleOptions {
  std::vector<std::string> connect;  // the head
  std::int64_t index = -1;
  std::string log_dir;                                       // logs/ of the run; empty: standard error
  double give_up_seconds = ControlConfig().give_up_seconds;  // until the head's configuration says it
  bool supervised = false;
};

struct HeadProcessOptions {
  std::string run_dir;
  std::vector<std::string> bind;  // empty: tcp on control.bind_host
  std::string resume_from;
  std::uint64_t epoch = 1;
  bool supervised = false;
};

// Throws ConfigError when no process of this machine can listen there (control.bind_host, control.port).
void check_bind_host(const std::string& host, std::int64_t port);

// Each blocks until its role is done.
void run_head(const HeadProcessOptions& options);
void run_learner(const RoleOptions& options, const std::string& init_from);
void run_replay(const RoleOptions& options);
void run_actor(const RoleOptions& options);
void run_evaluator(const RoleOptions& options);

// The parts, for lockstep runs, which build all roles in one process. `bind`: addresses to listen on.
struct Parts {
  wire::Context& context;
  const Clock& clock;
  Logger& log;
  const RunConfig& config;
  control::MemberOptions member;
  std::vector<std::string> bind;
};
[[nodiscard]] std::unique_ptr<learner::Learner> make_learner(Parts parts, const std::string& init_from);
[[nodiscard]] std::unique_ptr<replay::ShardServer> make_replay(Parts parts);
[[nodiscard]] std::unique_ptr<actors::Actor> make_actor(Parts parts);
[[nodiscard]] std::unique_ptr<actors::Evaluator> make_evaluator(Parts parts);
[[nodiscard]] control::LedgerOptions ledger_options(const RunConfig& config);
[[nodiscard]] control::HeadOptions head_options(const RunConfig& config, const std::string& run_dir);

// Seed of the run as the roles take it.
[[nodiscard]] inline std::uint64_t run_seed(const RunConfig& config) { return static_cast<std::uint64_t>(config.seed); }

}  // namespace qanat::cli
