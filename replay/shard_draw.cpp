// Shard: choosing items and describing them.
#include <algorithm>
#include <cassert>
#include <cstring>

#include "replay/shard.h"
#include "replay/stack.h"

namespace qanat::replay {

namespace {

void resize(Draw& out, std::size_t count, std::size_t stack, std::size_t n_step, std::size_t action_bytes) {
  out.leaves.resize(count);
  out.handles.resize(count);
  out.states.resize(count * stack);
  out.next_states.resize(count * stack);
  out.rewards.assign(count * n_step, 0);
  out.steps.resize(count);
  out.terminal.resize(count);
  out.actions.resize(count * action_bytes);
  out.rows.clear();
}

}  // namespace

bool Shard::draw(std::uint32_t count, Rng& rng, DrawMode mode, Draw& out, Strata strata) {
  const bool any = items_.count() > 0;
  resize(out, any ? count : 0, stack_, n_step_, rows_.column_bytes(schema_.action_column()));
  out.mode = selector_->mass() == 0 ? DrawMode::by_count : mode;
  out.items = items_.count();
  out.mass = out.mode == DrawMode::by_count ? out.items : selector_->mass();
  if (!any) return false;

  pick(count, rng, strata, out);
  if (++draw_number_ == 0) {
    // The numbers are used up: no old stamp may look like a new one.
    for (std::uint32_t slot = 0; slot < rows_.capacity(); ++slot) rows_.links(slot).stamp = 0;
    draw_number_ = 1;
  }
  constexpr std::size_t ahead = 8;
  for (std::size_t i = 0; i < count; ++i) {
    if (i + ahead < count) {
      rows_.prefetch(slots_[i + ahead]);
      items_.prefetch(slots_[i + ahead]);
    }
    describe(i, slots_[i], out);
  }
  counters_.drawn += count;
  return true;
}

// Fills slots_ and the leaves.
void Shard::pick(std::uint32_t count, Rng& rng, Strata strata, Draw& out) {
  slots_.resize(count);
  if (out.mode == DrawMode::by_mass) {
    selector_->draw(rng, strata, slots_);
    for (std::size_t i = 0; i < count; ++i) out.leaves[i] = selector_->leaf(slots_[i]);
    return;
  }
  std::vector<std::uint64_t> ranks(count);
  stratified_points(out.items, strata, rng, ranks);
  // The strata may begin in the middle and go on from the first.
  const auto until_last = strata.total == 0 ? count : std::min(count, strata.total - strata.first);
  items_.at_ranks(std::span(ranks).first(until_last), std::span(slots_).first(until_last));
  items_.at_ranks(std::span(ranks).subspan(until_last), std::span(slots_).subspan(until_last));
  std::fill(out.leaves.begin(), out.leaves.end(), 1);
}

std::uint32_t Shard::table_index(std::uint32_t slot, Draw& out) {
  RowLinks& links = rows_.links(slot);
  if (links.stamp != draw_number_) {
    links.stamp = draw_number_;
    links.index = static_cast<std::uint32_t>(out.rows.size());
    out.rows.push_back(slot);
  }
  return links.index;
}

// Everything that one drawn item is, into place i.
void Shard::describe(std::size_t i, std::uint32_t slot, Draw& out) {
  const std::uint32_t steps = items_.steps(slot);
  // path_ becomes the rows from the stack's oldest to s', oldest first. Those that only lent a reward are not sent.
  std::uint32_t oldest = slot;
  std::uint32_t t = 0;  // place of the item's own row in the path
  while (t + 1 < stack_ && !(rows_.flags(oldest) & flag_first)) {
    oldest = rows_.links(oldest).previous;
    ++t;
  }
  std::uint32_t length = 0;
  std::uint32_t last_step = oldest;
  std::uint32_t row = oldest;
  for (; row != no_slot && length <= t + steps; ++length) {
    path_[length] = row;
    if (length >= t && length < t + steps) {
      out.rewards[i * n_step_ + (length - t)] = rows_.reward(row);
      last_step = row;
    }
    row = rows_.links(row).next;
  }
  // A stream that was cut off at a terminated step has no row t+m: any valid row will do.
  const std::uint32_t next = std::min(t + steps, length - 1);
  for (std::uint32_t k = 0; k < stack_; ++k) {
    out.states[i * stack_ + k] = table_index(path_[stack_row(t, 0, stack_, k)], out);
    out.next_states[i * stack_ + k] = table_index(path_[stack_row(next, 0, stack_, k)], out);
  }
  out.handles[i] = handle_of(slot);
  out.steps[i] = static_cast<std::uint8_t>(steps);
  out.terminal[i] = (rows_.flags(last_step) & flag_terminated) != 0 ? 1 : 0;
  const std::size_t action = schema_.action_column();
  const std::size_t bytes = rows_.column_bytes(action);
  std::memcpy(out.actions.data() + i * bytes, rows_.row(action, slot), bytes);
}

}  // namespace qanat::replay
