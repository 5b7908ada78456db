// ShardServer: what the learner asks for on the sample service: draws and new priorities.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "replay/server.h"

namespace qanat::replay {
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
        case wire::MessageType::save_request:
          serve_save(message);
          break;
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

}  // namespace qanat::replay
