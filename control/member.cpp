#include "control/member.h"

#include <unistd.h>

#include <algorithm>
#include <random>

#include "control/address.h"
#include "core/error.h"
#include "core/process.h"

namespace qanat::control {
namespace {

constexpr Milliseconds join_retry{500};
constexpr Seconds next_address_after{5};
// A lease that is short is asked for again this often, in case the head lost the question.
constexpr Milliseconds lease_retry{20};
// How soon to ask again for a place that another has.
constexpr Milliseconds held_retry{200};
constexpr Seconds silence_after{1};
constexpr Seconds say_silence_after{10};
constexpr Milliseconds pace_in_silence{1000};
// How long closing the socket waits for a Leave to be sent.
constexpr Milliseconds farewell{1000};

wire::SocketOptions socket_options(const MemberOptions& options) {
  return {.identity = text(wire::name_of(options.role), '-', options.incarnation), .linger = farewell};
}

}  // namespace

std::uint64_t new_incarnation() {
  std::random_device entropy;
  std::uint64_t number = 0;
  while (number == 0) number = (std::uint64_t{entropy()} << 32) | entropy();
  return number;
}

Member::Member(wire::Context& context, const Clock& clock, MemberOptions options)
    : context_(context),
      clock_(clock),
      options_(std::move(options)),
      socket_(context, wire::SocketKind::dealer, socket_options(options_)),
      last_heard_(clock.now()),
      stepped_(last_heard_),
      awake_since_(last_heard_),
      switched_(last_heard_) {
  if (options_.head.empty()) throw ConfigError("the head's address is missing; wanted --connect tcp://HOST:PORT");
  if (!options_.schema.empty()) schema_ = options_.schema.front();
  beat_.incarnation = lease_.incarnation = options_.incarnation;
  socket_.connect(options_.head[head_]);
}

void Member::open_socket() {
  socket_ = wire::Socket(context_, wire::SocketKind::dealer, socket_options(options_));
  socket_.connect(options_.head[head_]);
}

bool Member::step() {
  notice_pause();
  bool any = false;
  for (const auto& message : socket_.receive_all()) {
    any = true;
    take(message);
  }
  if (left_) return any;
  report_silence();
  try_next_address();
  const auto now = clock_.now();
  if (!welcome_ || rejoin_) {
    if (now >= next_join_) send_join();
    return any;
  }
  keep_alive();
  if (uses_ledger_ && now >= next_report_) report(lease_.wanted > grant_.granted);
  return any;
}

void Member::keep_alive() {
  if (welcome_ && !rejoin_ && !left_ && clock_.now() >= next_beat_) send_beat();
}

void Member::take(const wire::Incoming& message) {
  try {
    handle(message);
    last_heard_ = switched_ = clock_.now();
  } catch (const InputError& error) {
    socket_.refuse(error.what());
  }
}

// A process that was stopped for long could not hear the head: it asks before it gives it up. Shorter pauses are
// within what `give_up` forgives, and a role may take that long for a step of its own.
void Member::notice_pause() {
  const auto now = clock_.now();
  if (now - stepped_ > options_.give_up / 2) awake_since_ = now;
  stepped_ = now;
}

void Member::report_silence() {
  if (!options_.log) return;
  const auto silent = silence();
  if (silent <= say_silence_after) {
    if (said_silence_) options_.log->info("the head is heard again");
    said_silence_ = false;
  } else if (!said_silence_) {
    said_silence_ = true;
    options_.log->warn("no head was heard for ", say_silence_after.count(), " s at ", options_.head[head_],
                       ": waiting, until ", options_.give_up.count(), " s are over (control.give_up_seconds)");
  }
}

void Member::try_next_address() {
  const auto now = clock_.now();
  if (options_.head.size() < 2 || now - switched_ <= next_address_after) return;
  head_ = (head_ + 1) % options_.head.size();
  switched_ = now;
  open_socket();
  next_join_ = next_beat_ = next_report_ = Nanoseconds::min();
}

Nanoseconds Member::paced(Nanoseconds interval) const {
  const bool silence = clock_.now() - last_heard_ > silence_after;
  return silence ? std::max<Nanoseconds>(interval, pace_in_silence) : interval;
}

void Member::send_join() {
  wire::Join join;
  join.role = options_.role;
  join.index = welcome_ ? welcome_->index : options_.index;
  join.incarnation = options_.incarnation;
  join.pid = getpid();
  join.parent = getppid();
  join.host = host_name();
  join.commit = options_.commit;
  join.endpoints = options_.endpoints;
  join.schema = options_.schema;
  join.chunk_steps = options_.chunk_steps;
  auto message = wire::encode(join);
  if (socket_.send(message) == wire::Sent::yes) asked_to_join_ = true;  // would block: tried again in a moment
  next_join_ = clock_.now() + paced(join_retry);
}

void Member::send_beat() {
  beat_.directory_version = directory_.version;
  beat_.has_schema = schema_.has_value();
  auto message = wire::encode(beat_);
  if (socket_.send(message) == wire::Sent::yes) beat_.episodes.clear();
  next_beat_ = clock_.now() + paced(options_.heartbeat);
}

void Member::handle(const wire::Incoming& message) {
  switch (static_cast<wire::MessageType>(message.type)) {
    case wire::MessageType::join_reply: {
      auto reply = wire::decode<wire::JoinReply>(message);
      if (!reply.accepted && reply.again) {
        next_join_ = clock_.now() + held_retry;
        if (!said_held_ && options_.log) options_.log->info("waiting to join: ", reply.reason);
        said_held_ = true;
        break;
      }
      if (!reply.accepted) throw ConfigError("the head refused us: " + reply.reason);
      epoch_ = reply.epoch;
      rejoin_ = false;
      if (!welcome_) welcome_ = std::move(reply);
      reported_ = {};
      directory_.version = 0;
      break;
    }
    case wire::MessageType::heartbeat_reply: {
      auto reply = wire::decode<wire::HeartbeatReply>(message);
      if (!reply.known) {
        rejoin_ = true;
        break;
      }
      epoch_ = std::max(epoch_, reply.epoch);
      state_ = reply.state;
      stop_cause_ = reply.stop_cause;
      env_steps_ = reply.env_steps;
      updates_ = reply.updates;
      run_metrics_ = std::move(reply.metrics);
      save_error_ = std::move(reply.save_error);
      run_waits_for_ = std::move(reply.waiting);
      if (!reply.directory.empty()) directory_ = std::move(reply.directory.front());
      if (!reply.schema.empty()) schema_ = std::move(reply.schema.front());
      break;
    }
    case wire::MessageType::ledger_grant: {
      const auto grant = wire::decode<wire::LedgerGrant>(message);
      const auto before = grant_.granted;
      grant_ = grant;
      grant_.granted = std::max(before, grant.granted);
      break;
    }
    case wire::MessageType::save_reply:
      save_ = wire::decode<wire::SaveReply>(message);
      break;
    default:
      throw InputError(text("the head sent a message of type ", message.type, ", which members do not take"));
  }
}

bool Member::abandoned() const { return silence() > options_.give_up; }

Nanoseconds Member::silence() const { return clock_.now() - std::max(last_heard_, awake_since_); }

std::vector<const wire::MemberInfo*> Member::alive(wire::Role role) const {
  std::vector<const wire::MemberInfo*> out;
  for (const auto& member : directory_.members) {
    if (member.role == role && member.state == wire::MemberState::alive) out.push_back(&member);
  }
  std::sort(out.begin(), out.end(), [](const auto* a, const auto* b) { return a->index < b->index; });
  return out;
}

std::string Member::address_of(const wire::MemberInfo& member, std::string_view service) const {
  const auto& head = options_.head[head_];
  const auto scheme = head.substr(0, head.find("://") + 3);
  // Over ipc and inproc the head is on this machine.
  const auto host = scheme == "tcp://" ? head.substr(scheme.size(), head.rfind(':') - scheme.size()) : "127.0.0.1";
  for (const auto& endpoint : member.endpoints) {
    if (endpoint.service != service) continue;
    for (const auto& wanted : {scheme, std::string("tcp://")}) {
      for (const auto& address : endpoint.addresses) {
        if (address.starts_with(wanted)) return with_host(address, host);
      }
    }
  }
  return {};
}

void Member::set_metric(std::string_view name, double value) {
  for (auto& [known, newest] : beat_.metrics) {
    if (known == name) {
      newest = value;
      return;
    }
  }
  beat_.metrics.emplace_back(name, value);
}

void Member::set_traffic(const wire::Traffic& traffic) {
  beat_.traffic = {traffic.messages_in, traffic.messages_out, traffic.bytes_in, traffic.bytes_out, traffic.refused};
}

void Member::stop_run(std::string cause) {
  if (!beat_.stop_cause.empty()) return;
  beat_.stop_cause = std::move(cause);
  heartbeat_now();
}

void Member::use(std::uint64_t used, std::uint64_t wanted, std::uint64_t drawable) {
  lease_.used = used;
  lease_.wanted = wanted;
  lease_.drawable = drawable;
  uses_ledger_ = true;
  if (welcome_ && !rejoin_ && !left_) report(false);
}

// The other side waits for what we used, so it is told soon; but a message costs both sides more than a small step or
// update does. So it is said when half of the lease is used up and the head does not know it yet, or when as much
// as half a lease was used since the last report; the timer tells the rest. What the head still owes us comes without
// asking.
void Member::report(bool urgent) {
  const auto ahead = lease_.wanted - std::min(lease_.wanted, lease_.used);
  const auto left = grant_.granted - std::min(grant_.granted, lease_.used);
  const bool question = left < ahead && left * 2 <= ahead && reported_.wanted <= grant_.granted;
  const auto news = lease_.used - reported_.used;
  const bool enough = news * 2 >= std::max<std::uint64_t>(2, ahead);
  const bool first = reported_.incarnation == 0;
  if (!urgent && !question && !enough && !first && clock_.now() < next_report_) return;
  if (!urgent && !question && !first && news == 0 && lease_.drawable == reported_.drawable) return;
  lease_.granted = grant_.granted;
  auto message = wire::encode(lease_);
  if (socket_.send(message) == wire::Sent::yes) reported_ = lease_;
  next_report_ = clock_.now() + paced(lease_retry);
}

void Member::save_head(const std::string& directory) {
  auto message = wire::encode(wire::SaveRequest{epoch_, directory});
  if (socket_.send(message) != wire::Sent::yes)
    save_ = wire::SaveReply{directory, "the head does not take messages", {}};
}

void Member::leave(const std::string& reason) {
  if (!asked_to_join_ || left_) return;  // a head that never heard of us does not miss us
  left_ = true;
  if (welcome_ && !rejoin_) send_beat();
  auto message = wire::encode(wire::Leave{options_.incarnation, reason});
  (void)socket_.send(message);  // a head that cannot hear it notices our silence
}

}  // namespace qanat::control
