#include "actors/evaluator.h"

#include "actors/environment.h"
#include "core/error.h"

namespace qanat::actors {
namespace {

using wire::RunState;

constexpr Seconds measure_every{1};

EvaluationOptions player_options(const EvaluatorOptions& options) {
  EvaluationOptions out;
  out.environment = options.environment;
  out.environment.atari.threads = 0;  // one a game: a run may wait for what the only player finds
  out.network = options.network;
  out.stack = options.stack;
  out.normalization = options.normalization;
  out.device = options.device;
  out.episodes = options.evaluation.episodes;
  out.epsilon = options.evaluation.epsilon;
  out.max_steps = options.evaluation.max_steps;
  out.seed = options.seed;
  out.slots = options.slots;
  return out;
}

}  // namespace

Evaluator::Evaluator(wire::Context& context, const Clock& clock, Logger& log, EvaluatorOptions options)
    : clock_(clock),
      log_(log),
      options_(std::move(options)),
      player_(player_options(options_)),
      layout_(nn::layout_hash(player_.network())),
      member_(context, clock, options_.member),
      weights_(context, clock, text("evaluate-", options_.member.incarnation), true),
      next_(clock.now()),
      measured_(clock.now()) {
  weights_.fetch_when_asked(true);
  player_.while_waiting([this] { member_.keep_alive(); });
  log_protocol(log_, player_.environment());
}

std::vector<wire::Socket*> Evaluator::sockets() {
  std::vector<wire::Socket*> out{&member_.socket()};
  for (auto* socket : weights_.sockets()) out.push_back(socket);
  return out;
}

void Evaluator::request_stop(const std::string& cause) {
  report_environment();
  member_.leave(cause);
  finished_ = true;
}

bool Evaluator::step() {
  const auto begin_time = clock_.now();
  bool any = member_.step();
  if (finished_) return any;
  if (member_.abandoned()) throw RunError("no head was heard for too long: the evaluator ends");
  if (!member_.joined()) return any;
  follow_directory();
  if (member_.state() >= RunState::draining) {
    // What is being played is given up: the run does not wait for it.
    report_environment();
    report_traffic();
    member_.leave(member_.stop_cause());
    finished_ = true;
    return true;
  }
  if (!playing_ && !asked_ && begin_time >= next_ && weights_.connected()) {
    weights_.ask();
    asked_ = true;
  }
  if (!playing_ && weights_.step(layout_)) {
    begin();
    any = true;
  }
  if (playing_) {
    try {
      player_.step();
    } catch (...) {
      report_environment();  // what led to it
      member_.tell_now();
      throw;
    }
    if (player_.done()) report();
    busy_ += clock_.now() - begin_time;
    any = true;
  }
  measure();
  return any;
}

void Evaluator::follow_directory() {
  if (member_.directory().version == directory_seen_) return;
  directory_seen_ = member_.directory().version;
  weights_.follow(member_);
}

void Evaluator::begin() {
  asked_ = false;
  version_ = weights_.version();
  // Another process of this role, or this one after a restart, plays other episodes for the same version.
  const auto round =
      derive_seed(member_.welcome().index, member_.welcome().start_count, version_.epoch, version_.version);
  player_.begin({weights_.parameters(), weights_.statistics()}, SeedPurpose::evaluation, round);
  playing_ = true;
}

void Evaluator::report() {
  playing_ = false;
  ++rounds_;
  const auto result = player_.result();
  wire::EvaluationReport report;
  report.version = version_;
  report.episodes = result.episodes;
  report.mean = result.mean;
  report.standard_error = result.standard_error;
  report.mean_length = result.mean_length();
  weights_.report(report);
  next_ = clock_.now() + std::chrono::duration_cast<Nanoseconds>(Seconds(options_.evaluation.every_seconds));
  log_.info("update ", version_.version, ": mean ", result.mean, " +- ", result.standard_error, " over ",
            result.episodes, " episodes of ", result.mean_length(), " steps");
}

void Evaluator::measure() {
  const auto now = clock_.now();
  if (now - measured_ < measure_every) return;
  report_environment();
  member_.set_metric("evaluate_busy_share", seconds(busy_) / seconds(now - measured_));
  report_traffic();
  measured_ = now;
  busy_ = Nanoseconds(0);
}

void Evaluator::report_environment() {
  for (const auto& line : player_.take_events()) log_.warn(line);
  member_.set_metric("env_restarts", static_cast<double>(player_.restarts()));
}

void Evaluator::report_traffic() {
  auto traffic = member_.socket().traffic();
  traffic += weights_.traffic();
  member_.set_traffic(traffic);
}

}  // namespace qanat::actors
