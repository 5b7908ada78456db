#include "actors/shard_link.h"

#include <algorithm>

#include "core/error.h"
#include "replay/schema.h"

namespace qanat::actors {
namespace {

constexpr int longest_patience = 16;  // times resend_after

}  // namespace

ShardLink::ShardLink(wire::Context& context, const Clock& clock, ShardLinkOptions options)
    : context_(context), clock_(clock), options_(std::move(options)), patience_(options_.resend_after) {
  open();
}

void ShardLink::open() {
  socket_.emplace(context_, wire::SocketKind::dealer,
                  wire::SocketOptions{.identity = options_.identity, .watched = true});
  socket_->connect(options_.address);
  connections_ = 0;
}

void ShardLink::reopen(const std::string& address) {
  if (address == options_.address) return;
  options_.address = address;
  closed_ += socket_->traffic();
  open();
  resend_all();
}

void ShardLink::resend_all() {
  unsent_ = 0;
  if (ever_sent_ > 0) resent_ = clock_.now();
}

// What was under way on a connection that broke is lost.
void ShardLink::watch_connection() {
  const auto connections = socket_->connections();
  if (connections == connections_) return;
  if (connections_ > 0) {
    resend_all();
    patience_ = options_.resend_after;
    resend_at_ = clock_.now() + patience_;
  }
  connections_ = connections;
}

void ShardLink::queue(wire::Insert insert, std::vector<wire::Frame> parts) {
  for (const auto& chunk : insert.chunks) {
    const auto [entry, added] = streams_.try_emplace(chunk.slot);
    if (added) entry->second.acked = chunk.sequence;  // not 0 when a saved actor goes on
    entry->second.queued = chunk.sequence + 1;
  }
  if (batches_.empty()) {
    patience_ = options_.resend_after;
    resend_at_ = clock_.now() + patience_;
  }
  batches_.push_back({std::move(insert), std::move(parts)});
  if (epoch_) send_due();
}

bool ShardLink::step(std::uint64_t epoch, Events& events) {
  if (epoch != epoch_) {
    epoch_ = epoch;
    resend_all();
  }
  watch_connection();
  bool any = false;
  while (auto message = socket_->receive()) {
    any = true;
    try {
      const auto head = wire::decode<wire::InsertAck>(*message);
      if (head.shard_incarnation != options_.shard_incarnation) continue;  // one that had this address before
      for (const auto& ack : head.acks) take_in(ack, events);
    } catch (const InputError& error) {
      socket_->refuse(error.what());
    }
  }
  if (any) pop_settled();
  const auto now = clock_.now();
  if (any) {
    patience_ = options_.resend_after;
    resend_at_ = std::max(now, resent_) + patience_;
  } else if (!batches_.empty() && now >= resend_at_) {
    patience_ = std::min<Nanoseconds>(patience_ * 2, options_.resend_after * longest_patience);
    resend_at_ = now + patience_;
    resend_all();
  }
  send_due();
  return any;
}

bool ShardLink::settled(const wire::ChunkHead& chunk) const {
  const auto& stream = streams_.at(chunk.slot);
  return stream.refused || chunk.sequence < stream.acked;
}

void ShardLink::pop_settled() {
  const auto done = [&](const Batch& batch) {
    const auto& chunks = batch.insert.chunks;
    return std::all_of(chunks.begin(), chunks.end(), [&](const wire::ChunkHead& chunk) { return settled(chunk); });
  };
  while (!batches_.empty() && done(batches_.front())) {
    batches_.pop_front();
    if (unsent_ > 0) --unsent_;
    if (ever_sent_ > 0) --ever_sent_;
  }
}

void ShardLink::take_in(const wire::StreamAck& ack, Events& events) {
  const auto found = streams_.find(ack.slot);
  if (ack.incarnation != options_.incarnation || found == streams_.end()) return;  // a stream of before a resume
  auto& stream = found->second;
  if (stream.refused) return;
  if (ack.next_sequence > stream.queued) {
    throw InputError(text("stream ", ack.incarnation, '/', ack.slot, ": the shard wants chunk ", ack.next_sequence,
                          " next, but only ", stream.queued, " were sent"));
  }
  for (; stream.acked < ack.next_sequence; ++stream.acked) events.acked.push_back(ack.slot);
  if (ack.status == wire::AckStatus::refused) refuse(ack, stream, events);
}

// A message lost with a connection leaves a gap: the shard refuses what came after it, and everything is sent again.
// Refusals of a time soon after that are of what was on its way before. Only when the shard refuses the very chunk that
// it wants next, it is that chunk or the stream itself that it will not have.
void ShardLink::refuse(const wire::StreamAck& ack, Stream& stream, Events& events) {
  if (ack.next_sequence != stream.acked) return;  // the shard has got further since
  if (ack.sequence != ack.next_sequence) {
    if (clock_.now() - resent_ >= options_.resend_after) resend_all();
    return;
  }
  Refusal refusal;
  refusal.stream = ack.slot;
  refusal.from_the_start = stream.acked == 0;
  refusal.reason = text("the shard at ", options_.address, " refuses chunk ", stream.acked, " of stream ",
                        ack.incarnation, '/', ack.slot, ": ", ack.reason);
  for (const auto& batch : batches_) {
    for (std::size_t i = 0; i < batch.insert.chunks.size(); ++i) {
      const auto& chunk = batch.insert.chunks[i];
      if (chunk.slot != ack.slot || settled(chunk)) continue;
      ++refusal.chunks;
      refusal.steps += steps_of(batch, i);
    }
  }
  stream.refused = true;
  events.refused.push_back(std::move(refusal));
}

std::uint64_t steps_of(const ShardLink::Batch& batch, std::size_t index) {
  std::size_t row = 0;
  for (std::size_t i = 0; i < index; ++i) row += batch.insert.chunks[i].rows;
  const auto flags = batch.parts.back().bytes().subspan(row, batch.insert.chunks[index].rows);
  return static_cast<std::uint64_t>(std::count_if(flags.begin(), flags.end(), [](std::byte flag) {
    return (std::to_integer<std::uint8_t>(flag) & replay::flag_last_observation) == 0;
  }));
}

void ShardLink::send_due() {
  while (unsent_ < batches_.size()) {
    auto& batch = batches_[unsent_];
    batch.insert.epoch = *epoch_;
    std::vector<wire::Frame> parts;
    parts.reserve(batch.parts.size());
    // The last column first: the short ones then leave together with the head, and the receiver wakes once less.
    for (auto part = batch.parts.rbegin(); part != batch.parts.rend(); ++part) parts.push_back(part->share());
    auto message = wire::encode(batch.insert, std::move(parts));
    if (socket_->send(message) != wire::Sent::yes) return;  // the queue is full: later
    ++unsent_;
    if (unsent_ <= ever_sent_) ++resends_;
    ever_sent_ = std::max(ever_sent_, unsent_);
  }
}

wire::Traffic ShardLink::traffic() const {
  auto sum = closed_;
  sum += socket_->traffic();
  return sum;
}

}  // namespace qanat::actors
