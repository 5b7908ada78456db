#include "replay/stream_table.h"

#include <cassert>

namespace qanat::replay {

std::optional<std::uint32_t> StreamTable::find(const StreamId& id) const {
  const auto found = indices_.find(id);
  if (found == indices_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::uint64_t> StreamTable::forgotten(const StreamId& id) const {
  const auto found = forgotten_.find(id);
  if (found == forgotten_.end()) return std::nullopt;
  return found->second;
}

std::uint32_t StreamTable::add(const StreamId& id) {
  assert(!find(id));
  std::uint32_t index = index_bound();
  if (free_.empty()) {
    streams_.emplace_back();
    in_use_.push_back(true);
  } else {
    index = free_.back();
    free_.pop_back();
    streams_[index] = {};
    in_use_[index] = true;
  }
  streams_[index].id = id;
  indices_.emplace(id, index);
  return index;
}

void StreamTable::forget(std::uint32_t index) {
  assert(in_use_[index] && streams_[index].resident_rows == 0);
  const Stream& stream = streams_[index];
  remember_forgotten(stream.id, stream.next_sequence);
  indices_.erase(stream.id);
  in_use_[index] = false;
  free_.push_back(index);
}

void StreamTable::remember_forgotten(const StreamId& id, std::uint64_t next_sequence) {
  if (!forgotten_.emplace(id, next_sequence).second) return;
  forgotten_order_.push_back(id);
  if (forgotten_order_.size() > max_forgotten) {
    forgotten_.erase(forgotten_order_.front());
    forgotten_order_.pop_front();
  }
}

std::vector<StreamTable::Forgotten> StreamTable::all_forgotten() const {
  std::vector<Forgotten> all;
  all.reserve(forgotten_order_.size());
  for (const StreamId& id : forgotten_order_) all.push_back({id, forgotten_.at(id)});
  return all;
}

}  // namespace qanat::replay
