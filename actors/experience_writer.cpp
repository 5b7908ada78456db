#include "actors/experience_writer.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "core/error.h"
#include "core/memory.h"
#include "replay/schema.h"

namespace qanat::actors {

ExperienceWriter::ExperienceWriter(wire::Context& context, const Clock& clock, WriterOptions options)
    : context_(context), clock_(clock), options_(std::move(options)), capacity_(2 * options_.chunk_steps) {
  for (const auto& column : options_.observations) row_bytes_.push_back(column.bytes());
  row_bytes_.push_back(sizeof(std::int32_t));
  row_bytes_.push_back(sizeof(float));
  if (options_.mask_actions > 0) row_bytes_.push_back(static_cast<std::size_t>(options_.mask_actions));
  if (options_.return_discount) row_bytes_.push_back(sizeof(float));
  row_bytes_.push_back(1);
  slots_.resize(options_.slots);
  for (auto& slot : slots_) {
    for (const auto bytes : row_bytes_) slot.columns.emplace_back(bytes * capacity_);
    slot.item_starts.reserve(capacity_);
    slot.item_priorities.reserve(capacity_);
  }
}

// ---- shards -------------------------------------------------------------------------------------------------

ShardLink* ExperienceWriter::link_of(std::uint64_t shard) {
  for (const auto& link : links_) {
    if (link->shard_incarnation() == shard) return link.get();
  }
  return nullptr;
}

void ExperienceWriter::set_shards(const std::vector<ShardAddress>& shards, std::size_t rotation,
                                  std::vector<std::size_t>& restarted) {
  for (std::size_t i = links_.size(); i-- > 0;) {
    const auto known = std::any_of(shards.begin(), shards.end(), [&](const ShardAddress& shard) {
      return shard.incarnation == links_[i]->shard_incarnation();
    });
    if (!known) drop_link(i);
  }
  for (const auto& shard : shards) {
    if (auto* link = link_of(shard.incarnation)) {
      link->reopen(shard.address);
      continue;
    }
    links_.push_back(std::make_unique<ShardLink>(context_, clock_,
                                                 ShardLinkOptions{.identity = text("actor-", options_.incarnation),
                                                                  .incarnation = options_.incarnation,
                                                                  .shard_incarnation = shard.incarnation,
                                                                  .address = shard.address,
                                                                  .resend_after = options_.resend_after}));
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].shard != 0 && link_of(slots_[i].shard)) continue;
    drop_unsent(slots_[i]);
    slots_[i].shard = 0;
    if (links_.empty()) continue;
    const auto load = loads();
    std::size_t best = rotation % links_.size();
    for (std::size_t k = 1; k < links_.size(); ++k) {
      const auto candidate = (rotation + k) % links_.size();
      if (load[candidate] < load[best]) best = candidate;
    }
    begin_stream(i, links_[best]->shard_incarnation());
    restarted.push_back(i);
  }
  look_at_balance();
}

void ExperienceWriter::look_at_balance() {
  const auto load = loads();
  unbalanced_ =
      !load.empty() && *std::max_element(load.begin(), load.end()) >= *std::min_element(load.begin(), load.end()) + 2;
}

std::vector<std::size_t> ExperienceWriter::loads() const {
  std::vector<std::size_t> out(links_.size(), 0);
  for (const auto& slot : slots_) {
    for (std::size_t i = 0; i < links_.size(); ++i) out[i] += slot.shard == links_[i]->shard_incarnation();
  }
  return out;
}

void ExperienceWriter::begin_stream(std::size_t slot, std::uint64_t shard) {
  auto& it = slots_[slot];
  it.shard = shard;
  it.stream = next_stream_++;
  it.next_sequence = it.next_row = 0;
  it.between_episodes = true;
  slot_of_stream_[it.stream] = slot;
}

void ExperienceWriter::drop_link(std::size_t index) {
  auto& link = *links_[index];
  for (const auto& batch : link.unacked()) {
    for (std::size_t i = 0; i < batch.insert.chunks.size(); ++i) {
      const auto& chunk = batch.insert.chunks[i];
      if (link.settled(chunk)) continue;
      --slots_[slot_of_stream_.at(chunk.slot)].in_flight;
      dropped_steps_ += steps_of(batch, i);
    }
  }
  closed_ += link.traffic();
  closed_resends_ += link.resends();
  links_.erase(links_.begin() + static_cast<std::ptrdiff_t>(index));
}

void ExperienceWriter::drop_unsent(Slot& slot) {
  dropped_steps_ += slot.steps;
  slot.rows = slot.steps = 0;
  slot.item_starts.clear();
  slot.item_priorities.clear();
}

void ExperienceWriter::end_streams() {
  for (auto& slot : slots_) {
    drop_unsent(slot);
    slot.shard = 0;
    slot.discounted_return = 0;
  }
}

bool ExperienceWriter::rebalance(std::size_t slot) {
  if (!unbalanced_ || !slots_[slot].between_episodes) return false;
  const auto load = loads();
  const auto least = std::min_element(load.begin(), load.end());
  std::size_t own = 0;
  while (links_[own]->shard_incarnation() != slots_[slot].shard) ++own;
  if (load[own] < *least + 2) return false;
  send(slot, 1);
  begin_stream(slot, links_[static_cast<std::size_t>(least - load.begin())]->shard_incarnation());
  look_at_balance();
  return true;
}

// ---- rows ---------------------------------------------------------------------------------------------------

bool ExperienceWriter::can_step(std::size_t first_slot, std::size_t count) const {
  for (std::size_t i = first_slot; i < first_slot + count; ++i) {
    if (slots_[i].shard == 0 || slots_[i].in_flight >= options_.max_chunks_in_flight) return false;
  }
  return true;
}

void ExperienceWriter::copy_observation(Slot& slot, const Observation& observation) {
  assert(slot.rows < capacity_);
  const auto observations = options_.observations.size();
  for (std::size_t c = 0; c < observations; ++c) {
    std::memcpy(slot.columns[c].data() + slot.rows * row_bytes_[c], observation.columns[c], row_bytes_[c]);
  }
  if (options_.mask_actions > 0) {
    const auto c = observations + 2;
    std::memcpy(slot.columns[c].data() + slot.rows * row_bytes_[c], observation.mask, row_bytes_[c]);
  }
}

void ExperienceWriter::begin_row(std::size_t slot, const Observation& observation) {
  copy_observation(slots_[slot], observation);
}

std::uint64_t ExperienceWriter::end_row(std::size_t slot, std::int32_t action, float reward, std::uint8_t end_flags,
                                        std::uint64_t weights_version) {
  auto& it = slots_[slot];
  const auto c = options_.observations.size();
  std::memcpy(it.columns[c].data() + it.rows * sizeof action, &action, sizeof action);
  std::memcpy(it.columns[c + 1].data() + it.rows * sizeof reward, &reward, sizeof reward);
  if (options_.return_discount) {
    it.discounted_return = double{reward} + *options_.return_discount * it.discounted_return;
    const auto stored = static_cast<float>(it.discounted_return);
    std::memcpy(it.columns[it.columns.size() - 2].data() + it.rows * sizeof stored, &stored, sizeof stored);
  }
  it.columns.back()[it.rows] = std::byte(end_flags | (it.between_episodes ? replay::flag_first : 0));
  it.between_episodes = false;
  it.weights_version = weights_version;
  ++it.rows;
  ++it.steps;
  return it.next_row++;
}

std::uint64_t ExperienceWriter::add_last_observation(std::size_t slot, const Observation& observation) {
  auto& it = slots_[slot];
  copy_observation(it, observation);
  const auto c = options_.observations.size();
  std::memset(it.columns[c].data() + it.rows * sizeof(std::int32_t), 0, sizeof(std::int32_t));
  std::memset(it.columns[c + 1].data() + it.rows * sizeof(float), 0, sizeof(float));
  if (options_.return_discount) {
    std::memset(it.columns[it.columns.size() - 2].data() + it.rows * sizeof(float), 0, sizeof(float));
  }
  it.discounted_return = 0;
  it.columns.back()[it.rows] = std::byte(replay::flag_last_observation);
  it.between_episodes = true;
  ++it.rows;
  return it.next_row++;
}

void ExperienceWriter::add_priority(std::size_t slot, const PricedItem& item) {
  slots_[slot].item_starts.push_back(item.start_row);
  slots_[slot].item_priorities.push_back(item.priority);
}

// ---- messages -----------------------------------------------------------------------------------------------

void ExperienceWriter::send(std::size_t first_slot, std::size_t count) {
  const auto widest = *std::max_element(row_bytes_.begin(), row_bytes_.end());
  const auto end = first_slot + count;
  for (auto& link : links_) {
    for (auto begin = first_slot; begin < end;) {
      auto next = begin;
      for (std::size_t bytes = 0; next < end; ++next) {
        const auto& slot = slots_[next];
        bytes += slot.shard == link->shard_incarnation() ? slot.rows * widest : 0;
        if (next > begin && bytes > options_.most_part_bytes) break;
      }
      pack(*link, begin, next - begin);
      begin = next;
    }
  }
}

std::string ExperienceWriter::waiting() const {
  if (links_.empty()) return "no replay shard to send to";
  std::size_t chunks = 0;
  std::uint64_t bytes = 0;
  for (const auto& slot : slots_) chunks += slot.in_flight;
  for (const auto& link : links_) {
    for (const auto& batch : link->unacked()) {
      for (const auto& part : batch.parts) bytes += part.bytes().size();
    }
  }
  return text("the shards have not acknowledged ", chunks, " chunks, ", human_bytes(bytes), ", sent again ", resends(),
              " times");
}

wire::ChunkHead ExperienceWriter::head_of(Slot& slot) const {
  wire::ChunkHead head;
  head.incarnation = options_.incarnation;
  head.slot = slot.stream;
  head.sequence = slot.next_sequence;
  head.first_row = slot.next_row - slot.rows;
  head.rows = static_cast<std::uint32_t>(slot.rows);
  head.priority_n = options_.priority_n;
  head.weights_version = slot.weights_version;
  head.item_starts = slot.item_starts;
  head.item_priorities = slot.item_priorities;
  return head;
}

void ExperienceWriter::pack(ShardLink& link, std::size_t first_slot, std::size_t count) {
  const auto ours = [&](const Slot& slot) { return slot.rows > 0 && slot.shard == link.shard_incarnation(); };
  wire::Insert insert;
  std::size_t rows = 0;
  for (std::size_t i = first_slot; i < first_slot + count; ++i) {
    if (!ours(slots_[i])) continue;
    insert.chunks.push_back(head_of(slots_[i]));
    rows += slots_[i].rows;
  }
  if (rows == 0) return;
  std::vector<wire::Frame> parts;
  parts.reserve(row_bytes_.size());
  for (std::size_t c = 0; c < row_bytes_.size(); ++c) {
    auto& frame = parts.emplace_back(rows * row_bytes_[c]);
    auto* out = frame.mutable_bytes().data();
    for (std::size_t i = first_slot; i < first_slot + count; ++i) {
      if (!ours(slots_[i])) continue;
      const auto bytes = slots_[i].rows * row_bytes_[c];
      std::memcpy(out, slots_[i].columns[c].data(), bytes);
      out += bytes;
    }
  }
  for (std::size_t i = first_slot; i < first_slot + count; ++i) {
    auto& slot = slots_[i];
    if (!ours(slot)) continue;
    slot.rows = slot.steps = 0;
    slot.item_starts.clear();
    slot.item_priorities.clear();
    ++slot.next_sequence;
    ++slot.in_flight;
  }
  link.queue(std::move(insert), std::move(parts));
}

bool ExperienceWriter::step(std::uint64_t epoch, std::vector<std::size_t>& restarted) {
  bool any = false;
  for (auto& link : links_) {
    events_.acked.clear();
    events_.refused.clear();
    any |= link->step(epoch, events_);
    for (const auto stream : events_.acked) --slots_[slot_of_stream_.at(stream)].in_flight;
    for (const auto& refusal : events_.refused) {
      if (refusal.from_the_start) throw RunError(refusal.reason);
      const auto slot = slot_of_stream_.at(refusal.stream);
      slots_[slot].in_flight -= refusal.chunks;
      dropped_steps_ += refusal.steps;
      if (slots_[slot].stream != refusal.stream) continue;  // it had moved on
      drop_unsent(slots_[slot]);
      begin_stream(slot, link->shard_incarnation());
      restarted.push_back(slot);
    }
  }
  return any;
}

bool ExperienceWriter::all_acked() const {
  return std::all_of(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.in_flight == 0; });
}

std::uint64_t ExperienceWriter::resends() const {
  auto sum = closed_resends_;
  for (const auto& link : links_) sum += link->resends();
  return sum;
}

std::vector<wire::Socket*> ExperienceWriter::sockets() {
  std::vector<wire::Socket*> out;
  for (auto& link : links_) out.push_back(&link->socket());
  return out;
}

wire::Traffic ExperienceWriter::traffic() const {
  auto sum = closed_;
  for (const auto& link : links_) sum += link->traffic();
  return sum;
}

// ---- state --------------------------------------------------------------------------------------------------

void ExperienceWriter::save(ByteWriter& out) const {
  assert(all_acked());
  out.put(next_stream_);
  out.put(dropped_steps_);
  for (const auto& slot : slots_) {
    out.put(slot.shard);
    out.put(slot.stream);
    out.put(slot.next_sequence);
    out.put(slot.next_row);
    out.put(slot.between_episodes);
    out.put(slot.weights_version);
    if (options_.return_discount) out.put(slot.discounted_return);
    out.put<std::uint64_t>(slot.rows);
    out.put<std::uint64_t>(slot.steps);
    for (std::size_t c = 0; c < row_bytes_.size(); ++c) {
      out.put_raw(std::span(slot.columns[c]).first(slot.rows * row_bytes_[c]));
    }
    out.put_vector(slot.item_starts);
    out.put_vector(slot.item_priorities);
  }
}

void ExperienceWriter::load(ByteReader& in) {
  next_stream_ = in.get<std::uint32_t>("next stream");
  dropped_steps_ = in.get<std::uint64_t>("dropped steps");
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    auto& slot = slots_[i];
    slot.shard = in.get<std::uint64_t>("shard");
    slot.stream = in.get<std::uint32_t>("stream");
    slot.next_sequence = in.get<std::uint64_t>("next sequence");
    slot.next_row = in.get<std::uint64_t>("next row");
    slot.between_episodes = in.get<bool>("between episodes");
    slot.weights_version = in.get<std::uint64_t>("weights version");
    if (options_.return_discount) slot.discounted_return = in.get<double>("discounted return");
    slot.rows = in.get<std::uint64_t>("rows");
    slot.steps = in.get<std::uint64_t>("steps");
    if (slot.rows > capacity_ || slot.steps > slot.rows) in.fail("rows", "more than a chunk holds");
    for (std::size_t c = 0; c < row_bytes_.size(); ++c) {
      const auto bytes = in.get_raw("column", slot.rows * row_bytes_[c]);
      std::copy(bytes.begin(), bytes.end(), slot.columns[c].begin());
    }
    slot.item_starts = in.get_vector<std::uint64_t>("item starts", capacity_);
    slot.item_priorities = in.get_vector<float>("item priorities", capacity_);
    if (slot.item_starts.size() != slot.item_priorities.size()) in.fail("item priorities", "not as many as items");
    slot_of_stream_[slot.stream] = i;
  }
}

}  // namespace qanat::actors
