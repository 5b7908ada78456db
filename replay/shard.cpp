#include "replay/shard.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "replay/episode_walk.h"
#include "replay/snapshot.h"

namespace qanat::replay {

namespace {

const ShardOptions& checked(const ShardOptions& options) {
  if (options.stack < 1 || options.stack > 255) {
    throw ConfigError(text("replay: stack is ", options.stack, ", wanted 1 to 255"));
  }
  if (options.n_step < 1 || options.n_step > 255) {
    throw ConfigError(text("replay: n_step is ", options.n_step, ", wanted 1 to 255"));
  }
  const auto least = 2 * static_cast<std::uint64_t>(options.stack + options.n_step);
  const std::uint64_t most = (std::uint64_t{1} << 31) - 1;
  if (options.capacity_rows < least || options.capacity_rows > most) {
    throw ConfigError(text("replay: capacity of a shard is ", options.capacity_rows, " rows, wanted ", least, " to ",
                           most, " for stack ", options.stack, " and n_step ", options.n_step));
  }
  return options;
}

Schema checked(Schema schema) {
  schema.check();
  return schema;
}

}  // namespace

Shard::Shard(const ShardOptions& options, Schema schema)
    : options_(checked(options)),
      schema_(checked(std::move(schema))),
      stack_(static_cast<std::uint32_t>(options.stack)),
      n_step_(static_cast<std::uint32_t>(options.n_step)),
      rows_(schema_, options.capacity_rows),
      items_(options.capacity_rows),
      selector_(make_selector(options.selector, options.alpha, options.capacity_rows)),
      path_(stack_ + n_step_) {}

Shard::Shard(Shard&&) noexcept = default;
Shard& Shard::operator=(Shard&&) noexcept = default;
Shard::~Shard() = default;

std::uint64_t Shard::next_sequence(const StreamId& stream) const {
  if (const auto index = streams_.find(stream)) return streams_[*index].next_sequence;
  return streams_.forgotten(stream).value_or(0);
}

std::uint64_t Shard::rows_of(const StreamId& stream) const {
  const auto index = streams_.find(stream);
  return index ? streams_[*index].next_row : 0;
}

Handle Shard::handle_of(std::uint32_t slot) const {
  return {options_.shard_index, slot, rows_.position_of(slot) + generation_offset_};
}

std::optional<Shard::Item> Shard::item(const StreamId& stream, std::uint64_t row) const {
  const auto index = streams_.find(stream);
  if (!index) return std::nullopt;
  const Stream& known = streams_[*index];
  if (row >= known.next_row || known.next_row - row > known.resident_rows) return std::nullopt;
  std::uint32_t slot = known.last_slot;
  for (std::uint64_t back = known.next_row - 1 - row; back > 0; --back) slot = rows_.links(slot).previous;
  if (!items_.has(slot)) return std::nullopt;
  return Item{handle_of(slot), selector_->leaf(slot), items_.priority(slot)};
}

UpdateResult Shard::update_priorities(std::span<const Handle> handles, std::span<const float> priorities) {
  assert(handles.size() == priorities.size());
  UpdateResult result;
  slots_.clear();
  priorities_.clear();
  constexpr std::size_t ahead = 16;
  for (std::size_t i = 0; i < handles.size(); ++i) {
    if (i + ahead < handles.size() && handles[i + ahead].slot < rows_.capacity())
      items_.prefetch(handles[i + ahead].slot);
    const Handle& handle = handles[i];
    const float priority = priorities[i];
    if (!(priority >= 0) || !std::isfinite(priority) || handle.shard != options_.shard_index) {
      ++result.refused;
    } else if (handle.slot >= rows_.capacity() || !items_.has(handle.slot) || handle_of(handle.slot) != handle) {
      ++result.stale;
    } else {
      ++result.applied;
      items_.set_priority(handle.slot, priority);
      slots_.push_back(handle.slot);
      priorities_.push_back(priority);
    }
  }
  selector_->set(slots_, priorities_);
  counters_.updated_priorities += result.applied;
  counters_.stale_updates += result.stale;
  counters_.refused_updates += result.refused;
  return result;
}

void Shard::begin_snapshot(const std::filesystem::path& path, IoThread& disk) {
  snapshot_.reset();
  auto snapshot = std::make_unique<Snapshot>(*this, path, disk);
  items_.keep_moment();
  snapshot_ = std::move(snapshot);
}

std::optional<WrittenFile> Shard::snapshot_some(std::uint64_t max_bytes) {
  assert(snapshot_);
  const auto end = [&] {
    snapshot_.reset();
    items_.forget_moment();
  };
  try {
    auto written = snapshot_->write_some(*this, max_bytes);
    if (written) end();
    return written;
  } catch (...) {
    end();
    throw;
  }
}

bool Shard::snapshot_copied() const { return snapshot_ && snapshot_->copied(); }

bool Shard::snapshot_holds(std::uint64_t rows) const { return snapshot_ && snapshot_->holds(*this, rows); }

void Shard::load(const std::filesystem::path& path, std::uint64_t generation_floor,
                 const std::function<void()>& between) {
  Shard fresh(options_, schema_);
  load_snapshot(path, generation_floor, fresh, between);
  *this = std::move(fresh);
}

std::uint64_t Shard::reserved_bytes() const { return rows_.bytes() + items_.bytes() + selector_->bytes(); }

std::uint64_t predicted_bytes(const ShardOptions& options, const Schema& schema) {
  checked(options);
  schema.check();
  return RowStore::predicted_bytes(schema, options.capacity_rows) + ItemTable::predicted_bytes(options.capacity_rows) +
         predicted_selector_bytes(options.capacity_rows);
}

}  // namespace qanat::replay
