#include "control/places.h"

#include <cstdio>

#include "core/error.h"

namespace qanat::control {
namespace {

// Longer than anybody who waits goes without asking.
constexpr Seconds remembered{10};
constexpr std::size_t most_remembered = 1000;

std::string name_of(wire::Role role, std::int64_t index) { return text(wire::name_of(role), '-', index); }

std::string advice(wire::Role role, std::int64_t free) {
  if (role == wire::Role::learner) return "; a run has one learner";
  return text("; index ", free, " is free, and whoever asks for none (without --index) gets a free one");
}

std::string tenths(Nanoseconds time) {
  char out[32];
  std::snprintf(out, sizeof out, "%.1f s", seconds(time));
  return out;
}

}  // namespace

bool Places::supervised(const wire::Join& join) const {
  return supervisor_ && join.parent == supervisor_->pid && join.host == supervisor_->host;
}

bool Places::reserved(wire::Role role, std::int64_t index) const {
  if (!supervisor_) return false;
  const auto places = supervisor_->places.find(role);
  return places != supervisor_->places.end() && index < places->second;
}

Places::Verdict Places::judge(const wire::Join& join, std::int64_t index, const std::optional<Holder>& holder,
                              std::int64_t free, Nanoseconds now) {
  const auto place = name_of(join.role, index);
  if (join.role == wire::Role::learner && index != 0) return {text("there is no place ", place, advice(join.role, 0))};
  if (join.role == wire::Role::supervisor && supervisor_ &&
      (join.pid != supervisor_->pid || join.host != supervisor_->host)) {
    return {text("the run's supervisor is pid ", supervisor_->pid, " on ", supervisor_->host)};
  }
  // Of two children in one place the supervisor has seen the first one die.
  if (supervised(join)) return {};
  if (reserved(join.role, index)) {
    return {text(place, " is a place of the run's supervisor, pid ", supervisor_->pid, " on ", supervisor_->host,
                 ", which restarts what dies there", advice(join.role, free))};
  }
  if (!holder) return {};
  std::erase_if(asked_, [&](const auto& entry) { return now - entry.second > remembered; });
  if (asked_.size() >= most_remembered) asked_.clear();
  const auto since = asked_.try_emplace(join.incarnation, now).first->second;
  const auto who = text(place, " is pid ", holder->pid, " on ", holder->host, ", which was heard ",
                        tenths(now - holder->heard), " ago");
  if (holder->heard > since) return {who + advice(join.role, free)};
  if (holder->silence >= holder_silence) {
    asked_.erase(join.incarnation);
    return {};
  }
  return {text(who, ": it must be silent for ", tenths(std::chrono::duration_cast<Nanoseconds>(holder_silence)),
               " before another takes its place"),
          true};
}

std::int64_t Places::free_index(wire::Role role, const std::set<std::int64_t>& taken) const {
  std::int64_t index = 0;
  while (taken.contains(index) || reserved(role, index)) ++index;
  return index;
}

}  // namespace qanat::control
