// ShardServer: what the learner asks for on the sample service: draws and new priorities.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "replay/server.h"

namespace qanat::replay {
namespace {

// Rows on their way to one reader, beyond which nothing more is drawn for it. Enough for a learner on a fast network: a
// shard that waits for it to read looks again in a few milliseconds at the latest, in which 32 MiB are not read.
constexpr std::uint64_t most_unread_bytes = 32 << 20;
// Requests of one reader that wait. A learner asks for some hundred parts ahead at most (replay/client.cpp).
constexpr std::size_t most_requests = 1024;
constexpr std::uint64_t most_request_bytes = 64 << 20;
// Sent between two looks at everything else, about.
constexpr std::uint64_t bytes_a_step = 4 << 20;

}  // namespace

bool ShardServer::serve_reads() {
  bool any = take_requests();
  const auto limit = reads_.traffic().bytes_out + bytes_a_step;
  for (bool more = true; more && reads_.traffic().bytes_out < limit;) {
    more = false;
    for (auto& [peer, reader] : readers_) more |= serve_next(peer, reader);
    any |= more;
  }
  std::erase_if(readers_, [](const auto& entry) {
    const auto& reader = entry.second;
    return reader.requests.empty() && reader.answers.empty() && (!reader.unread || *reader.unread == 0);
  });
  return any;
}

// Sorts what came by sender: of one whose own queue is full, what comes is dropped, so that the others get through.
bool ShardServer::take_requests() {
  bool any = false;
  for (auto& message : reads_.receive_all()) {
    any = true;
    auto& reader = reader_of(message.peer);
    std::uint64_t bytes = message.head.size();
    for (const auto& part : message.parts) bytes += part.size();
    if (reader.requests.size() >= most_requests || reader.request_bytes + bytes > most_request_bytes) {
      ++refused_;
      log_.warn("a request was dropped: ", reader.requests.size(), " of its sender wait already, of ",
                reader.request_bytes, " bytes");
      continue;
    }
    reader.request_bytes += bytes;
    reader.requests.push_back(std::move(message));
  }
  return any;
}

ShardServer::Reader& ShardServer::reader_of(const std::string& peer) {
  auto& reader = readers_[peer];
  if (!reader.unread && counts_unread_) reader.unread = std::make_shared<wire::HeldBytes>(0);
  return reader;
}

// One request of the reader's. False: it has none, or does not read what it was given.
bool ShardServer::serve_next(const std::string& peer, Reader& reader) {
  send_answers(peer, reader);
  if (reader.requests.empty() || !reader.answers.empty()) return false;
  if (reader.unread && *reader.unread >= most_unread_bytes) return false;
  const auto message = std::move(reader.requests.front());
  reader.requests.pop_front();
  reader.request_bytes -= message.head.size();
  for (const auto& part : message.parts) reader.request_bytes -= part.size();
  try {
    serve(message, reader);
  } catch (const InputError& error) {
    ++refused_;
    log_.warn("a request was dropped: ", error.what());
  }
  return true;
}

void ShardServer::serve(const wire::Incoming& message, Reader& reader) {
  switch (static_cast<wire::MessageType>(message.type)) {
    case wire::MessageType::sample_request:
      return serve_sample(message, reader);
    case wire::MessageType::priority_update:
      return serve_priorities(message);
    case wire::MessageType::save_request:
      return serve_save(message);
    default:
      throw InputError(text("type ", message.type, " is not for a shard"));
  }
}

void ShardServer::answer(const std::string& peer, wire::Message message) {
  auto& reader = reader_of(peer);
  reader.answers.push_back(std::move(message));
  send_answers(peer, reader);
}

void ShardServer::send_answers(const std::string& peer, Reader& reader) {
  while (!reader.answers.empty()) {
    switch (reads_.send_to(peer, reader.answers.front())) {
      case wire::Sent::would_block:
        return;
      case wire::Sent::unreachable:  // who is gone asks nothing more
        reader.answers.clear();
        reader.requests.clear();
        reader.request_bytes = 0;
        return;
      case wire::Sent::yes:
        reader.answers.pop_front();
    }
  }
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

void ShardServer::serve_sample(const wire::Incoming& message, Reader& reader) {
  const auto request = wire::decode<wire::SampleRequest>(message);
  if (request.epoch != member_.epoch()) {
    throw InputError(text("a learner of epoch ", request.epoch, " asks; this is epoch ", member_.epoch()));
  }
  const auto item = item_bytes(shard_->schema(), options_.stack, options_.n_step);
  const auto most = std::clamp<std::size_t>(largest_reply_bytes / item, 1, 1U << 20);
  if (request.count > most)
    throw InputError(text("sample request for ", request.count, " items of ", item, " bytes, wanted at most ", most));
  if (request.strata > 0 ? request.count > request.strata || request.first >= request.strata : request.first > 0) {
    throw InputError(text("sample request for ", request.count, " items from stratum ", request.first, " of ",
                          request.strata, " on, wanted as many strata or more"));
  }
  other_shards_max_ = request.max_priority > 0 && std::isfinite(request.max_priority) ? request.max_priority : -1;
  auto reply = state_reply(request);
  std::vector<wire::Frame> parts;
  // By mass with the uniform selector too: its leaves are 1. Without a mass in the reply this shard would count for
  // nothing beside another that told the learner its mass in a state reply.
  if (request.count > 0 &&
      shard_->draw(request.count, rng_, DrawMode::by_mass, draw_, {request.first, request.strata})) {
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
    parts.push_back(table_.encode(reader.unread));
    const auto& schema = shard_->schema();
    const auto add = [&](std::size_t column) {
      wire::Frame frame(draw_.rows.size() * shard_->column_bytes(column), reader.unread);
      shard_->gather(column, draw_.rows, frame.mutable_bytes().data());
      parts.push_back(std::move(frame));
    };
    for (std::size_t c = 0; c < schema.observations.size(); ++c) add(c);
    for (std::size_t c = 0; c < schema.extras.size(); ++c) add(schema.first_extra_column() + c);
  }
  answer(message.peer, wire::encode(reply, std::move(parts)));
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

}  // namespace qanat::replay
