#include "replay/server.h"

#include <algorithm>

#include "control/address.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/files.h"
#include "replay/run_schema.h"
#include "wire/inflow.h"

namespace qanat::replay {
namespace {

namespace fs = std::filesystem;
using wire::RunState;

constexpr Milliseconds measure_every{250};
// Of a reader's message: the handles of a million new priorities, more than a learner has batches ahead.
constexpr std::size_t largest_request_part_bytes = 16UL << 20;

}  // namespace

ShardOptions shard_options(const ReplayConfig& config, std::uint32_t stack, std::uint32_t n_step, std::uint32_t index) {
  ShardOptions options;
  const auto shards = static_cast<std::uint64_t>(config.shards);
  const auto capacity = static_cast<std::uint64_t>(config.capacity_steps);
  options.capacity_rows = capacity / shards + (index < capacity % shards ? 1 : 0);
  options.stack = stack;
  options.n_step = n_step;
  options.alpha = config.alpha;
  options.shard_index = index;
  options.selector = config.selector;
  return options;
}

ShardServer::ShardServer(wire::Context& context, const Clock& clock, Logger& log, ServerOptions options)
    : clock_(clock),
      log_(log),
      options_(std::move(options)),
      inserts_(context, wire::SocketKind::router,
               {.max_frame_bytes = static_cast<std::size_t>(options_.replay.max_frame_megabytes) << 20}),
      reads_(context, wire::SocketKind::router, {.max_frame_bytes = largest_request_part_bytes, .max_parts = 2}),
      member_(context, clock,
              [&] {
                options_.member.endpoints = {control::bind_service(inserts_, "insert", options_.bind),
                                             control::bind_service(reads_, "sample", options_.bind)};
                return options_.member;
              }()),
      counts_unread_(std::none_of(options_.bind.begin(), options_.bind.end(),
                                  [](const std::string& address) { return address.starts_with("inproc:"); })),
      measured_(clock.now()),
      last_step_(clock.now()) {}

bool ShardServer::step() {
  bool any = member_.step();
  if (finished_) return any;
  if (member_.abandoned()) throw RunError("no head was heard for too long: the shard ends");
  if (!member_.joined()) return any;
  if (!shard_) {
    if (member_.state() == RunState::ended) {  // before anybody described an environment
      member_.leave(member_.stop_cause());
      finished_ = true;
      return any;
    }
    if (!member_.schema()) return any;
    build();
    any = true;
  }
  any |= receive_inserts();
  bool served = apply_inserts();
  end_departed();
  served |= serve_reads();
  any |= served;
  any |= continue_save(served);
  // Asks for what waits and for about as much again, so that a steady stream never waits for the round trip.
  member_.use(used_, used_ + pending_credits_ + std::min(2 * usual_message_steps_, options_.most_steps_ahead),
              shard_->items());
  report();
  if (member_.state() == RunState::ended && !save_) {
    member_.leave(member_.stop_cause());
    finished_ = true;
  }
  return any;
}

std::vector<wire::Socket*> ShardServer::sockets() {
  if (full()) return {&member_.socket(), &reads_};  // what is not read must not wake us
  return {&member_.socket(), &inserts_, &reads_};
}

void ShardServer::request_stop(const std::string& cause) {
  // A shard is told to go by the run's end; a signal of its own takes it out of the run at once.
  member_.leave(cause);
  finished_ = true;
}

void ShardServer::build() {
  const auto index = static_cast<std::uint32_t>(member_.welcome().index);
  shard_.emplace(shard_options(options_.replay, options_.stack, options_.n_step, index),
                 schema_of(*member_.schema(), options_.discounted_return));
  rng_ = Rng(derive_seed(options_.seed, static_cast<int>(wire::Role::replay), index, member_.welcome().start_count));
  table_.stack = options_.stack;
  table_.n_step = options_.n_step;
  const auto& from = member_.welcome().resume_from;
  if (from.empty() || !fs::exists(part(from))) {
    if (!from.empty()) log_.warn("the checkpoint has no replay for this shard: it starts empty");
    return;
  }
  shard_->load(part(from), 0, [this] { member_.keep_alive(); });  // it may take minutes
  const auto bytes = read_file(fs::path(from) / text("shard-", index, ".rng"));
  ByteReader in(bytes, "shard rng");
  rng_.set_state(in.get<Rng::State>("state"));
  log_.info("restored ", shard_->resident_rows(), " rows, ", shard_->items(), " drawable items");
}

// Held inserts may fill the ring once over, no more: the rest waits in the sockets, and then with its senders.
bool ShardServer::full() const { return shard_ && pending_steps_ >= shard_->options().capacity_rows; }

bool ShardServer::receive_inserts() {
  bool any = false;
  if (full()) return any;
  for (auto& message : inserts_.receive_all()) {
    any = true;
    Pending pending;
    pending.peer = message.peer;
    try {
      pending.head = wire::decode<wire::Insert>(message);
      pending.columns = std::move(message.parts);
      std::reverse(pending.columns.begin(), pending.columns.end());
      check(pending);
    } catch (const InputError& error) {
      ++refused_;
      log_.warn("an insert was dropped: ", error.what());
      continue;
    }
    for (const auto& chunk : pending.head.chunks) {
      pending_steps_ += chunk.rows;
      pending_credits_ += credits_for(chunk);
    }
    pending_.push_back(std::move(pending));
  }
  return any;
}

// Sizes only: what the rows say is the shard's to judge.
void ShardServer::check(const Pending& pending) const {
  const auto columns = shard_->schema().column_count();
  if (pending.columns.size() != columns) {
    throw InputError(text("insert: ", pending.columns.size(), " columns, wanted ", columns));
  }
  if (pending.head.chunks.empty()) throw InputError("insert: no chunk");
  std::uint64_t rows = 0;
  for (const auto& chunk : pending.head.chunks) {
    if (chunk.rows == 0) throw InputError("insert: a chunk without rows");
    if (chunk.item_starts.size() != chunk.item_priorities.size()) {
      throw InputError(
          text("insert: ", chunk.item_starts.size(), " items, ", chunk.item_priorities.size(), " priorities"));
    }
    rows += chunk.rows;
  }
  for (std::size_t c = 0; c < columns; ++c) {
    if (pending.columns[c].size() != rows * shard_->column_bytes(c)) {
      throw InputError(text("insert: column ", c, " has ", pending.columns[c].size(), " bytes, wanted ", rows,
                            " rows of ", shard_->column_bytes(c)));
    }
  }
}

// Credits to ask for while a chunk waits: none for one that is too long to be taken.
std::uint64_t ShardServer::credits_for(const wire::ChunkHead& chunk) const {
  const bool fits =
      chunk.rows <= shard_->max_chunk_rows() && control::never_granted(options_.ledger, chunk.rows).empty();
  return fits ? chunk.rows : 0;
}

// What a message brings, large ones for some dozen messages longer. Only what was taken counts: credits that are asked
// for and not used hold up the other shards.
void ShardServer::learn_usual(std::uint64_t admitted) {
  if (admitted > 0) usual_message_steps_ = std::max(admitted, usual_message_steps_ - usual_message_steps_ / 16);
}

// Credits that the next chunk needs. None when it will be refused or is a repeat; one that no lease will ever cover
// must not hold up the others for ever.
std::uint64_t ShardServer::credits_needed(const Pending& pending) const {
  const auto& chunk = pending.head.chunks[pending.next_chunk];
  if (chunk.rows > shard_->max_chunk_rows()) return 0;
  if (chunk.sequence != shard_->next_sequence({chunk.incarnation, chunk.slot})) return 0;
  const auto steps = steps_in(pending);
  return control::never_granted(options_.ledger, steps).empty() ? steps : 0;
}

// Env steps of the next chunk: its rows but for last observations.
std::uint64_t ShardServer::steps_in(const Pending& pending) {
  const auto& chunk = pending.head.chunks[pending.next_chunk];
  const auto flags = pending.columns.back().bytes().subspan(pending.next_row, chunk.rows);
  return static_cast<std::uint64_t>(std::count_if(flags.begin(), flags.end(), [](std::byte flag) {
    return (static_cast<std::uint8_t>(flag) & flag_last_observation) == 0;
  }));
}

bool ShardServer::apply_inserts() {
  bool any = false;
  std::map<std::string, wire::InsertAck> acks;
  while (!pending_.empty()) {
    auto& front = pending_.front();
    if (front.next_chunk == front.head.chunks.size()) {
      learn_usual(front.admitted);
      pending_.pop_front();
      continue;
    }
    const bool over = member_.state() >= RunState::draining && member_.stop_cause() == control::stop_by_env_steps;
    const bool free = member_.state() >= RunState::closing;
    if (!over && !free && used_ + credits_needed(front) > member_.granted()) break;
    if (!over && shard_->snapshot_holds(front.head.chunks[front.next_chunk].rows)) break;
    auto& ack = acks[front.peer];
    ack.shard_incarnation = member_.incarnation();
    const auto used_before = used_;
    ack.acks.push_back(over ? turn_away(front) : apply(front));
    front.admitted += used_ - used_before;
    const auto& chunk = front.head.chunks[front.next_chunk];
    front.next_row += chunk.rows;
    pending_steps_ -= chunk.rows;
    pending_credits_ -= credits_for(chunk);
    ++front.next_chunk;
    any = true;
  }
  for (const auto& [peer, ack] : acks) {
    auto message = wire::encode(ack);
    (void)inserts_.send_to(peer, message);  // lost: the actor resends, and is answered "duplicate"
  }
  return any;
}

// The run has all the steps that it was to have.
wire::StreamAck ShardServer::turn_away(const Pending& pending) {
  const auto& head = pending.head.chunks[pending.next_chunk];
  return {head.incarnation, head.slot, head.sequence + 1, wire::AckStatus::unwanted, {}, head.sequence};
}

wire::StreamAck ShardServer::apply(const Pending& pending) {
  const auto& head = pending.head.chunks[pending.next_chunk];
  std::vector<std::span<const std::byte>> columns;
  for (std::size_t c = 0; c < pending.columns.size(); ++c) {
    const auto bytes = shard_->column_bytes(c);
    columns.push_back(pending.columns[c].bytes().subspan(pending.next_row * bytes, head.rows * bytes));
  }
  std::vector<ItemPriority> priorities;
  for (std::size_t i = 0; i < head.item_starts.size(); ++i) {
    priorities.push_back({head.item_starts[i], head.item_priorities[i]});
  }
  ChunkView chunk;
  chunk.stream = {head.incarnation, head.slot};
  chunk.sequence = head.sequence;
  chunk.first_row = head.first_row;
  chunk.rows = head.rows;
  chunk.columns = columns;
  chunk.priority_n = head.priority_n;
  chunk.priorities = priorities;
  wire::StreamAck ack{head.incarnation, head.slot, 0, wire::AckStatus::applied, {}, head.sequence};
  try {
    if (const auto why = control::never_granted(options_.ledger, steps_in(pending)); !why.empty())
      throw InputError(why);
    const auto result = shard_->insert(chunk, other_shards_max_);
    used_ += result.steps;
    ack.next_sequence = result.next_sequence;
    if (!result.applied) ack.status = wire::AckStatus::duplicate;
    streams_[head.incarnation].insert(head.slot);
  } catch (const InputError& error) {
    ++refused_;
    ack.next_sequence = shard_->next_sequence(chunk.stream);
    ack.status = wire::AckStatus::refused;
    ack.reason = error.what();
    log_.warn("a chunk was refused: ", error.what());
  }
  return ack;
}

// Streams of actors that left or are lost end, once nothing of them is held any more.
void ShardServer::end_departed() {
  if (streams_.empty()) return;
  for (const auto& member : member_.directory().members) {
    if (member.role != wire::Role::actor || member.state == wire::MemberState::alive) continue;
    const auto found = streams_.find(member.incarnation);
    if (found == streams_.end()) continue;
    const bool held = std::any_of(pending_.begin(), pending_.end(), [&](const Pending& pending) {
      return std::any_of(pending.head.chunks.begin(), pending.head.chunks.end(),
                         [&](const wire::ChunkHead& chunk) { return chunk.incarnation == member.incarnation; });
    });
    if (held) continue;
    for (const auto slot : found->second) shard_->end_stream({member.incarnation, slot}, other_shards_max_);
    streams_.erase(found);
  }
}

void ShardServer::report() {
  const auto now = clock_.now();
  if (!pending_.empty()) held_ += now - last_step_;
  last_step_ = now;
  if (now - measured_ < measure_every) return;
  const auto& counters = shard_->counters();
  member_.set_metric("insert_hold_share", seconds(held_) / seconds(now - measured_));
  member_.set_metric("replay_items", static_cast<double>(shard_->items()));
  member_.set_metric("replay_rows", static_cast<double>(shard_->resident_rows()));
  member_.set_metric("stale_priority_updates", static_cast<double>(counters.stale_updates));
  member_.set_metric("refused_messages",
                     static_cast<double>(refused_ + inserts_.traffic().refused + reads_.traffic().refused));
  if (const auto resets = wire::connections_reset(); resets > resets_) {
    log_.warn(resets - resets_,
              " connections were reset: a message on each did not end, or its parts weighed more than ",
              2 * options_.replay.max_frame_megabytes, " MiB (twice replay.max_frame_megabytes), or it was not ours");
    resets_ = resets;
  }
  auto traffic = inserts_.traffic();
  traffic += reads_.traffic();
  traffic += member_.socket().traffic();
  member_.set_traffic(traffic);
  measured_ = now;
  held_ = Nanoseconds{0};
}

}  // namespace qanat::replay
