#include "replay/client.h"

#include <algorithm>

#include "core/error.h"

namespace qanat::replay {
namespace {

constexpr Milliseconds ask_again{100};

}  // namespace

ReplayClient::ReplayClient(wire::Context& context, const Clock& clock, ClientOptions options)
    : context_(context), clock_(clock), options_(std::move(options)), rng_(options_.seed) {
  for (const auto& column : options_.schema.observations) row_bytes_.push_back(column.bytes());
  for (const auto& column : options_.schema.extras) row_bytes_.push_back(column.bytes());
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
    fresh.socket = std::make_unique<wire::Socket>(context_, wire::SocketKind::dealer,
                                                  wire::SocketOptions{.identity = options_.identity});
    fresh.socket->connect(address.sample);
    fresh.heard = clock_.now();
    next.push_back(std::move(fresh));
  }
  for (const auto& gone : shards_) closed_ += gone.socket->traffic();
  std::sort(next.begin(), next.end(), [](const Shard& a, const Shard& b) { return a.address.index < b.address.index; });
  shards_ = std::move(next);
  for (auto& batch : pending_) {
    for (std::size_t i = 0; i < batch.parts.size(); ++i) {
      if (!batch.parts[i].reply && !find(batch.parts[i].shard, batch.parts[i].incarnation)) reissue(batch, i);
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
    for (auto& message : shard.socket->receive_all()) {
      any = true;
      shard.heard = now;
      shard.silent = false;
      try {
        handle(shard, std::move(message));
      } catch (const InputError& error) {
        shard.socket->refuse(error.what());  // the part stays open and goes elsewhere when the shard keeps silent
      }
    }
    const bool stale = !shard.known || shard.items == 0 || now - shard.heard > std::chrono::seconds(1);
    if (stale && now - shard.asked >= ask_again) ask(shard);
  }
  for (auto& batch : pending_) {
    for (std::size_t i = 0; i < batch.parts.size(); ++i) {
      auto& part = batch.parts[i];
      if (part.reply || now - part.sent <= options_.silent_after) continue;
      if (auto* shard = find(part.shard, part.incarnation)) shard->silent = true;
      reissue(batch, i);
    }
  }
  return any;
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

bool ReplayClient::request() {
  Batch batch;
  if (!allot(batch, options_.batch)) return false;
  pending_.push_back(std::move(batch));
  return true;
}

// Draws which shards serve `draws` items, and asks them. False when nobody has anything.
bool ReplayClient::allot(Batch& batch, std::uint32_t draws) {
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
    if (counts[s] == 0) continue;
    Part part;
    part.count = counts[s];
    part.share = weight(shards_[s]);
    send(shards_[s], part);
    batch.parts.push_back(std::move(part));
  }
  return true;
}

void ReplayClient::send(Shard& shard, Part& part) {
  part.shard = shard.address.index;
  part.incarnation = shard.address.incarnation;
  part.request = next_request_++;
  part.sent = clock_.now();
  auto message = wire::encode(wire::SampleRequest{epoch_, part.request, part.count, max_priority()});
  (void)shard.socket->send(message);  // not taken: the silence moves the part elsewhere
}

// The part's draws go to the shards that are left. When none has anything now, the part waits for its next turn.
void ReplayClient::reissue(Batch& batch, std::size_t part) {
  const auto count = batch.parts[part].count;
  if (allot(batch, count)) {
    batch.parts.erase(batch.parts.begin() + static_cast<std::ptrdiff_t>(part));
    return;
  }
  batch.parts[part].request = 0;
  batch.parts[part].sent = clock_.now() - std::chrono::duration_cast<Nanoseconds>(options_.silent_after) + ask_again;
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
  for (auto& batch : pending_) {
    for (std::size_t i = 0; i < batch.parts.size(); ++i) {
      auto& part = batch.parts[i];
      if (part.request != reply.request || part.reply) continue;
      if (reply.count == 0) return reissue(batch, i);
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

std::optional<SampledBatch> ReplayClient::take() {
  if (pending_.empty()) return std::nullopt;
  const auto& parts = pending_.front().parts;
  if (!std::all_of(parts.begin(), parts.end(), [](const Part& part) { return part.reply.has_value(); }))
    return std::nullopt;
  SampledBatch out = std::exchange(spare_, {});
  assemble(pending_.front(), out);
  pending_.pop_front();
  return out;
}

namespace {

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

void append_offset(std::vector<std::uint32_t>& to, const std::vector<std::uint32_t>& from, std::uint32_t offset) {
  for (const auto index : from) to.push_back(index + offset);
}

}  // namespace

void ReplayClient::assemble(const Batch& batch, SampledBatch& out) {
  out.table.stack = options_.stack;
  out.table.n_step = options_.n_step;
  out.table.resize(0);
  out.probability.clear();
  out.shard.clear();
  out.incarnations.clear();
  out.columns.resize(row_bytes_.size());
  for (auto& column : out.columns) column.clear();
  out.rows = 0;
  out.items = items();
  for (const auto& part : batch.parts) {
    const auto& table = part.table;
    append(out.table.generations, table.generations);
    append(out.table.slots, table.slots);
    append(out.table.leaves, table.leaves);
    append_offset(out.table.state, table.state, out.rows);
    append_offset(out.table.next_state, table.next_state, out.rows);
    append(out.table.actions, table.actions);
    append(out.table.rewards, table.rewards);
    append(out.table.steps, table.steps);
    append(out.table.terminal, table.terminal);
    for (std::size_t i = 0; i < table.count(); ++i) {
      const double local = part.reply->mass > 0
                               ? static_cast<double>(table.leaves[i]) / static_cast<double>(part.reply->mass)
                               : 1.0 / static_cast<double>(std::max<std::uint64_t>(1, part.reply->items));
      out.probability.push_back(part.share * local);
      out.shard.push_back(static_cast<std::uint32_t>(part.shard));
      out.incarnations.push_back(part.incarnation);
    }
    for (std::size_t c = 0; c < row_bytes_.size(); ++c) {
      const auto bytes = part.columns[c].bytes();
      out.columns[c].insert(out.columns[c].end(), bytes.begin(), bytes.end());
    }
    out.rows += part.reply->rows;
  }
}

void ReplayClient::update_priorities(const SampledBatch& batch, std::span<const float> priorities) {
  for (auto& shard : shards_) {
    std::vector<std::uint32_t> slots;
    std::vector<std::uint64_t> generations;
    std::vector<float> values;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (batch.shard[i] != shard.address.index || batch.incarnations[i] != shard.address.incarnation) continue;
      slots.push_back(batch.table.slots[i]);
      generations.push_back(batch.table.generations[i]);
      values.push_back(priorities[i]);
    }
    if (slots.empty()) continue;
    wire::Frame handles(slots.size() * 12);
    std::memcpy(handles.mutable_bytes().data(), slots.data(), slots.size() * 4);
    std::memcpy(handles.mutable_bytes().data() + slots.size() * 4, generations.data(), generations.size() * 8);
    std::vector<wire::Frame> parts;
    parts.push_back(std::move(handles));
    parts.push_back(wire::Frame::copy_of(std::span<const float>(values)));
    auto message =
        wire::encode(wire::PriorityUpdate{epoch_, shard.address.incarnation, static_cast<std::uint32_t>(slots.size())},
                     std::move(parts));
    (void)shard.socket->send(message);  // a lost update leaves an older priority, nothing worse
  }
}

void ReplayClient::save(const std::string& directory) {
  for (auto& shard : shards_) {
    auto message = wire::encode(wire::SaveRequest{epoch_, directory});
    if (shard.socket->send(message) != wire::Sent::yes) {
      saves_.push_back({shard.address.index, {directory, "the shard does not take messages", 0}});
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
