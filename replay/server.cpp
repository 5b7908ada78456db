#include "replay/server.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "control/address.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/files.h"
#include "replay/run_schema.h"

namespace qanat::replay {
namespace {

namespace fs = std::filesystem;
using wire::RunState;

constexpr Milliseconds measure_every{250};
// Bytes of a running snapshot written between two rounds of serving.
constexpr std::uint64_t snapshot_slice = 4 << 20;

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
      reads_(context, wire::SocketKind::router),
      member_(context, clock,
              [&] {
                options_.member.endpoints = {control::bind_service(inserts_, "insert", options_.bind),
                                             control::bind_service(reads_, "sample", options_.bind)};
                return options_.member;
              }()),
      measured_(clock.now()),
      last_step_(clock.now()) {}

bool ShardServer::step() {
  bool any = member_.step();
  if (finished_) return any;
  if (member_.abandoned()) throw RunError("no head was heard for too long: the shard ends");
  if (!member_.joined()) return any;
  if (!shard_) {
    if (!member_.schema()) return any;
    build();
    any = true;
  }
  any |= receive_inserts();
  any |= apply_inserts();
  end_departed();
  any |= serve_reads();
  continue_save();
  if (!saves_.empty()) any = true;
  // Asks for what waits and for about as much again, so that a steady stream never waits for the round trip.
  member_.use(used_, used_ + pending_steps_ + 2 * largest_message_steps_, shard_->items());
  report();
  if (member_.state() == RunState::ended && saves_.empty()) {
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
  shard_->load(part(from), 0);
  const auto bytes = read_file(fs::path(from) / text("shard-", index, ".rng"));
  ByteReader in(bytes, "shard rng");
  rng_.set_state(in.get<Rng::State>("state"));
  log_.info("restored ", shard_->resident_rows(), " rows, ", shard_->items(), " drawable items");
}

// A checkpoint goes into the run's directory, whoever asks: nobody writes elsewhere by our hand.
bool ShardServer::within_run(const fs::path& directory) const {
  const auto run_dir = fs::path(member_.welcome().run_dir).lexically_normal();
  const auto within = directory.lexically_normal().lexically_relative(run_dir);
  return !within.empty() && *within.begin() != "..";
}

fs::path ShardServer::part(const fs::path& directory) const {
  return directory / text("shard-", member_.welcome().index, ".bin");
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
    const auto steps = [&] {
      std::uint64_t rows = 0;
      for (const auto& chunk : pending.head.chunks) rows += chunk.rows;
      return rows;
    }();
    pending_steps_ += steps;
    largest_message_steps_ = std::max(largest_message_steps_, steps);
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

// Env steps that the next chunk adds: its rows but for last observations. None when it will be refused or is a repeat,
// which needs no credit; one that no lease will ever cover must not hold up the others for ever.
std::uint64_t ShardServer::steps_in(const Pending& pending) const {
  const auto& chunk = pending.head.chunks[pending.next_chunk];
  if (chunk.rows > shard_->max_chunk_rows()) return 0;
  if (chunk.sequence != shard_->next_sequence({chunk.incarnation, chunk.slot})) return 0;
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
      pending_.pop_front();
      continue;
    }
    const bool free = member_.state() >= RunState::closing;
    if (!free && used_ + steps_in(front) > member_.granted()) break;
    auto& ack = acks[front.peer];
    ack.shard_incarnation = member_.incarnation();
    ack.acks.push_back(apply(front));
    const auto rows = front.head.chunks[front.next_chunk].rows;
    front.next_row += rows;
    pending_steps_ -= rows;
    ++front.next_chunk;
    any = true;
  }
  for (const auto& [peer, ack] : acks) {
    auto message = wire::encode(ack);
    (void)inserts_.send_to(peer, message);  // lost: the actor resends, and is answered "duplicate"
  }
  return any;
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
  wire::StreamAck ack{head.incarnation, head.slot, 0, wire::AckStatus::applied, {}};
  try {
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

bool ShardServer::serve_reads() {
  bool any = false;
  for (const auto& message : reads_.receive_all()) {
    any = true;
    try {
      switch (static_cast<wire::MessageType>(message.type)) {
        case wire::MessageType::sample_request:
          serve_sample(message);
          break;
        case wire::MessageType::priority_update:
          serve_priorities(message);
          break;
        case wire::MessageType::save_request: {
          const auto request = wire::decode<wire::SaveRequest>(message);
          if (request.epoch != member_.epoch()) throw InputError(text("a checkpoint of epoch ", request.epoch));
          if (!within_run(request.directory)) {
            auto answer = wire::encode(wire::SaveReply{request.directory, "it is not within the run's directory", {}});
            (void)reads_.send_to(message.peer, answer);
            throw InputError(
                text("a checkpoint into ", request.directory, ", which is not within the run's directory"));
          }
          saves_.push_back({message.peer, {request.directory, {}, {}}});
          continue_save();  // now: what comes after this message must not be in it
          break;
        }
        default:
          throw InputError(text("type ", message.type, " is not for a shard"));
      }
    } catch (const InputError& error) {
      ++refused_;
      log_.warn("a request was dropped: ", error.what());
    }
  }
  return any;
}

wire::SampleReply ShardServer::state_reply(const wire::SampleRequest& request) {
  wire::SampleReply reply;
  reply.epoch = member_.epoch();
  reply.request = request.request;
  reply.shard_incarnation = member_.incarnation();
  reply.mass = shard_->mass();
  reply.items = shard_->items();
  reply.max_priority = shard_->max_priority().value_or(0);
  return reply;
}

void ShardServer::serve_sample(const wire::Incoming& message) {
  const auto request = wire::decode<wire::SampleRequest>(message);
  if (request.epoch != member_.epoch()) {
    throw InputError(text("a learner of epoch ", request.epoch, " asks; this is epoch ", member_.epoch()));
  }
  const auto item = item_bytes(shard_->schema(), options_.stack, options_.n_step);
  const auto most = std::clamp<std::size_t>(largest_reply_bytes / item, 1, 1U << 20);
  if (request.count > most)
    throw InputError(text("sample request for ", request.count, " items of ", item, " bytes, wanted at most ", most));
  other_shards_max_ = request.max_priority > 0 && std::isfinite(request.max_priority) ? request.max_priority : -1;
  auto reply = state_reply(request);
  std::vector<wire::Frame> parts;
  // By mass with the uniform selector too: its leaves are 1. Without a mass in the reply this shard would count for
  // nothing beside another that told the learner its mass in a state reply.
  if (request.count > 0 && shard_->draw(request.count, rng_, DrawMode::by_mass, draw_)) {
    reply.count = request.count;
    reply.rows = static_cast<std::uint32_t>(draw_.rows.size());
    reply.mass = draw_.mode == DrawMode::by_mass ? draw_.mass : 0;
    table_.resize(request.count);
    for (std::size_t i = 0; i < request.count; ++i) {
      table_.generations[i] = draw_.handles[i].generation;
      table_.slots[i] = draw_.handles[i].slot;
    }
    table_.leaves = draw_.leaves;
    table_.state = draw_.states;
    table_.next_state = draw_.next_states;
    std::memcpy(table_.actions.data(), draw_.actions.data(), draw_.actions.size());
    table_.rewards = draw_.rewards;
    table_.steps = draw_.steps;
    table_.terminal = draw_.terminal;
    parts.push_back(table_.encode());
    const auto& schema = shard_->schema();
    const auto add = [&](std::size_t column) {
      wire::Frame frame(draw_.rows.size() * shard_->column_bytes(column));
      shard_->gather(column, draw_.rows, frame.mutable_bytes().data());
      parts.push_back(std::move(frame));
    };
    for (std::size_t c = 0; c < schema.observations.size(); ++c) add(c);
    for (std::size_t c = 0; c < schema.extras.size(); ++c) add(schema.first_extra_column() + c);
  }
  auto answer = wire::encode(reply, std::move(parts));
  (void)reads_.send_to(message.peer, answer);  // a learner that is gone asks nobody
}

void ShardServer::serve_priorities(const wire::Incoming& message) {
  const auto update = wire::decode<wire::PriorityUpdate>(message);
  if (update.epoch != member_.epoch() || update.shard_incarnation != member_.incarnation()) {
    throw InputError(text("priorities of epoch ", update.epoch, " for another shard's life or epoch"));
  }
  const std::size_t count = update.count;
  if (message.parts.size() != 2 || message.parts[0].size() != count * 12 || message.parts[1].size() != count * 4) {
    throw InputError(text("priority update: its parts are not ", count, " handles and priorities"));
  }
  std::vector<std::uint32_t> slots(count);
  std::vector<std::uint64_t> generations(count);
  std::vector<float> priorities(count);
  const auto* handles_bytes = message.parts[0].bytes().data();
  std::memcpy(slots.data(), handles_bytes, count * 4);
  std::memcpy(generations.data(), handles_bytes + count * 4, count * 8);
  std::memcpy(priorities.data(), message.parts[1].bytes().data(), count * 4);
  std::vector<Handle> handles(count);
  const auto index = shard_->options().shard_index;
  for (std::size_t i = 0; i < count; ++i) handles[i] = {index, slots[i], generations[i]};
  const auto result = shard_->update_priorities(handles, priorities);
  if (result.refused > 0) log_.warn(result.refused, " of ", count, " new priorities were not finite and >= 0: refused");
}

WrittenFile ShardServer::begin_save(const fs::path& directory) {
  make_directories(directory);
  ByteWriter state;
  state.put(rng_.state());
  auto written = write_file_atomically(directory / text("shard-", member_.welcome().index, ".rng"), state.bytes());
  shard_->begin_snapshot(part(directory));
  return written;
}

std::vector<WrittenFile> ShardServer::save(const fs::path& directory) {
  const auto random_numbers = begin_save(directory);
  std::optional<WrittenFile> snapshot;
  while (!snapshot) snapshot = shard_->snapshot_some(snapshot_slice);
  return {random_numbers, *snapshot};
}

void ShardServer::continue_save() {
  if (saves_.empty()) return;
  auto& [peer, reply] = saves_.front();
  try {
    if (!shard_->snapshot_running()) reply.files = {begin_save(reply.directory)};
    const auto snapshot = shard_->snapshot_some(snapshot_slice);
    if (!snapshot) return;
    reply.files.push_back(*snapshot);
  } catch (const Error& error) {
    reply.error = error.what();
  }
  auto answer = wire::encode(reply);
  (void)reads_.send_to(peer, answer);
  saves_.pop_front();
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
  auto traffic = inserts_.traffic();
  traffic += reads_.traffic();
  traffic += member_.socket().traffic();
  member_.set_traffic(traffic);
  measured_ = now;
  held_ = Nanoseconds{0};
}

}  // namespace qanat::replay
