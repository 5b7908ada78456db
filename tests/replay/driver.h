// Drives a Shard and the Model with the same random traffic, and compares them.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "core/error.h"
#include "tests/replay/model.h"
#include "tests/support/catch.h"

namespace qanat::test {

class Driver {
 public:
  Driver(const ShardOptions& options, std::uint64_t seed) : options_(options), model(options), rng(seed) {
    for (std::uint32_t slot = 0; slot < 6; ++slot) live_.push_back({1, slot});
  }

  // One random event: mostly a chunk; a resend, a gap, a broken stream, priority updates.
  void event(Shard& shard) {
    const std::uint64_t kind = rng.below(100);
    if (kind < 70) {
      send(shard);
    } else if (kind < 75) {
      resend(shard);
    } else if (kind < 78) {
      leave_gap(shard);
    } else if (kind < 82) {
      break_stream(shard);
    } else {
      update(shard);
    }
    compare_totals(shard);
  }

  // Item by item: which are drawable, their leaves and priorities, and all that a draw says of them.
  void compare(Shard& shard) {
    const auto wanted = model.drawable();
    REQUIRE(wanted.size() == model.priorities().size());
    REQUIRE(shard.items() == wanted.size());
    std::uint64_t mass = 0;
    std::map<std::uint64_t, Model::Key> by_generation;
    for (const auto& [id, stream] : model.streams()) {
      for (std::uint64_t row = 0; row < stream.flags.size(); ++row) {
        const auto seen = shard.item(id, row);
        REQUIRE(seen.has_value() == wanted.contains({id, row}));
        if (!seen) continue;
        LeafClamps clamps;
        const float priority = model.priorities().at({id, row});
        REQUIRE(seen->priority == priority);
        REQUIRE(seen->leaf == LeafScale(options_.alpha).leaf(priority, clamps));
        mass += seen->leaf;
        REQUIRE(by_generation.emplace(seen->handle.generation, Model::Key{id, row}).second);
      }
    }
    REQUIRE(shard.mass() == mass);
    if (wanted.empty()) return;
    // Enough draws by count to meet every item: stratified with more strata than items.
    compare_draw(shard, static_cast<std::uint32_t>(2 * wanted.size()), DrawMode::by_count, wanted, by_generation);
    compare_draw(shard, 64, DrawMode::by_mass, wanted, by_generation);
  }

  // One random chunk of a live stream, with priorities for some of the items that it completes.
  void send(Shard& shard) {
    const StreamId id = live_[rng.below(live_.size())];
    const auto flags = random_flags(id, 1 + rng.below(12));
    const std::uint64_t first = shard.rows_of(id);
    WitnessChunk chunk(id, shard.next_sequence(id), first, flags, padding_of(shard));
    const float others = rng.chance(0.5) ? -1 : static_cast<float>(rng.uniform(0, 6));
    const float fallback = model.largest_priority(others);
    model.append(id, flags);
    std::map<std::uint64_t, float> given;
    std::vector<ItemPriority> priorities;
    for (const std::uint64_t start : model.completed_since(id, first)) {
      if (rng.chance(0.8)) given[start] = random_priority();
    }
    for (const auto& [row, priority] : given) priorities.push_back({row, priority});
    const bool same_n = rng.chance(0.9);
    if (!same_n) given.clear();
    chunk.give_priorities(priorities, static_cast<std::uint32_t>(model.n() + (same_n ? 0 : 1)));
    const std::uint64_t items_before = model.priorities().size();
    model.settle(given, id, fallback);
    const InsertResult result = shard.insert(chunk.view, others);
    REQUIRE(result.applied);
    REQUIRE(result.next_sequence == model.streams().at(id).next_sequence);
    REQUIRE(result.steps == static_cast<std::size_t>(std::count_if(flags.begin(), flags.end(), [](std::uint8_t row) {
              return (row & flag_last_observation) == 0;
            })));
    if (model.evicted() == 0) REQUIRE(result.items == model.priorities().size() - items_before);
  }

  // The same for the shard alone: the model stays behind.
  void send_unchecked(Shard& shard) {
    const StreamId id = live_[rng.below(live_.size())];
    // Whole episodes only, so that it needs no memory of what came before: the stream is another one than send()'s.
    const StreamId own{id.incarnation + 1000, id.slot};
    const WitnessChunk chunk(own, shard.next_sequence(own), shard.rows_of(own),
                             {flag_first, 0, 0, 0, flag_truncated, flag_last_observation}, padding_of(shard));
    REQUIRE(shard.insert(chunk.view, 100).applied);
  }

  void update_unchecked(Shard& shard) {
    Draw draw;
    REQUIRE(shard.draw(64, rng, DrawMode::by_mass, draw));
    REQUIRE(shard.update_priorities(draw.handles, std::vector<float>(64, 77)).applied == 64);
  }

 private:
  static std::size_t padding_of(const Shard& shard) { return shard.schema().observations[2].bytes(); }

  void compare_totals(Shard& shard) {
    REQUIRE(shard.items() == model.priorities().size());
    REQUIRE(shard.resident_rows() == model.resident());
    REQUIRE(shard.resident_rows() <= options_.capacity_rows);
    REQUIRE(shard.counters().evicted_rows == model.evicted());
    REQUIRE(shard.max_priority().has_value() == !model.priorities().empty());
    if (shard.max_priority()) REQUIRE(*shard.max_priority() == model.largest_priority(-1));
  }

  std::vector<std::uint8_t> random_flags(const StreamId& id, std::size_t rows) {
    std::vector<std::uint8_t> flags;
    const auto known = model.streams().find(id);
    std::uint8_t last = flag_last_observation;
    if (known != model.streams().end() && !known->second.flags.empty()) last = known->second.flags.back();
    while (flags.size() < rows) {
      std::uint8_t row = (last & flag_last_observation) ? flag_first : 0;
      if (last & (flag_terminated | flag_truncated)) {
        row = flag_last_observation;
      } else if (rng.chance(0.25)) {
        row = static_cast<std::uint8_t>(row | (1 + rng.below(3)));  // terminated, truncated or both
      }
      flags.push_back(last = row);
    }
    return flags;
  }

  float random_priority() {
    if (rng.chance(0.1)) return 0;
    return static_cast<float>(rng.uniform(0, 5));
  }

  void resend(Shard& shard) {
    const StreamId id = live_[rng.below(live_.size())];
    const std::uint64_t next = shard.next_sequence(id);
    if (next == 0) return;
    const WitnessChunk chunk(id, rng.below(next), 0, {flag_first, 0, 0}, padding_of(shard));
    const InsertResult result = shard.insert(chunk.view, -1);
    REQUIRE_FALSE(result.applied);
    REQUIRE(result.next_sequence == next);
  }

  void leave_gap(Shard& shard) {
    const StreamId id = live_[rng.below(live_.size())];
    const WitnessChunk chunk(id, shard.next_sequence(id) + 1, shard.rows_of(id), random_flags(id, 3),
                             padding_of(shard));
    REQUIRE_THROWS_AS(shard.insert(chunk.view, -1), InputError);
  }

  void break_stream(Shard& shard) {
    const std::size_t which = rng.below(live_.size());
    const StreamId id = live_[which];
    live_[which] = {id.incarnation + 1, id.slot};
    const float fallback = model.largest_priority(-1);
    const std::uint64_t before = model.priorities().size();
    model.end(id);
    model.settle({}, id, fallback);
    REQUIRE(shard.end_stream(id, -1) == model.priorities().size() - before);
    REQUIRE(shard.end_stream(id, -1) == 0);
  }

  // New priorities for items of a draw, bad ones among them; and for handles drawn long ago.
  void update(Shard& shard) {
    Draw draw;
    if (!shard.draw(16, rng, DrawMode::by_mass, draw)) return;
    std::map<std::uint64_t, Model::Key> by_generation;
    for (const auto& [key, priority] : model.priorities()) {
      by_generation.emplace(shard.item(key.first, key.second)->handle.generation, key);
    }
    std::vector<Handle> handles = draw.handles;
    handles.insert(handles.end(), old_handles_.begin(), old_handles_.end());
    std::vector<float> values;
    UpdateResult wanted;
    for (const Handle& handle : handles) {
      const std::uint64_t bad = rng.below(20);
      const float value = bad == 0   ? std::numeric_limits<float>::quiet_NaN()
                          : bad == 1 ? -1.0F
                          : bad == 2 ? std::numeric_limits<float>::infinity()
                                     : random_priority();
      values.push_back(value);
      const auto live = by_generation.find(handle.generation);
      if (bad <= 2) {
        ++wanted.refused;
      } else if (live == by_generation.end()) {
        ++wanted.stale;
      } else {
        ++wanted.applied;
        model.priorities().at(live->second) = value;
      }
    }
    const UpdateResult seen = shard.update_priorities(handles, values);
    REQUIRE(seen.applied == wanted.applied);
    REQUIRE(seen.stale == wanted.stale);
    REQUIRE(seen.refused == wanted.refused);
    if (rng.chance(0.2)) old_handles_ = draw.handles;
  }

  template <class T>
  static std::vector<T> gathered(const Shard& shard, std::size_t column, const Draw& draw) {
    REQUIRE(shard.column_bytes(column) % sizeof(T) == 0);
    std::vector<T> values(draw.rows.size() * shard.column_bytes(column) / sizeof(T));
    shard.gather(column, draw.rows, reinterpret_cast<std::byte*>(values.data()));
    return values;
  }

  void compare_draw(Shard& shard, std::uint32_t count, DrawMode mode, const std::map<Model::Key, Model::Window>& wanted,
                    const std::map<std::uint64_t, Model::Key>& by_generation) {
    Draw draw;
    const std::uint64_t mass = shard.mass();
    REQUIRE(shard.draw(count, rng, mode, draw));
    const bool by_count = mode == DrawMode::by_count || mass == 0;
    REQUIRE(draw.mode == (by_count ? DrawMode::by_count : DrawMode::by_mass));
    REQUIRE(draw.mass == (by_count ? wanted.size() : mass));
    REQUIRE(draw.items == wanted.size());
    const auto frames = gathered<Frame>(shard, 0, draw);
    const auto bytes = gathered<std::uint8_t>(shard, 1, draw);
    const auto masks = gathered<std::array<std::uint8_t, 3>>(shard, shard.schema().first_extra_column(), draw);
    const std::set<std::uint32_t> distinct(draw.rows.begin(), draw.rows.end());
    REQUIRE(distinct.size() == draw.rows.size());
    std::set<Model::Key> met;
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto found = by_generation.find(draw.handles[i].generation);
      REQUIRE(found != by_generation.end());
      const auto& [id, t] = found->second;
      const Model::Window& window = wanted.at(found->second);
      met.insert(found->second);
      REQUIRE(draw.handles[i] == shard.item(id, t)->handle);
      REQUIRE(draw.leaves[i] == (by_count ? 1 : shard.item(id, t)->leaf));
      REQUIRE(draw.leaves[i] > 0);
      REQUIRE(draw.steps[i] == window.steps);
      REQUIRE(draw.terminal[i] == (window.terminal ? 1 : 0));
      std::int32_t action = 0;
      std::memcpy(&action, draw.actions.data() + i * sizeof action, sizeof action);
      REQUIRE(action == action_of(id, t));
      for (std::uint64_t j = 0; j < model.n(); ++j) {
        REQUIRE(draw.rewards[i * model.n() + j] == (j < window.steps ? reward_of(id, t + j) : 0));
      }
      for (std::uint64_t k = 0; k < model.k(); ++k) {
        const std::uint32_t state = draw.states[i * model.k() + k];
        REQUIRE(frames.at(state) == frame_of(id, window.state[k]));
        REQUIRE(bytes.at(state) == byte_of(id, window.state[k]));
        const std::uint32_t next = draw.next_states[i * model.k() + k];
        REQUIRE(next < draw.rows.size());
        if (window.next_state.empty()) {
          REQUIRE(window.terminal);
          continue;
        }
        REQUIRE(frames.at(next) == frame_of(id, window.next_state[k]));
        REQUIRE(masks.at(next)[window.next_state[k] % 3] == 1);
      }
    }
    // With twice as many equal strata as items every item has a whole stratum to itself.
    if (mode == DrawMode::by_count) REQUIRE(met.size() == wanted.size());
  }

  ShardOptions options_;
  std::vector<StreamId> live_;
  std::vector<Handle> old_handles_;

 public:
  Model model;
  Rng rng;
};

}  // namespace qanat::test
