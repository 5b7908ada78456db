#include "cli/run_progress.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>

#include "core/error.h"

namespace qanat::cli {
namespace {

double metric(const std::vector<std::pair<std::string, double>>& metrics, std::string_view name, double otherwise) {
  for (const auto& [known, value] : metrics) {
    if (known == name) return value;
  }
  return otherwise;
}

}  // namespace

// The smaller of the remaining times by each stop condition, from the present rates.
std::string RunProgress::time_left(const control::Member& supervisor) const {
  const auto& metrics = supervisor.run_metrics();
  const double wall = seconds(clock_.now() - started_);
  double left = -1;
  const auto take = [&](double seconds_left) { left = left < 0 ? seconds_left : std::min(left, seconds_left); };
  const auto rate = [&](const char* name) { return metric(metrics, name, 0); };
  if (stop_.env_steps > 0 && rate("env_steps_per_second") > 0) {
    take(std::max(0.0, static_cast<double>(stop_.env_steps) - static_cast<double>(supervisor.env_steps())) /
         rate("env_steps_per_second"));
  }
  if (stop_.updates > 0 && rate("updates_per_second") > 0) {
    take(std::max(0.0, static_cast<double>(stop_.updates) - static_cast<double>(supervisor.updates())) /
         rate("updates_per_second"));
  }
  if (stop_.wall_seconds > 0) take(std::max(0.0, stop_.wall_seconds - wall));
  if (left < 0) return "?";
  return minutes_text(left);
}

// A run that does no update says what it waits for.
void RunProgress::show_stall(const control::Member& supervisor) {
  // What is heard first of a run that ends is how it stood when it was stopped; later on everything is let go.
  if (ended_) return;
  const bool ends = ended_ = supervisor.state() > wire::RunState::running;
  const auto& waits_for = supervisor.run_waits_for();
  if (supervisor.updates() > 0) {
    waited_for_.clear();
  } else if (!waits_for.empty()) {
    waited_for_ = waits_for;
  }
  if (ends) return;
  const auto now = clock_.now();
  if (!stall_.look(now, supervisor.updates()) || waits_for.empty()) return;
  line_.end();
  std::fprintf(stderr, "no update for %.0f s: %s\n", seconds(stall_.lasting(now)), waits_for.c_str());
}

void RunProgress::show(const control::Member& supervisor, bool last) {
  show_stall(supervisor);
  if (!last && !line_.due()) return;
  const auto& metrics = supervisor.run_metrics();
  if (metrics.empty()) return;
  std::string line = text(wire::name_of(supervisor.state()), ": ", supervisor.env_steps(), " steps");
  const auto add = [&](const char* name, const char* unit, int digits) {
    char number[64];
    std::snprintf(number, sizeof number, "%.*f", digits, metric(metrics, name, 0));
    line += text(" | ", number, ' ', unit);
  };
  add("env_steps_per_second", "steps/s", 0);
  add("updates_per_second", "updates/s", 0);
  add("replay_ratio", "ratio", 2);
  add("policy_lag_updates", "lag", 0);
  add("episode_return_mean", "return", 1);
  if (metric(metrics, "evaluation_mean", -1e300) > -1e299) add("evaluation_mean", "eval", 1);
  line += " | left " + time_left(supervisor);
  line_.show(line);
  if (last) line_.end();
}

}  // namespace qanat::cli
