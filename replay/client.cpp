#include "replay/client.h"

#include <algorithm>
#include <thread>

#include "core/error.h"

namespace qanat::replay {
namespace {

constexpr Milliseconds ask_again{100};
// How long new priorities wait for a request that they can go with.
constexpr Milliseconds priorities_wait{10};
// What a reply should weigh at most: it stays in a processor's cache from one pass over it to the next, and several
// replies are gathered, sent and checked at the same time.
constexpr std::size_t part_bytes = 512UL << 10;
// About so many requests are under way at most: a shard's queue, and ours for its replies, hold a thousand messages.
constexpr std::size_t most_parts = 256;

}  // namespace

std::size_t ClientOptions::spare_processors() {
  const std::size_t processors = std::thread::hardware_concurrency();
  return processors < 8 ? 0 : processors / 4 - 1;
}

ReplayClient::ReplayClient(wire::Context& context, const Clock& clock, ClientOptions options)
    : context_(context), clock_(clock), options_(std::move(options)), rng_(options_.seed) {
  for (const auto& column : options_.schema.observations) row_bytes_.push_back(column.bytes());
  for (const auto& column : options_.schema.extras) row_bytes_.push_back(column.bytes());
  const auto item = std::max<std::size_t>(1, item_bytes(options_.schema, options_.stack, options_.n_step));
  const auto ahead = std::size_t{options_.batch} * std::max(1U, options_.prefetch);
  const auto wanted = std::max(part_bytes / item, (ahead + most_parts - 1) / most_parts);
  largest_part_ = static_cast<std::uint32_t>(std::clamp<std::size_t>(wanted, 1, largest_reply_bytes / item / 2 + 1));
}

void ReplayClient::set_shards(const std::vector<ShardAddress>& shards) {
  std::vector<Shard> next;
  for (const auto& address : shards) {
    const auto found =
        std::find_if(shards_.begin(), shards_.end(), [&](const Shard& s) { return s.address == address; });
    if (found != shards_.end()) {
      next.push_back(std::move(*found));
      shards_.erase(found);
      continue;
    }
    Shard fresh;
    fresh.address = address;
    const wire::SocketOptions options{
        .identity = options_.identity, .check_parts = false, .io_thread = static_cast<int>(address.index)};
    fresh.socket = std::make_unique<wire::Socket>(context_, wire::SocketKind::dealer, options);
    fresh.socket->connect(address.sample);
    fresh.heard = clock_.now();
    next.push_back(std::move(fresh));
  }
  for (const auto& gone : shards_) closed_ += gone.socket->traffic();
  std::sort(next.begin(), next.end(), [](const Shard& a, const Shard& b) { return a.address.index < b.address.index; });
  shards_ = std::move(next);
  for (auto& round : pending_) {
    pass_on(round, [&](const Part& part) { return !find(round.shares[part.share]); });
  }
}

ReplayClient::Shard* ReplayClient::find(const Share& share) {
  for (auto& shard : shards_) {
    if (shard.address.index == share.shard && shard.address.incarnation == share.incarnation) return &shard;
  }
  return nullptr;
}

bool ReplayClient::step() {
  bool any = false;
  const auto now = clock_.now();
  for (auto& shard : shards_) {
    shard.full = false;
    for (auto& message : shard.socket->receive_all()) {
      any = true;
      shard.heard = now;
      shard.silent = false;
      try {
        handle(shard, std::move(message));
      } catch (const InputError& error) {
        shard.socket->refuse(error.what());  // its part is asked for again when a later one was answered, or none
      }
    }
    const bool stale = !shard.known || shard.items == 0 || now - shard.heard > options_.silent_after / 2;
    // One that is silent is asked more seldom: all the questions would reach it at once.
    if (stale && now - shard.asked >= (shard.silent ? ask_again * 5 : ask_again)) ask(shard);
  }
  for (auto& round : pending_) follow_up(round);
  if (priorities_since_ && now - *priorities_since_ >= priorities_wait) send_priorities();
  return any;
}

// Sends what could not be sent before and what was lost; what silent shards owe goes to others.
void ReplayClient::follow_up(Round& round) {
  bool silence = false;
  for (auto& part : round.parts) {
    if (part.reply) continue;
    auto* shard = find(round.shares[part.share]);
    if (part.unsent && shard && !shard->full && !shard->silent) send(*shard, part);
    if (!lost(part, shard)) continue;
    if (shard && clock_.now() - shard->heard > options_.silent_after) shard->silent = true;
    if (shard && !shard->silent) {
      send(*shard, part);
    } else {
      silence = true;
    }
  }
  if (!silence) return;
  pass_on(round, [&](const Part& part) {
    const auto* shard = find(round.shares[part.share]);
    return !shard || shard->silent;
  });
}

// Whether the part's request or its answer was lost: a later one was answered, or none is any more.
bool ReplayClient::lost(const Part& part, const Shard* shard) const {
  const auto now = clock_.now();
  if (!shard) return now - part.sent > options_.silent_after;
  if (!part.unsent && shard->last_answered > part.request && now - part.sent > ask_again) return true;
  return now - std::max(part.sent, shard->answered) > options_.silent_after;
}

void ReplayClient::ask(Shard& shard) {
  auto message = wire::encode(wire::SampleRequest{epoch_, 0, 0, max_priority()});
  (void)shard.socket->send(message);
  shard.asked = clock_.now();
}

float ReplayClient::max_priority() const {
  float largest = 0;
  for (const auto& shard : shards_) largest = std::max(largest, shard.max_priority);
  return largest;
}

bool ReplayClient::request(std::uint32_t batches) {
  send_priorities();
  Round round;
  round.batches = batches;
  if (!allot(round, options_.batch * batches, 1)) return false;
  pending_.push_back(std::move(round));
  in_flight_ += batches;
  return true;
}

// Of each shard, what a draw is its with. All 0 when nobody is known to have anything.
std::vector<double> ReplayClient::weights() const {
  double total_mass = 0;
  double total_items = 0;
  for (const auto& shard : shards_) {
    if (!shard.known || shard.silent) continue;
    total_mass += static_cast<double>(shard.mass);
    total_items += static_cast<double>(shard.items);
  }
  std::vector<double> out(shards_.size(), 0);
  if (total_items == 0) return out;
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    const auto& shard = shards_[s];
    if (!shard.known || shard.silent) continue;
    out[s] =
        total_mass > 0 ? static_cast<double>(shard.mass) / total_mass : static_cast<double>(shard.items) / total_items;
  }
  return out;
}

// Draws which shards serve `draws` draws, with `portion` of the round's probability between them, and asks them. False
// when nobody has anything.
bool ReplayClient::allot(Round& round, std::uint32_t draws, double portion) {
  const auto weight = weights();
  if (std::all_of(weight.begin(), weight.end(), [](double w) { return w <= 0; })) return false;
  std::vector<std::uint32_t> counts(shards_.size(), 0);
  for (std::uint32_t i = 0; i < draws; ++i) {
    double u = (i + rng_.uniform()) / draws;
    std::size_t chosen = shards_.size();
    for (std::size_t s = 0; s < shards_.size(); ++s) {
      if (weight[s] <= 0) continue;
      chosen = s;  // the last one with any weight takes what rounding leaves over
      if (u < weight[s]) break;
      u -= weight[s];
    }
    ++counts[chosen];
  }
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    if (weight[s] <= 0) continue;
    const auto share = share_of(round, shards_[s]);
    round.shares[share].q += portion * weight[s];
    round.shares[share].draws += counts[s];
    ask_for(round, share, shards_[s], counts[s]);
  }
  return true;
}

std::size_t ReplayClient::share_of(Round& round, const Shard& shard) {
  for (std::size_t i = 0; i < round.shares.size(); ++i) {
    const auto& share = round.shares[i];
    if (share.shard == shard.address.index && share.incarnation == shard.address.incarnation) return i;
  }
  round.shares.push_back({shard.address.index, shard.address.incarnation, 0, 0});
  return round.shares.size() - 1;
}

// Asks a shard for so many draws, stratified over its whole mass.
void ReplayClient::ask_for(Round& round, std::size_t share, Shard& shard, std::uint32_t draws) {
  Strata strata{0, draws};
  // Which request asks for which strata is as good as drawn for each: an item that the moving mass carries from the
  // strata of one request into those of another is met by both or by neither equally often.
  if (draws > largest_part_) strata.first = static_cast<std::uint32_t>(rng_.below(draws));
  for (auto left = draws; left > 0;) {
    Part part;
    part.share = share;
    part.count = std::min(left, largest_part_);
    part.strata = strata;
    left -= part.count;
    strata.first = (strata.first + part.count) % strata.total;
    send(shard, part);
    round.parts.push_back(std::move(part));
  }
}

void ReplayClient::send(Shard& shard, Part& part) {
  part.request = next_request_++;
  auto message = wire::encode(
      wire::SampleRequest{epoch_, part.request, part.count, max_priority(), part.strata.first, part.strata.total});
  shard.full = shard.socket->send(message) != wire::Sent::yes;
  // What waits for room in a queue waits since it first did.
  if (!part.unsent || !shard.full) part.sent = clock_.now();
  part.unsent = shard.full;
}

// The draws of the parts that are `owed` and not answered go to the shards that have something, and with them the
// shares of those who owe them: the part of a share that its open draws are of all its draws. A shard without a draw in
// the round gives up all of its share when it is gone or silent: it might have owed some.
// When nobody has anything now, the parts wait for their next turn.
void ReplayClient::pass_on(Round& round, const Condition& owed) {
  const auto open = [&](const Part& part) { return !part.reply && owed(part); };
  std::vector<std::uint32_t> counts(round.shares.size(), 0);
  for (const auto& part : round.parts) counts[part.share] += open(part) ? part.count : 0;
  std::uint32_t draws = 0;
  double portion = 0;
  std::vector<double> given(round.shares.size(), 0);
  for (std::size_t i = 0; i < round.shares.size(); ++i) {
    const auto& share = round.shares[i];
    const auto* shard = find(share);
    const bool absent = !shard || shard->silent;
    if (counts[i] == share.draws) {
      given[i] = counts[i] > 0 || absent ? share.q : 0;
    } else {
      given[i] = share.q * counts[i] / share.draws;
    }
    draws += counts[i];
    portion += given[i];
  }
  if (draws == 0) return;
  const auto weight = weights();
  if (std::all_of(weight.begin(), weight.end(), [](double w) { return w <= 0; })) {
    for (auto& part : round.parts) {
      if (!open(part)) continue;
      part.unsent = false;
      part.sent = clock_.now() - std::chrono::duration_cast<Nanoseconds>(options_.silent_after) + ask_again;
    }
    return;
  }
  for (std::size_t i = 0; i < round.shares.size(); ++i) {
    round.shares[i].q -= given[i];
    round.shares[i].draws -= counts[i];
  }
  std::erase_if(round.parts, open);
  (void)allot(round, draws, portion);
}

// The same draws of the same shard, or of others when it is not there.
void ReplayClient::ask_again_for(Round& round, std::size_t part) {
  auto& wanted = round.parts[part];
  if (auto* shard = find(round.shares[wanted.share]); shard && !shard->silent) return send(*shard, wanted);
  pass_on(round, [request = wanted.request](const Part& one) { return one.request == request; });
}

void ReplayClient::handle(Shard& shard, wire::Incoming&& message) {
  if (message.type == static_cast<std::uint16_t>(wire::MessageType::save_reply)) {
    saves_.push_back({shard.address.index, wire::decode<wire::SaveReply>(message)});
    return;
  }
  auto reply = wire::decode<wire::SampleReply>(message);
  if (reply.epoch != epoch_) throw InputError(text("sample reply of epoch ", reply.epoch, ", wanted ", epoch_));
  shard.known = true;
  shard.mass = reply.mass;
  shard.items = reply.items;
  shard.max_priority = reply.max_priority;
  if (reply.request == 0) return;
  shard.answered = clock_.now();
  shard.last_answered = std::max(shard.last_answered, reply.request);
  for (auto& round : pending_) {
    for (std::size_t i = 0; i < round.parts.size(); ++i) {
      auto& part = round.parts[i];
      if (part.request != reply.request || part.reply) continue;
      if (reply.count == 0) return pass_on(round, [&](const Part& one) { return one.request == reply.request; });
      if (!message.parts.empty() && !message.parts[0].intact()) {
        shard.socket->refuse("sample reply: checksum mismatch of its item table");
        return ask_again_for(round, i);
      }
      return accept(part, reply, std::move(message));
    }
  }
  // An answer to a part that has moved elsewhere in the meantime: dropped.
}

void ReplayClient::check_parts(const wire::SampleReply& reply, const wire::Incoming& message) const {
  if (message.parts.size() != row_bytes_.size() + 1) {
    throw InputError(text("sample reply: ", message.parts.size(), " parts, wanted ", row_bytes_.size() + 1));
  }
  for (std::size_t c = 0; c < row_bytes_.size(); ++c) {
    if (message.parts[c + 1].size() != reply.rows * row_bytes_[c]) {
      throw InputError(text("sample reply: column ", c, " has ", message.parts[c + 1].size(), " bytes, wanted ",
                            reply.rows, " rows of ", row_bytes_[c]));
    }
  }
}

void ReplayClient::accept(Part& part, wire::SampleReply reply, wire::Incoming&& message) {
  if (reply.count != part.count) throw InputError(text("sample reply: ", reply.count, " items, wanted ", part.count));
  check_parts(reply, message);
  part.table.stack = options_.stack;
  part.table.n_step = options_.n_step;
  part.table.decode(message.parts[0].bytes(), reply.count, reply.rows);
  part.columns.assign(std::make_move_iterator(message.parts.begin() + 1), std::make_move_iterator(message.parts.end()));
  part.reply = reply;
}

void ReplayClient::update_priorities(const SampledBatch& batch, std::span<const float> priorities) {
  for (auto& shard : shards_) {
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (batch.shard[i] != shard.address.index || batch.incarnations[i] != shard.address.incarnation) continue;
      shard.slots.push_back(batch.table.slots[i]);
      shard.generations.push_back(batch.table.generations[i]);
      shard.priorities.push_back(priorities[i]);
    }
  }
  if (!priorities_since_) priorities_since_ = clock_.now();
}

void ReplayClient::send_priorities() {
  if (!priorities_since_) return;
  priorities_since_.reset();
  for (auto& shard : shards_) {
    if (shard.slots.empty()) continue;
    const auto count = shard.slots.size();
    wire::Frame handles(count * 12);
    std::memcpy(handles.mutable_bytes().data(), shard.slots.data(), count * 4);
    std::memcpy(handles.mutable_bytes().data() + count * 4, shard.generations.data(), count * 8);
    std::vector<wire::Frame> parts;
    parts.push_back(std::move(handles));
    parts.push_back(wire::Frame::copy_of(std::span<const float>(shard.priorities)));
    auto message = wire::encode(
        wire::PriorityUpdate{epoch_, shard.address.incarnation, static_cast<std::uint32_t>(count)}, std::move(parts));
    (void)shard.socket->send(message);  // a lost update leaves an older priority, nothing worse
    shard.slots.clear();
    shard.generations.clear();
    shard.priorities.clear();
  }
}

void ReplayClient::save(const std::string& directory) {
  send_priorities();
  for (auto& shard : shards_) ask_to_save(shard, directory);
}

void ReplayClient::save_again(std::int64_t index, const std::string& directory) {
  for (auto& shard : shards_) {
    if (shard.address.index == index) ask_to_save(shard, directory);
  }
}

// One that takes no messages now is asked again.
void ReplayClient::ask_to_save(Shard& shard, const std::string& directory) {
  auto message = wire::encode(wire::SaveRequest{epoch_, directory});
  (void)shard.socket->send(message);
}

std::uint64_t ReplayClient::items() const {
  std::uint64_t sum = 0;
  for (const auto& shard : shards_) sum += shard.items;
  return sum;
}

Seconds ReplayClient::mass_age() const {
  Nanoseconds oldest{0};
  for (const auto& shard : shards_) oldest = std::max(oldest, clock_.now() - shard.heard);
  return oldest;
}

std::vector<wire::Socket*> ReplayClient::sockets() {
  std::vector<wire::Socket*> out;
  for (auto& shard : shards_) out.push_back(shard.socket.get());
  return out;
}

wire::Traffic ReplayClient::traffic() const {
  auto sum = closed_;
  for (const auto& shard : shards_) sum += shard.socket->traffic();
  return sum;
}

}  // namespace qanat::replay
