#include "control/head.h"

#include <algorithm>
#include <set>

#include "control/address.h"
#include "core/error.h"

namespace qanat::control {
namespace {

using wire::MemberState;
using wire::RunState;

constexpr std::size_t episodes_in_mean = 100;
// Members that left or were lost stay listed, so that shards learn which streams ended; the list is bounded.
constexpr std::size_t departed_kept = 500;

// Counts beyond this cannot be honest, and doubles would no longer hold them exactly.
constexpr std::uint64_t largest_count = std::uint64_t{1} << 53;
// How long closing waits for the last answers to be sent.
constexpr Milliseconds farewell{1000};
// Two heartbeats: by then every member knows that the run drains.
constexpr Milliseconds release_after{250};
// What a step takes beyond that is a pause, by a signal or a slow disk.
constexpr Milliseconds longest_step{500};
// Longer than a pause that a run must survive.
constexpr Seconds draining_silence{6};
constexpr std::size_t messages_at_once = 4096;
// Updates are done many times a second as a rule; what is computed for the supervisor only when they are not.
constexpr Milliseconds worth_saying{500};
// As actors.chunk_steps.
constexpr std::uint64_t most_chunk_steps = 65536;

// Metrics of several members of one role become one: shares and means are averaged, the rest is added up.
bool is_averaged(std::string_view name) { return name.ends_with("_share") || name.ends_with("_mean"); }

// Written so that NaN becomes 0: casting one that does not fit is undefined.
std::uint64_t as_count(double value) {
  return value > 0 ? static_cast<std::uint64_t>(std::min(value, static_cast<double>(largest_count))) : 0;
}

bool valid(const wire::EnvironmentSchema& schema) {
  if (schema.observations.empty() || schema.observations.size() > 8) return false;
  if (schema.actions < 1 || schema.actions > (1 << 20) || schema.max_episode_steps < 0) return false;
  for (const auto& observation : schema.observations) {
    if (observation.tensor.shape.size() > 8 || !(observation.low <= observation.high)) return false;
    std::int64_t elements = 1;
    for (const auto extent : observation.tensor.shape) {
      if (extent < 1 || extent > (1 << 28) || (elements *= extent) > (1 << 28)) return false;
    }
  }
  return true;
}

}  // namespace

Head::Head(wire::Context& context, const Clock& clock, Logger& log, HeadOptions options, OnMetrics on_metrics)
    : clock_(clock),
      log_(log),
      options_(std::move(options)),
      on_metrics_(std::move(on_metrics)),
      socket_(context, wire::SocketKind::router, {.identity = {}, .linger = farewell}),
      ledger_([&] {
        options_.ledger.stop = options_.stop_env_steps;
        return options_.ledger;
      }()),
      places_(options_.supervisor),
      saver_(options_.run_dir),
      epoch_(options_.epoch),
      entered_(clock.now()),
      stepped_(entered_),
      next_metrics_(entered_),
      last_metrics_(entered_),
      stall_(entered_) {
  for (const auto& address : options_.bind) addresses_.push_back(socket_.bind(address));
  if (!options_.schema.empty()) schema_ = options_.schema.front();
  for (const auto& address : addresses_) log_.info("listening on ", address);
}

bool Head::step() {
  const auto now = clock_.now();
  awake_ += std::min<Nanoseconds>(now - stepped_, longest_step);
  stepped_ = now;
  const auto messages = socket_.receive_all(messages_at_once);
  const bool any = !messages.empty();
  for (const auto& message : messages) {
    try {
      handle(message);
    } catch (const InputError& error) {
      drop(message, error.what());
    }
  }
  // With more to read, some members' heartbeats may still wait behind a pause of ours.
  if (messages.size() < messages_at_once) watch();
  answer_saves();
  advance();
  send_grants();
  if (now >= next_metrics_) write_metrics();
  return any;
}

void Head::handle(const wire::Incoming& message) {
  switch (static_cast<wire::MessageType>(message.type)) {
    case wire::MessageType::config_get: {
      auto answer = wire::encode(wire::ConfigReply{options_.config, options_.run_name, options_.run_dir, epoch_});
      (void)socket_.send_to(message.peer, answer);
      break;
    }
    case wire::MessageType::join:
      on_join(message);
      break;
    case wire::MessageType::heartbeat:
      on_heartbeat(message);
      break;
    case wire::MessageType::leave: {
      const auto leave = wire::decode<wire::Leave>(message);
      if (auto* entry = find(leave.incarnation)) change(*entry, MemberState::left, leave.reason);
      break;
    }
    case wire::MessageType::ledger_report:
      on_ledger_report(message);
      break;
    case wire::MessageType::save_request:
      on_save(message);
      break;
    default:
      throw InputError(text("type ", message.type, " is not for the head"));
  }
}

void Head::on_save(const wire::Incoming& message) {
  const auto request = wire::decode<wire::SaveRequest>(message);
  if (request.epoch != epoch_) {
    auto answer = wire::encode(
        wire::SaveReply{request.directory, text("asked in epoch ", request.epoch, "; it is ", epoch_), {}});
    (void)socket_.send_to(message.peer, answer);
    return;
  }
  ByteWriter state;
  save(state);
  saver_.save(message.peer, request.directory, state.take());
}

void Head::answer_saves() {
  for (const auto& [peer, reply] : saver_.take()) {
    auto answer = wire::encode(reply);
    (void)socket_.send_to(peer, answer);
  }
}

// The log says it at most once a second: a broken peer must not fill the disk.
void Head::drop(const wire::Incoming& message, const std::string& why) {
  socket_.refuse(why);
  ++dropped_;
  if (clock_.now() < next_dropped_) return;
  log_.warn("dropped ", dropped_, " messages; the last, of '", message.peer, "' ", message.address, ": ", why);
  dropped_ = 0;
  next_dropped_ = clock_.now() + std::chrono::seconds(1);
}

void Head::on_ledger_report(const wire::Incoming& message) {
  const auto report = wire::decode<wire::LedgerReport>(message);
  if (std::max({report.used, report.drawable, report.granted}) > largest_count) {
    throw InputError(text("a ledger report of ", report.used, " used, ", report.drawable, " drawable, ", report.granted,
                          " granted; wanted at most ", largest_count, " each"));
  }
  auto* entry = find(report.incarnation);
  if (!entry || entry->info.state != MemberState::alive) return;
  hear(*entry);
  const bool was_counting = ledger_.counting();
  ledger_.report(report.incarnation, report.used, report.wanted, report.drawable, report.granted);
  if (!was_counting && ledger_.counting()) {
    log_.info("replay holds ", ledger_.drawable(), " drawable items: training starts");
  }
  const auto granted = ledger_.granted(report.incarnation);
  if (granted > report.granted) {  // the grant is on its way, or was lost
    auto answer = wire::encode(wire::LedgerGrant{granted, ledger_.counting(), ledger_.balance()});
    (void)socket_.send_to(entry->peer, answer);
  }
}

void Head::refuse(const std::string& peer, const std::string& reason) {
  wire::JoinReply reply;
  reply.reason = reason;
  auto message = wire::encode(reply);
  (void)socket_.send_to(peer, message);
  log_.warn("refused a member: ", reason);
}

// Whether the one who asks may have the place; it is told when not.
bool Head::has_place(const wire::Incoming& message, const wire::Join& join, std::int64_t index) {
  std::optional<Places::Holder> held;
  if (const auto* entry = holder(join.role, index)) {
    held = {entry->info.pid, entry->host, entry->last_heard, silence(*entry)};
  }
  const auto verdict = places_.judge(join, index, held, free_index(join.role), clock_.now());
  if (verdict.objection.empty()) return true;
  if (!verdict.again) {
    refuse(message.peer, verdict.objection);
    return false;
  }
  wire::JoinReply reply;
  reply.reason = verdict.objection;
  reply.again = true;
  auto answer = wire::encode(reply);
  (void)socket_.send_to(message.peer, answer);
  return false;
}

std::string Head::objection(const wire::Join& join) const {
  if (join.role == wire::Role::head) return "a head cannot join";
  if (join.incarnation == 0) return "its incarnation is 0";
  if (!join.schema.empty()) {
    if (join.schema.size() > 1 || !valid(join.schema.front())) return "its environment's schema is not valid";
    if (schema_ && *schema_ != join.schema.front()) {
      return text("its environment is ", join.schema.front().describe(), "; this run's is ", schema_->describe());
    }
  }
  if (join.chunk_steps > most_chunk_steps) {
    return text("its chunks have ", join.chunk_steps, " steps, wanted at most ", most_chunk_steps);
  }
  if (const auto why = never_granted(options_.ledger, join.chunk_steps); !why.empty()) return why;
  if (state_ >= RunState::closing && join.role != wire::Role::supervisor) {
    return text("the run is ", wire::name_of(state_), " (", stop_cause_, ")");
  }
  return {};
}

bool Head::full_for(wire::Role role) const {
  if (role != wire::Role::actor && role != wire::Role::evaluate) return false;
  return alive(wire::Role::actor) + alive(wire::Role::evaluate) >= options_.most_actors;
}

// The member's entry, alive: a new one, or the one it had.
Head::Entry& Head::admit(const wire::Join& join, std::int64_t index) {
  if (auto* known = find(join.incarnation)) return *known;
  if (auto* other = holder(join.role, index)) {
    change(*other, MemberState::lost, "replaced by a new process of the same role and index");
  }
  auto& starts = starts_[{join.role, index}];
  if (starts.incarnation != join.incarnation) {
    ++starts.count;
    ++starts.since_load;
    starts.incarnation = join.incarnation;
    if (join.role == wire::Role::learner && starts.since_load > 1) {
      ++epoch_;
      log_.info("the learner was replaced: the epoch is ", epoch_);
    }
  }
  Entry fresh;
  fresh.info = {join.role, index, join.incarnation, MemberState::alive, join.pid, {}};
  fresh.parent = join.parent;
  fresh.host = join.host;
  members_.push_back(std::move(fresh));
  log_.info(wire::name_of(join.role), '-', index, " joined, pid ", join.pid, " on ", join.host);
  return members_.back();
}

void Head::on_join(const wire::Incoming& message) {
  const auto join = wire::decode<wire::Join>(message);
  const auto* known = find(join.incarnation);
  if (known && known->info.role != join.role) return refuse(message.peer, "its incarnation is another role's");
  if (known && known->info.state != MemberState::alive && holder(join.role, known->info.index)) {
    // Two that take each other's place in turn would both be useless.
    return refuse(message.peer, "another process took its place");
  }
  if (const auto why = objection(join); !why.empty()) return refuse(message.peer, why);
  const auto first = join.role == wire::Role::learner ? 0 : free_index(join.role);
  const auto index = join.index >= 0 ? join.index : first;
  if (!known && !has_place(message, join, index)) return;
  const bool takes_a_place = !(known && known->info.state == MemberState::alive) && !holder(join.role, index);
  if (takes_a_place && full_for(join.role)) {
    return refuse(message.peer, text("the run has ", options_.most_actors,
                                     " actors and evaluators, for as many its descriptors suffice; raise ulimit -n "
                                     "where the head, the learner and the shards are started"));
  }
  if (!join.schema.empty() && !schema_) {
    log_.info("environment: ", join.schema.front().describe());
    schema_ = join.schema.front();
  }
  auto& entry = admit(join, index);
  entry.peer = message.peer;
  hear(entry);
  entry.info.state = MemberState::alive;
  entry.info.endpoints = join.endpoints;
  for (auto& endpoint : entry.info.endpoints) {
    for (auto& address : endpoint.addresses) address = seen_from_outside(address, message.address);
  }
  ++directory_version_;
  ledger_.expect_chunk(join.chunk_steps);
  if (join.role == wire::Role::replay) ledger_.join(join.incarnation, Ledger::Side::insert);
  if (join.role == wire::Role::learner) ledger_.join(join.incarnation, Ledger::Side::draw);

  const auto& starts = starts_.at({join.role, entry.info.index});
  wire::JoinReply reply;
  reply.accepted = true;
  reply.index = entry.info.index;
  reply.epoch = epoch_;
  reply.start_count = starts.count - 1;
  reply.run_dir = options_.run_dir;
  // Those who were there when the run was (re)started take their part from its checkpoint; a learner that replaces
  // another goes on from the newest one of this run.
  if (starts.since_load <= 1) {
    reply.resume_from = options_.resume_from;
  } else if (join.role == wire::Role::learner) {
    reply.resume_from = checkpoint_.empty() ? options_.resume_from : checkpoint_;
  }
  auto answer = wire::encode(reply);
  (void)socket_.send_to(message.peer, answer);
  forget_old();
}

void Head::on_heartbeat(const wire::Incoming& message) {
  auto beat = wire::decode<wire::Heartbeat>(message);
  wire::HeartbeatReply reply;
  Entry* entry = find(beat.incarnation);
  if (!entry || entry->info.state != MemberState::alive) {
    reply.known = false;
  } else {
    hear(*entry);
    entry->peer = message.peer;
    entry->metrics = std::move(beat.metrics);
    entry->traffic = beat.traffic;
    entry->waiting = std::move(beat.waiting);
    for (const auto& episode : beat.episodes) {
      ++episodes_total_;
      episodes_.push_back(episode);
      if (episodes_.size() > episodes_in_mean) episodes_.pop_front();
    }
    if (!beat.checkpoint.empty()) checkpoint_ = beat.checkpoint;
    if (entry->info.role == wire::Role::learner) save_error_ = beat.save_error;
    if (!beat.stop_cause.empty() && state_ < RunState::draining) request_stop(beat.stop_cause);
    if (entry->info.role == wire::Role::supervisor) bury(*entry, beat.ended);
  }
  reply.epoch = epoch_;
  reply.state = state_;
  reply.stop_cause = stop_cause_;
  if (beat.directory_version != directory_version_) {
    wire::Directory directory{directory_version_, {}};
    for (const auto& member : members_) directory.members.push_back(member.info);
    reply.directory.push_back(std::move(directory));
  }
  if (!beat.has_schema && schema_) reply.schema.push_back(*schema_);
  reply.env_steps = ledger_.inserted_total();
  reply.updates = updates();
  if (entry && entry->info.role == wire::Role::supervisor) {
    reply.metrics = status().metrics;
    reply.save_error = save_error_;
    if (updates() == 0 || stall_.lasting(clock_.now()) > worth_saying) reply.waiting = obstacle();
  }
  auto answer = wire::encode(reply);
  (void)socket_.send_to(message.peer, answer);
}

// It is known at once that they are gone, so that nobody waits for their word.
void Head::bury(const Entry& supervisor, const std::vector<std::int64_t>& pids) {
  for (auto& member : members_) {
    if (member.info.state != MemberState::alive) continue;
    if (member.parent != supervisor.info.pid || member.host != supervisor.host) continue;
    if (std::find(pids.begin(), pids.end(), member.info.pid) != pids.end())
      change(member, MemberState::lost, "its process has ended");
  }
}

void Head::change(Entry& entry, MemberState state, const std::string& why) {
  if (entry.info.state == state) return;
  entry.info.state = state;
  ++directory_version_;
  ledger_.leave(entry.info.incarnation);
  log_.info(wire::name_of(entry.info.role), '-', entry.info.index,
            state == MemberState::left ? " left: " : " is lost: ", why);
}

void Head::forget_old() {
  std::size_t departed = 0;
  for (const auto& member : members_) departed += member.info.state != MemberState::alive;
  for (auto it = members_.begin(); it != members_.end() && departed > departed_kept;) {
    if (it->info.state != MemberState::alive) {
      ledger_.forget(it->info.incarnation);
      env_restarts_of_forgotten_ += env_restarts_of(*it);
      it = members_.erase(it);
      --departed;
    } else {
      ++it;
    }
  }
}

void Head::watch() {
  for (auto& member : members_) {
    if (member.info.state == MemberState::alive && silence(member) > options_.lost_after) {
      change(member, MemberState::lost, text("nothing heard for ", options_.lost_after.count(), " s"));
    }
  }
}

void Head::enter(RunState state, const std::string& why) {
  state_ = state;
  entered_ = clock_.now();
  log_.info("the run is ", wire::name_of(state), why.empty() ? "" : ": ", why);
}

void Head::request_stop(const std::string& cause) {
  if (state_ >= RunState::draining) return;
  stop_cause_ = cause;
  ratio_at_stop_ = ledger_.actual_ratio();
  enter(RunState::draining, cause);
}

void Head::advance() {
  const bool overdue = clock_.now() - entered_ > options_.drain_limit;
  switch (state_) {
    case RunState::starting:
      if (alive(wire::Role::learner) > 0 &&
          alive(wire::Role::replay) >= static_cast<std::size_t>(options_.expected_shards)) {
        enter(RunState::running, "");
      }
      break;
    case RunState::running:
      if (!first_step_ && ledger_.inserted_total() > steps_before_) first_step_ = clock_.now();
      if (options_.stop_env_steps > 0 && ledger_.inserted_total() >= options_.stop_env_steps) {
        request_stop(std::string(stop_by_env_steps));
      } else if (options_.stop_wall_seconds > 0 && wall_seconds() >= options_.stop_wall_seconds) {
        request_stop("wall_seconds");
      }
      break;
    case RunState::draining:
      // What is under way must be able to finish; but not before the actors have heard that they should stop.
      // At the stop's env steps there is nothing more to finish.
      if (stop_cause_ != stop_by_env_steps && clock_.now() - entered_ > release_after) ledger_.release();
      if (actors_draining() == 0 || overdue) enter(RunState::closing, overdue ? "some actors did not leave" : "");
      break;
    case RunState::closing:
      // Saving a large replay takes as long as it takes: only a lost learner ends the wait.
      if (alive(wire::Role::learner) == 0) enter(RunState::ended, "");
      break;
    case RunState::ended:
      break;
  }
}

void Head::hear(Entry& member) {
  member.last_heard = clock_.now();
  member.heard_awake = awake_;
}

// Actors that may still send something; those that have been silent for a while are not waited for.
std::size_t Head::actors_draining() const {
  return static_cast<std::size_t>(std::count_if(members_.begin(), members_.end(), [&](const Entry& member) {
    return member.info.role == wire::Role::actor && member.info.state == MemberState::alive &&
           silence(member) < draining_silence;
  }));
}

bool Head::finished() const {
  if (state_ != RunState::ended) return false;
  const bool overdue = clock_.now() - entered_ > options_.drain_limit;
  std::size_t left = 0;
  for (const auto& member : members_) {
    left += member.info.state == MemberState::alive && member.info.role != wire::Role::supervisor &&
            silence(member) < draining_silence;
  }
  return left == 0 || overdue;
}

void Head::send_grants() {
  for (const auto& grant : ledger_.grants()) {
    if (auto* entry = find(grant.member)) {
      auto message = wire::encode(wire::LedgerGrant{grant.granted, ledger_.counting(), ledger_.balance()});
      (void)socket_.send_to(entry->peer, message);  // lost: the member asks again
    }
  }
  report_waiting();
}

// Says in the log why one side waits, at most once in ten seconds, and what a run without updates waits for.
void Head::report_waiting() {
  const auto now = clock_.now();
  if (stall_.look(now, updates()) && state_ <= RunState::running)
    log_.warn("no update for ", static_cast<std::int64_t>(seconds(stall_.lasting(now))), " s: ", obstacle());
  if (state_ != RunState::running || now < next_waiting_) return;
  const auto waiting = ledger_.waiting();
  if (waiting.empty()) return;
  log_.info(waiting);
  next_waiting_ = clock_.now() + std::chrono::seconds(10);
}

std::size_t Head::alive(wire::Role role) const {
  return static_cast<std::size_t>(std::count_if(members_.begin(), members_.end(), [&](const Entry& member) {
    return member.info.role == role && member.info.state == MemberState::alive;
  }));
}

std::int64_t Head::free_index(wire::Role role) const {
  std::set<std::int64_t> taken;
  for (const auto& member : members_) {
    if (member.info.role == role && member.info.state == MemberState::alive) taken.insert(member.info.index);
  }
  return places_.free_index(role, taken);
}

Head::Entry* Head::find(std::uint64_t incarnation) {
  for (auto& member : members_) {
    if (member.info.incarnation == incarnation) return &member;
  }
  return nullptr;
}

Head::Entry* Head::holder(wire::Role role, std::int64_t index) {
  for (auto& member : members_) {
    if (member.info.role == role && member.info.index == index && member.info.state == MemberState::alive)
      return &member;
  }
  return nullptr;
}

double Head::wall_seconds() const {
  return options_.wall_before + (first_step_ ? seconds(clock_.now() - *first_step_) : 0);
}

std::vector<std::pair<std::string, double>> Head::gather_metrics() const {
  std::map<std::string, std::pair<double, int>> sums;
  for (const auto& member : members_) {
    if (member.info.state != MemberState::alive) continue;
    for (const auto& [name, value] : member.metrics) {
      auto& [sum, count] = sums[name];
      sum += value;
      ++count;
    }
  }
  std::vector<std::pair<std::string, double>> out;
  for (const auto& [name, entry] : sums) {
    out.emplace_back(name, is_averaged(name) ? entry.first / entry.second : entry.first);
  }
  return out;
}

std::optional<double> Head::last_value(std::string_view name) const {
  std::map<std::pair<wire::Role, std::int64_t>, double> newest;  // members_ stand in the order of their first joining
  for (const auto& member : members_) {
    for (const auto& [known, value] : member.metrics) {
      if (known == name) newest[{member.info.role, member.info.index}] = value;
    }
  }
  if (newest.empty()) return std::nullopt;
  double sum = 0;
  for (const auto& [key, value] : newest) sum += value;
  return sum;
}

std::uint64_t Head::updates() const {
  const auto heard = last_value("updates");
  return heard ? as_count(*heard) : options_.updates_before;
}

// Each process counts its own: one that took another's place begins at 0, so that the numbers of both are right.
std::uint64_t Head::env_restarts_of(const Entry& member) {
  for (const auto& [name, value] : member.metrics) {
    if (name == "env_restarts") return as_count(value);
  }
  return 0;
}

std::uint64_t Head::env_restarts() const {
  auto sum = env_restarts_of_forgotten_;
  for (const auto& member : members_) sum += env_restarts_of(member);
  return sum;
}

HeadStatus Head::status() const {
  HeadStatus out;
  out.state = state_;
  out.stop_cause = stop_cause_;
  out.epoch = epoch_;
  out.env_steps = ledger_.inserted_total();
  out.updates = updates();
  out.env_restarts = env_restarts();
  out.wall_seconds = wall_seconds();
  out.checkpoint = checkpoint_;
  out.save_error = save_error_;
  const auto add = [&](const char* name, double value) { out.metrics.emplace_back(name, value); };
  std::optional<double> acting_version;
  for (const auto& [name, value] : gather_metrics()) {
    if (name == "weights_version_mean") {
      acting_version = value;
    } else if (name != "updates" && name != "env_restarts") {
      out.metrics.emplace_back(name, value);
    }
  }
  for (const auto& [name, rate] : rates_) out.metrics.emplace_back(name, rate);
  // What is under way when the run stops is let in without being trained on, and does not count against the ratio.
  add("replay_ratio", ratio_at_stop_.value_or(ledger_.actual_ratio()));
  add("ledger_balance", ledger_.balance());
  add("actors", static_cast<double>(alive(wire::Role::actor)));
  add("episodes", static_cast<double>(episodes_total_));
  if (acting_version) add("policy_lag_updates", std::max(0.0, static_cast<double>(out.updates) - *acting_version));
  if (!episodes_.empty()) {
    double returns = 0;
    double lengths = 0;
    for (const auto& [episode_return, length] : episodes_) {
      returns += episode_return;
      lengths += static_cast<double>(length);
    }
    add("episode_return_mean", returns / static_cast<double>(episodes_.size()));
    add("episode_length_mean", lengths / static_cast<double>(episodes_.size()));
  }
  std::map<std::pair<wire::Role, std::int64_t>, MemberSummary> newest;
  for (const auto& member : members_) {
    auto& entry = newest[{member.info.role, member.info.index}];
    entry.role = member.info.role;
    entry.index = member.info.index;
    entry.pid = member.info.pid;
    entry.starts = starts_.at({member.info.role, member.info.index}).count;
    for (std::size_t i = 0; i < entry.traffic.size(); ++i) entry.traffic[i] += member.traffic[i];
  }
  for (const auto& [key, entry] : newest) out.members.push_back(entry);
  return out;
}

void Head::write_metrics() {
  const auto now = clock_.now();
  const double elapsed = seconds(now - last_metrics_);
  const auto env_steps = ledger_.inserted_total();
  const auto newest_updates = last_value("updates");
  if (elapsed > 0) {
    rates_ = {{"env_steps_per_second", static_cast<double>(env_steps - std::min(env_steps, last_env_steps_)) / elapsed},
              // The first count heard is where a resumed learner stands, not what it did since.
              {"updates_per_second", last_updates_ ? std::max(0.0, *newest_updates - *last_updates_) / elapsed : 0}};
  }
  last_env_steps_ = env_steps;
  last_updates_ = newest_updates;
  last_metrics_ = now;
  next_metrics_ = now + std::chrono::duration_cast<Nanoseconds>(options_.metrics_every);
  if (on_metrics_) on_metrics_(status());
}

void Head::save(ByteWriter& out) const {
  ledger_.save(out);
  out.put(wall_seconds());
  out.put(episodes_total_);
  out.put<std::uint64_t>(episodes_.size());
  for (const auto& [episode_return, length] : episodes_) {
    out.put(episode_return);
    out.put(length);
  }
  out.put(epoch_);
  out.put<std::uint64_t>(starts_.size());
  for (const auto& [key, starts] : starts_) {
    out.put(static_cast<std::uint8_t>(key.first));
    out.put(key.second);
    out.put(starts.count);
    out.put(starts.incarnation);
  }
}

void Head::load(ByteReader& in) {
  ledger_.load(in);
  options_.wall_before = in.get<double>("wall seconds");
  episodes_total_ = in.get<std::uint64_t>("episodes");
  episodes_.clear();
  for (auto count = in.get_count("recent episodes", episodes_in_mean, 16); count > 0; --count) {
    const auto episode_return = in.get<double>("return");
    episodes_.emplace_back(episode_return, in.get<std::int64_t>("length"));
  }
  epoch_ = std::max(epoch_, in.get<std::uint64_t>("epoch"));
  const std::uint64_t most_members = 1 << 20;
  for (auto count = in.get_count("starts", most_members, 25); count > 0; --count) {
    const auto role = in.get<std::uint8_t>("role");
    if (role > static_cast<std::uint8_t>(wire::Role::supervisor))
      in.fail("role", text("saw ", int{role}, ", wanted a role"));
    const auto index = in.get<std::int64_t>("index");
    auto& starts = starts_[{static_cast<wire::Role>(role), index}];
    starts.count = in.get<std::uint64_t>("start count");
    starts.incarnation = in.get<std::uint64_t>("incarnation");
  }
  last_env_steps_ = steps_before_ = ledger_.inserted_total();
}

}  // namespace qanat::control
