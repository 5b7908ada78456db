#include "cli/train.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <thread>

#include "cli/bounded_logs.h"
#include "cli/child.h"
#include "cli/evaluate.h"
#include "cli/last_word.h"
#include "cli/lockstep.h"
#include "cli/roles.h"
#include "cli/run_dir.h"
#include "cli/run_progress.h"
#include "cli/run_records.h"
#include "cli/socket_directory.h"
#include "cli/summary.h"
#include "control/member.h"
#include "core/error.h"
#include "core/files.h"
#include "core/process.h"
#include "learner/checkpoint.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;
using wire::RunState;

constexpr int exit_failed = 1;
constexpr int exit_requeue = 85;
constexpr int exit_interrupted = 130;
constexpr int exit_refused = 2;  // a process's, by its configuration or by the head

// What a role that ended by itself said last in its log, after a colon; nothing for one that was killed.
std::string cause_of(int end, const std::string& log) {
  if (end >= 128) return {};
  constexpr std::string_view level = " ERROR ";
  std::ifstream file(log);
  std::string found;
  for (std::string line; std::getline(file, line);) {
    if (const auto at = line.find(level); at != std::string::npos) found = line.substr(at + level.size());
  }
  return found.empty() ? found : ": " + found;
}

// Longer than the heartbeats by which the run's state comes to us.
constexpr Milliseconds hear_of_the_end{500};
// After the run has ended, how long its processes may take to go before they are killed.
constexpr Seconds leave_limit{10};

// When nothing is left that could be saved, how long the processes may take to see that for themselves.
constexpr Seconds nothing_to_save_limit{2};
// A process that has not joined may still be making its environment.
constexpr Seconds joining_limit{120};
// One that waits for a disk is not hung, and could not be killed. It may be between two waits when we look.
constexpr Seconds disk_forgiven{10};
// While the head itself is silent for this long, others cannot be heard.
constexpr Seconds head_is_silent{5};

struct Process {
  std::string role;
  std::int64_t index = 0;
  std::vector<std::string> arguments;
  Child child;
  int restarts = 0;
  bool done = false;
  std::optional<Nanoseconds> ended_at;   // too late, and not judged yet
  Nanoseconds waited_since{0};           // until it is known to have joined
  std::optional<Nanoseconds> disk_seen;  // when it last waited for a disk
  bool silent = false;                   // it was killed for that
};

class Supervisor {
 public:
  Supervisor(const TrainOptions& options, RunDirectory run, const SocketDirectory& sockets)
      : options_(options),
        run_(std::move(run)),
        sockets_(sockets),
        log_({.who = "train", .path = run_.path / "logs" / "train.log", .to_stderr = false}),
        logs_(run_.path / "logs", static_cast<std::uint64_t>(run_.config.control.max_log_bytes)),
        started_(clock_.now()),
        progress_(clock_, run_.config.stop) {
    if (!run_.warning.empty()) log_.warn(run_.warning);
  }

  int run() {
    if (already_over()) return conclude({});
    start_all();
    const auto cause = supervise();
    return conclude(cause);
  }

 private:
  // A run that is resumed where it had met a stop condition has nothing to train: its processes would not even start
  // before it ends. Leaves the status of the checkpoint behind.
  bool already_over() {
    if (run_.resume_from.empty()) return false;
    auto status = status_of_checkpoint(run_.config, run_.path, run_.resume_from);
    const auto& stop = run_.config.stop;
    if (stop.updates > 0 && status.updates >= static_cast<std::uint64_t>(stop.updates)) {
      status.stop_cause = "updates";
    } else if (stop.env_steps > 0 && status.env_steps >= static_cast<std::uint64_t>(stop.env_steps)) {
      status.stop_cause = "env_steps";
    } else if (stop.wall_seconds > 0 && status.wall_seconds >= stop.wall_seconds) {
      status.stop_cause = "wall_seconds";
    } else {
      return false;
    }
    status.state = RunState::ended;
    status.epoch = run_.epoch;
    status.checkpoint = run_.resume_from;
    write_status(run_.path, status);
    std::fprintf(stderr, "run %s is over already (%s); raise that limit to go on with it\n", run_.path.c_str(),
                 status.stop_cause.c_str());
    return true;
  }

  void start(const std::string& role, std::int64_t index, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"qanat", role});
    arguments.push_back("--supervised");
    const auto log = (run_.path / "logs" / text(role, '-', index, ".out")).string();
    processes_.push_back({role, index, arguments, Child(arguments, log, orphaned_signal)});
    processes_.back().waited_since = clock_.now();
  }

  void start_all() {
    const auto absolute = fs::absolute(run_.path);
    fs::remove(run_.path / "head.address");
    std::vector<std::string> head{"--run-dir", absolute.string(),
                                  "--bind",    "ipc://" + (sockets_.path() / "head").string(),
                                  "--epoch",   std::to_string(run_.epoch)};
    if (!run_.resume_from.empty()) head.insert(head.end(), {"--resume-from", run_.resume_from});
    start("head", 0, head);
    await_head();
    const std::vector<std::string> joined{"--connect", address_,
                                          "--log-dir", (absolute / "logs").string(),
                                          "--give-up", text(run_.config.control.give_up_seconds)};
    const auto start_joined = [&](const std::string& role, std::int64_t index) {
      auto arguments = joined;
      arguments.insert(arguments.end(), {"--index", std::to_string(index)});
      if (role == "learner" && !options_.init_from.empty()) {
        arguments.insert(arguments.end(), {"--init-from", fs::absolute(options_.init_from).string()});
      }
      start(role, index, arguments);
    };
    start_joined("learner", 0);
    for (std::int64_t i = 0; i < run_.config.replay.shards; ++i) start_joined("replay", i);
    for (std::int64_t i = 0; i < run_.config.actors.count; ++i) start_joined("actor", i);
    start_joined("evaluate", 0);
  }

  void await_head() {
    const Seconds limit(run_.config.control.lost_after_seconds);
    const auto begin = clock_.now();
    while (!fs::exists(run_.path / "head.address")) {
      if (const auto end = processes_.front().child.poll()) {
        const auto log = (run_.path / "logs" / "head-0.log").string();
        throw RunError(text("the head did not start: ", describe_end(*end), cause_of(*end, log), "; see ", log));
      }
      if (clock_.now() - begin > limit) {
        throw RunError(text("the head did not start within ", limit.count(), " s (control.lost_after_seconds); see ",
                            (run_.path / "logs" / "head-0.log").string()));
      }
      std::this_thread::sleep_for(Milliseconds(2));
    }
    const auto addresses = read_text_file(run_.path / "head.address");
    address_ = addresses.substr(0, addresses.find('\n'));
    const auto tcp = addresses.find("tcp://");
    std::fprintf(stderr, "run %s, seed %lld; others join with --connect %s\n", run_.path.c_str(),
                 static_cast<long long>(run_.config.seed),
                 addresses.substr(tcp, addresses.find('\n', tcp) - tcp).c_str());
    control::MemberOptions member;
    member.role = wire::Role::supervisor;
    member.incarnation = control::new_incarnation();
    member.head = {address_};
    member.give_up = Seconds(run_.config.control.lost_after_seconds);
    member_.emplace(context_, clock_, member);
  }

  // Until all processes are gone. Returns the failure that ended the run, or nothing.
  std::string supervise() {
    std::string failure;
    for (;;) {
      member_->step();
      ran_ = ran_ || member_->state() == RunState::running;
      handle_signals();
      logs_.look(clock_.now());
      end_silent();
      bool any = false;
      for (auto& process : processes_) {
        if (process.done) continue;
        const auto end = process.child.poll();
        if (!end) {
          any = true;
        } else {
          const auto why = on_end(process, *end);
          any = any || !process.done;
          if (why.empty() || !failure.empty()) continue;
          failure = why;
          member_->stop_run("failure: " + why);
          // Without a learner there is nobody to save, and without a head nobody to say so.
          kill_within(process.role == "learner" || process.role == "head" ? nothing_to_save_limit : leave_limit);
        }
      }
      if (!any) return failure;
      if (member_->state() == RunState::ended) kill_within(leave_limit);
      if (signals().interrupts.load() >= 2) kill_at_ = clock_.now();
      if (kill_at_ && clock_.now() >= *kill_at_) {
        killed_ = true;
        for (auto& process : processes_) process.child.signal(SIGKILL);
      }
      show_saves();
      progress_.show(*member_);
      wire::Socket* socket = &member_->socket();
      wire::wait(std::span(&socket, 1), Milliseconds(20));
    }
  }

  // Hung is as good as dead: whoever was silent for too long is killed, and is treated as any that died.
  void end_silent() {
    for (auto& process : processes_) {
      // One that has ended by itself is told of by its exit code, a moment later perhaps.
      if (process.done || process.silent || process.child.poll()) continue;
      if (!is_silent(process) || waits_for_disk(process)) continue;
      log_.warn(process.role, '-', process.index, ", pid ", process.child.pid(), ", was ", silence_of());
      process.silent = true;
      process.child.signal(SIGKILL);
    }
  }

  bool is_silent(Process& process) {
    if (process.role == "head") return member_->abandoned();
    if (member_->silence() > head_is_silent) process.waited_since = clock_.now();
    const auto limit = Seconds(run_.config.control.lost_after_seconds) + joining_limit;
    const auto state = listed_as(process);
    if (!state || *state == wire::MemberState::left) return clock_.now() - process.waited_since > limit;
    process.waited_since = clock_.now();
    return *state == wire::MemberState::lost;
  }

  bool waits_for_disk(Process& process) {
    const auto state = process_state(process.child.pid());
    if (state && state->state == 'D') process.disk_seen = clock_.now();
    return process.disk_seen && clock_.now() - *process.disk_seen < disk_forgiven;
  }

  // What the head knows of it; nothing when it has not joined.
  std::optional<wire::MemberState> listed_as(const Process& process) const {
    std::optional<wire::MemberState> out;
    for (const auto& member : member_->directory().members) {
      if (member.pid == process.child.pid() && member.index == process.index &&
          wire::name_of(member.role) == process.role)
        out = member.state;
    }
    return out;
  }

  std::string silence_of() const {
    return text("silent for more than ", run_.config.control.lost_after_seconds,
                " s (control.lost_after_seconds) and was killed");
  }

  // Whoever is left then is killed. The earliest limit counts.
  void kill_within(Seconds limit) {
    const auto at = clock_.now() + std::chrono::duration_cast<Nanoseconds>(limit);
    kill_at_ = std::min(kill_at_.value_or(at), at);
  }

  void handle_signals() {
    if (!signals().stop.load() || asked_to_stop_) return;
    asked_to_stop_ = true;
    const bool interrupted = signals().which.load() == SIGINT;
    member_->stop_run(interrupted ? "interrupted" : "terminated");
    if (!ran_) kill_within(nothing_to_save_limit);
    if (interrupted) std::fprintf(stderr, "\nstopping: what is under way is saved (Ctrl-C again ends at once)\n");
  }

  // A process ended. Returns why the run cannot go on, or nothing.
  std::string on_end(Process& process, int end) {
    if (std::find(ended_.begin(), ended_.end(), process.child.pid()) == ended_.end()) {
      ended_.push_back(process.child.pid());
      member_->set_ended(ended_);
    }
    const bool ending = member_->state() >= RunState::draining || asked_to_stop_;
    // When the run ends, its head may be gone, or have refused one that came late, before we have heard of that.
    const bool too_late = end == exit_refused || (end == 0 && process.role == "head");
    if (too_late && !ending && !process.ended_at) process.ended_at = clock_.now();
    if (!ending && process.ended_at && clock_.now() - *process.ended_at < hear_of_the_end) return {};
    if (end == 0 || killed_ || (ending && process.role != "learner" && process.role != "head")) {
      process.done = true;
      if (end == 0 && !ending && process.role == "head") return "the head ended";
      return {};
    }
    const auto what = text(process.role, '-', process.index,
                           process.silent ? " was " + silence_of() : " ended: " + describe_end(end));
    log_.warn(what);
    const auto log = (run_.path / "logs" / text(process.role, '-', process.index, ".log")).string();
    const bool restartable =
        (process.role == "actor" || process.role == "replay" || process.role == "evaluate") && end != exit_refused;
    if (!restartable || process.restarts >= run_.config.control.max_restarts) {
      process.done = true;
      return text(what, cause_of(end, log), "; see ", log, restartable ? "; it was restarted often enough" : "");
    }
    ++process.restarts;
    ++restarts_;
    const auto out = (run_.path / "logs" / text(process.role, '-', process.index, ".out")).string();
    process.child = Child(process.arguments, out, orphaned_signal);
    process.waited_since = clock_.now();
    process.silent = false;
    std::erase(ended_, process.child.pid());  // the kernel may hand out a number again
    member_->set_ended(ended_);
    log_.info("started ", process.role, '-', process.index, " again, pid ", process.child.pid());
    return {};
  }

  // What a run that met a stop condition without one update waited for; empty when it did one.
  std::string nothing_done() const {
    if (!member_) return {};  // resumed where it was over already
    const auto checkpoint = learner::newest_checkpoint(run_.path / "checkpoints");
    if (updates_of_status(run_.path) > 0 || (checkpoint && learner::read_manifest(*checkpoint).updates > 0)) return {};
    const auto& waited_for = progress_.never_came();
    return text("the run ended (", member_->stop_cause(), ") without one update",
                waited_for.empty() ? std::string() : ": " + waited_for, "; see ", (run_.path / "logs").string());
  }

  // The final evaluation and the summary.
  int conclude(std::string failure) {
    if (member_) progress_.show(*member_, true);
    // What ended the run first is the cause, and not what followed from it.
    constexpr std::string_view failed = "failure: ";
    if (member_ && member_->stop_cause().starts_with(failed)) failure = member_->stop_cause().substr(failed.size());
    if (failure.empty() && !asked_to_stop_) failure = nothing_done();
    RunOutcome outcome;
    outcome.seed = run_seed(run_.config);
    outcome.restarts = restarts_;
    outcome.environment = run_.environment;
    if (!failure.empty()) outcome.stop_cause = text(failed, failure);
    const auto summarise = [&] {
      outcome.command_seconds = seconds(clock_.now() - started_);
      write_summary(run_.path, outcome);
    };
    try {
      summarise();
    } catch (const SystemError& error) {  // no reason to hide what comes now
      std::fprintf(stderr, "qanat: warning: there is no summary: %s\n", error.what());
    }
    if (asked_to_stop_ || !failure.empty()) return stopped(failure);
    // Everything is saved and all other processes are gone: from here on a signal may end us on the spot. What is
    // missing then is the evaluation, which --resume makes up for.
    exit_on_signals(exit_interrupted, exit_requeue);
    evaluate_result(outcome);
    summarise();
    std::printf("%s\n", run_.path.c_str());
    return 0;
  }

  // The run can be gone on with, or not: the last word and the exit code say which.
  int stopped(const std::string& failure) {
    Leftover left{failure, {}, 0, saved_updates(run_.path), run_.path};
    if (member_) {
      left.save_error = member_->save_error();
      left.updates = member_->updates();
    }
    if (!asked_to_stop_) throw RunError(last_word(left));
    std::fprintf(stderr, "%s\n", last_word(left).c_str());
    if (signals().which.load() == SIGINT) return exit_interrupted;
    return left.saved ? exit_requeue : exit_failed;
  }

  // Says when saving begins to fail, and when it works again.
  void show_saves() {
    const bool fails = !member_->save_error().empty();
    if (fails == saves_fail_) return;
    saves_fail_ = fails;
    const char* fresh_line = isatty(STDERR_FILENO) ? "\n" : "";
    if (fails) {
      std::fprintf(stderr, "%sqanat: warning: a checkpoint could not be saved: %s; it is tried again\n", fresh_line,
                   member_->save_error().c_str());
    } else {
      std::fprintf(stderr, "%scheckpoints can be saved again\n", fresh_line);
    }
  }

  void evaluate_result(RunOutcome& outcome) {
    std::fprintf(stderr, "evaluating: %lld episodes\n", static_cast<long long>(run_.config.evaluation.final_episodes));
    const auto result = evaluate_run(run_.path, run_.config, run_.spec, run_.config.evaluation.final_episodes);
    outcome.evaluation = result.evaluation;
    outcome.evaluated = result.weights;
    std::printf("evaluation: mean %.2f, standard error %.2f over %lld episodes (%s weights), %.1f s in all\n",
                result.evaluation.mean, result.evaluation.standard_error,
                static_cast<long long>(result.evaluation.episodes), result.weights.c_str(),
                seconds(clock_.now() - started_));
  }

  const TrainOptions& options_;
  RunDirectory run_;
  const SocketDirectory& sockets_;
  SteadyClock clock_;
  Logger log_;
  BoundedLogs logs_;
  Nanoseconds started_;
  RunProgress progress_;
  wire::Context context_;
  std::optional<control::Member> member_;
  std::string address_;
  std::vector<Process> processes_;
  std::vector<std::int64_t> ended_;  // pids of those that have
  bool asked_to_stop_ = false;
  bool saves_fail_ = false;
  bool ran_ = false;  // it has begun to train, so there is something to save
  std::optional<Nanoseconds> kill_at_;
  bool killed_ = false;  // by us: how processes end is no news any more
  int restarts_ = 0;
};

}  // namespace

int train(const TrainOptions& options) {
  if (options.lockstep) return train_lockstep(options, open_run(options));
  install_signals(false);  // before the run has a directory, so that none is left half made
  const SocketDirectory sockets;
  auto run = open_run(options);
  return Supervisor(options, std::move(run), sockets).run();
}

}  // namespace qanat::cli
