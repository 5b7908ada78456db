#include "replay/client.h"

#include <algorithm>
#include <atomic>
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
// Helpers are called for batches of at least so much: waking them takes as long as copying some hundred kilobytes.
constexpr std::size_t shared_bytes = 1UL << 20;
constexpr std::uint32_t no_row = ~0U;

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
    for (std::size_t i = round.parts.size(); i-- > 0;) {  // what is asked for anew comes last
      if (!round.parts[i].reply && !find(round.parts[i].shard, round.parts[i].incarnation)) reissue(round, i);
    }
  }
}

ReplayClient::Shard* ReplayClient::find(std::int64_t index, std::uint64_t incarnation) {
  for (auto& shard : shards_) {
    if (shard.address.index == index && shard.address.incarnation == incarnation) return &shard;
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
    const bool stale = !shard.known || shard.items == 0 || now - shard.heard > std::chrono::seconds(1);
    if (stale && now - shard.asked >= ask_again) ask(shard);
  }
  for (auto& round : pending_) {
    for (std::size_t i = round.parts.size(); i-- > 0;) {
      auto& part = round.parts[i];
      if (part.reply) continue;
      auto* shard = find(part.shard, part.incarnation);
      if (part.unsent && shard && !shard->full && !shard->silent) send(*shard, part);
      if (!lost(part, shard)) continue;
      if (shard && now - shard->heard > options_.silent_after) shard->silent = true;
      reissue(round, i);
    }
  }
  if (priorities_since_ && now - *priorities_since_ >= priorities_wait) send_priorities();
  return any;
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
  if (!allot(round, options_.batch * batches)) return false;
  pending_.push_back(std::move(round));
  in_flight_ += batches;
  return true;
}

// Draws which shards serve `draws` items, and asks them. False when nobody has anything.
bool ReplayClient::allot(Round& round, std::uint32_t draws) {
  double total_mass = 0;
  double total_items = 0;
  for (const auto& shard : shards_) {
    if (!shard.known || shard.silent) continue;
    total_mass += static_cast<double>(shard.mass);
    total_items += static_cast<double>(shard.items);
  }
  if (total_items == 0) return false;
  const auto weight = [&](const Shard& shard) {
    if (!shard.known || shard.silent) return 0.0;
    return total_mass > 0 ? static_cast<double>(shard.mass) / total_mass
                          : static_cast<double>(shard.items) / total_items;
  };
  std::vector<std::uint32_t> counts(shards_.size(), 0);
  for (std::uint32_t i = 0; i < draws; ++i) {
    double u = (i + rng_.uniform()) / draws;
    std::size_t chosen = shards_.size();
    for (std::size_t s = 0; s < shards_.size(); ++s) {
      const double w = weight(shards_[s]);
      if (w <= 0) continue;
      chosen = s;  // the last one with any weight takes what rounding leaves over
      if (u < w) break;
      u -= w;
    }
    ++counts[chosen];
  }
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    while (counts[s] > 0) {
      Part part;
      part.count = std::min(counts[s], largest_part_);
      part.share = weight(shards_[s]);
      counts[s] -= part.count;
      send(shards_[s], part);
      round.parts.push_back(std::move(part));
    }
  }
  return true;
}

void ReplayClient::send(Shard& shard, Part& part) {
  part.shard = shard.address.index;
  part.incarnation = shard.address.incarnation;
  part.request = next_request_++;
  auto message = wire::encode(wire::SampleRequest{epoch_, part.request, part.count, max_priority()});
  shard.full = shard.socket->send(message) != wire::Sent::yes;
  // What waits for room in a queue waits since it first did.
  if (!part.unsent || !shard.full) part.sent = clock_.now();
  part.unsent = shard.full;
}

// The part's draws go to the shards that are left. When none has anything now, the part waits for its next turn.
void ReplayClient::reissue(Round& round, std::size_t part) {
  const auto count = round.parts[part].count;
  if (allot(round, count)) {
    round.parts.erase(round.parts.begin() + static_cast<std::ptrdiff_t>(part));
    return;
  }
  round.parts[part].request = 0;
  round.parts[part].unsent = false;
  round.parts[part].sent = clock_.now() - std::chrono::duration_cast<Nanoseconds>(options_.silent_after) + ask_again;
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
      if (reply.count == 0) return reissue(round, i);
      if (!message.parts.empty() && !message.parts[0].intact()) {
        shard.socket->refuse("sample reply: checksum mismatch of its item table");
        return reissue(round, i);
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

std::optional<SampledBatch> ReplayClient::take(const RowMemory& memory) {
  if (pending_.empty()) return std::nullopt;
  auto& round = pending_.front();
  if (!std::all_of(round.parts.begin(), round.parts.end(), [](const Part& part) { return part.reply.has_value(); }))
    return std::nullopt;
  if (round.picks.empty()) deal(round);
  SampledBatch out = std::exchange(spare_, {});
  const auto picks = std::span<const Pick>(round.picks).subspan(round.taken * options_.batch, options_.batch);
  describe_items(round, picks, out);
  number_rows(round, picks, out);
  if (!copy_rows(round, memory, out)) {
    spare_ = std::move(out);
    drop_damaged(round);
    return std::nullopt;
  }
  --in_flight_;
  if (++round.taken == round.batches) pending_.pop_front();
  return out;
}

// The items stand in the order of their strata. Of each `batches` neighbours every batch gets one, which one is drawn.
void ReplayClient::deal(Round& round) {
  const auto batches = round.batches;
  round.picks.resize(std::size_t{batches} * options_.batch);
  std::uint32_t at = 0;
  std::uint32_t shift = 0;
  for (std::uint32_t p = 0; p < round.parts.size(); ++p) {
    for (std::uint32_t i = 0; i < round.parts[p].count; ++i, ++at) {
      if (batches > 1 && at % batches == 0) shift = static_cast<std::uint32_t>(rng_.below(batches));
      const auto batch = (at + shift) % batches;
      round.picks[std::size_t{batch} * options_.batch + at / batches] = {p, i};
    }
  }
}

void ReplayClient::describe_items(const Round& round, std::span<const Pick> picks, SampledBatch& out) const {
  const auto size = picks.size();
  auto& table = out.table;
  table.stack = options_.stack;
  table.n_step = options_.n_step;
  table.resize(size);
  out.probability.resize(size);
  out.shard.resize(size);
  out.incarnations.resize(size);
  out.items = items();
  for (std::size_t i = 0; i < size; ++i) {
    const auto& part = round.parts[picks[i].part];
    const auto& from = part.table;
    const std::size_t item = picks[i].item;
    table.generations[i] = from.generations[item];
    table.slots[i] = from.slots[item];
    table.leaves[i] = from.leaves[item];
    table.actions[i] = from.actions[item];
    table.steps[i] = from.steps[item];
    table.terminal[i] = from.terminal[item];
    std::copy_n(&from.rewards[item * table.n_step], table.n_step, &table.rewards[i * table.n_step]);
    const double local = part.reply->mass > 0
                             ? static_cast<double>(from.leaves[item]) / static_cast<double>(part.reply->mass)
                             : 1.0 / static_cast<double>(std::max<std::uint64_t>(1, part.reply->items));
    out.probability[i] = part.share * local;
    out.shard[i] = static_cast<std::uint32_t>(part.shard);
    out.incarnations[i] = part.incarnation;
  }
}

// Numbers the rows that these items need, in the order they come up.
void ReplayClient::number_rows(const Round& round, std::span<const Pick> picks, SampledBatch& out) {
  if (renumbered_.size() < round.parts.size()) renumbered_.resize(round.parts.size());
  for (std::size_t p = 0; p < round.parts.size(); ++p) renumbered_[p].assign(round.parts[p].reply->rows, no_row);
  sources_.clear();
  const auto number = [&](std::uint32_t part, std::uint32_t row) {
    auto& renumbered = renumbered_[part][row];
    if (renumbered == no_row) {
      renumbered = static_cast<std::uint32_t>(sources_.size());
      sources_.push_back({part, row});
    }
    return renumbered;
  };
  const std::size_t stack = options_.stack;
  for (std::size_t i = 0; i < picks.size(); ++i) {
    const auto& from = round.parts[picks[i].part].table;
    for (std::size_t k = 0; k < stack; ++k) {
      out.table.state[i * stack + k] = number(picks[i].part, from.state[picks[i].item * stack + k]);
      out.table.next_state[i * stack + k] = number(picks[i].part, from.next_state[picks[i].item * stack + k]);
    }
  }
  out.rows = static_cast<std::uint32_t>(sources_.size());
}

// Each row once, straight from the messages, part by part; a part is checked right before, so that it is in the cache.
// False: one was not intact.
bool ReplayClient::copy_rows(Round& round, const RowMemory& memory, SampledBatch& out) {
  std::vector<std::byte*> places(row_bytes_.size());
  out.columns.resize(row_bytes_.size());
  for (std::size_t c = 0; c < row_bytes_.size(); ++c) {
    const auto bytes = sources_.size() * row_bytes_[c];
    const auto place = c == 0 && memory ? memory(bytes) : std::span<std::byte>();
    out.columns[c].resize(place.empty() ? bytes : 0);
    places[c] = place.empty() ? out.columns[c].data() : place.data();
    if (c == 0) out.elsewhere = place.empty() ? nullptr : place.data();
  }
  const auto by_part = [](const Pick& source, std::size_t part) { return source.part < part; };
  std::atomic<bool> intact = true;
  const auto copy_part = [&](std::size_t index) {
    const auto& columns = round.parts[index].columns;
    const auto first = std::lower_bound(sources_.begin(), sources_.end(), index, by_part);
    const auto last = std::lower_bound(first, sources_.end(), index + 1, by_part);
    for (std::size_t c = 0; c < columns.size(); ++c) {
      if (!round.checked && !columns[c].intact()) {
        intact = false;
        return;
      }
      const auto* from = columns[c].bytes().data();
      auto* to = places[c] + static_cast<std::size_t>(first - sources_.begin()) * row_bytes_[c];
      for (auto source = first; source != last; ++source, to += row_bytes_[c]) {
        std::memcpy(to, from + source->item * row_bytes_[c], row_bytes_[c]);
      }
    }
  };
  if (sources_.size() * row_bytes_[0] >= shared_bytes) {
    if (!helpers_) helpers_.emplace(options_.helpers);
    helpers_->run(round.parts.size(), copy_part);
  } else {
    for (std::size_t i = 0; i < round.parts.size(); ++i) copy_part(i);
  }
  round.checked = intact;
  return intact;
}

// Asks again for what came damaged. Precondition: nothing of the round has been taken.
void ReplayClient::drop_damaged(Round& round) {
  round.picks.clear();
  for (std::size_t i = round.parts.size(); i-- > 0;) {
    auto& part = round.parts[i];
    const auto intact = [](const wire::Frame& column) { return column.intact(); };
    if (!part.reply || std::all_of(part.columns.begin(), part.columns.end(), intact)) continue;
    part.reply.reset();
    part.columns.clear();
    if (const auto* shard = find(part.shard, part.incarnation))
      shard->socket->refuse("sample reply: checksum mismatch");
    reissue(round, i);
  }
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
  for (auto& shard : shards_) {
    auto message = wire::encode(wire::SaveRequest{epoch_, directory});
    if (shard.socket->send(message) != wire::Sent::yes) {
      saves_.push_back({shard.address.index, {directory, "the shard does not take messages", {}}});
    }
  }
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
