// ReplayClient: a batch put together from the replies of its round.
#include <algorithm>
#include <atomic>

#include "replay/client.h"

namespace qanat::replay {
namespace {

// Helpers are called for batches of at least so much: waking them takes as long as copying some hundred kilobytes.
constexpr std::size_t shared_bytes = 1UL << 20;
constexpr std::uint32_t no_row = ~0U;

}  // namespace

std::optional<SampledBatch> ReplayClient::take(const RowMemory& memory) {
  if (pending_.empty()) return std::nullopt;
  auto& round = pending_.front();
  if (!std::all_of(round.parts.begin(), round.parts.end(), [](const Part& part) { return part.reply.has_value(); }))
    return std::nullopt;
  if (round.picks.empty()) deal(round);
  SampledBatch out = std::exchange(spare_, {});
  const auto picks = std::span<const Pick>(round.picks).subspan(round.taken * options_.batch, options_.batch);
  describe_items(round, picks, out);
  number_rows(round, picks, out);
  if (!copy_rows(round, memory, out)) {
    spare_ = std::move(out);
    drop_damaged(round);
    return std::nullopt;
  }
  --in_flight_;
  if (++round.taken == round.batches) pending_.pop_front();
  return out;
}

// The items stand in the order of their strata. Of each `batches` neighbours every batch gets one, which one is drawn.
void ReplayClient::deal(Round& round) {
  const auto batches = round.batches;
  round.picks.resize(std::size_t{batches} * options_.batch);
  std::uint32_t at = 0;
  std::uint32_t shift = 0;
  for (std::uint32_t p = 0; p < round.parts.size(); ++p) {
    for (std::uint32_t i = 0; i < round.parts[p].count; ++i, ++at) {
      if (batches > 1 && at % batches == 0) shift = static_cast<std::uint32_t>(rng_.below(batches));
      const auto batch = (at + shift) % batches;
      round.picks[std::size_t{batch} * options_.batch + at / batches] = {p, i};
    }
  }
}

void ReplayClient::describe_items(const Round& round, std::span<const Pick> picks, SampledBatch& out) const {
  const auto size = picks.size();
  auto& table = out.table;
  table.stack = options_.stack;
  table.n_step = options_.n_step;
  table.resize(size);
  out.probability.resize(size);
  out.shard.resize(size);
  out.incarnations.resize(size);
  out.items = items();
  for (std::size_t i = 0; i < size; ++i) {
    const auto& part = round.parts[picks[i].part];
    const auto& share = round.shares[part.share];
    const auto& from = part.table;
    const std::size_t item = picks[i].item;
    table.generations[i] = from.generations[item];
    table.slots[i] = from.slots[item];
    table.leaves[i] = from.leaves[item];
    table.actions[i] = from.actions[item];
    table.steps[i] = from.steps[item];
    table.terminal[i] = from.terminal[item];
    std::copy_n(&from.rewards[item * table.n_step], table.n_step, &table.rewards[i * table.n_step]);
    const double local = part.reply->mass > 0
                             ? static_cast<double>(from.leaves[item]) / static_cast<double>(part.reply->mass)
                             : 1.0 / static_cast<double>(std::max<std::uint64_t>(1, part.reply->items));
    out.probability[i] = share.q * local;
    out.shard[i] = static_cast<std::uint32_t>(share.shard);
    out.incarnations[i] = share.incarnation;
  }
}

// Numbers the rows that these items need, in the order they come up.
void ReplayClient::number_rows(const Round& round, std::span<const Pick> picks, SampledBatch& out) {
  if (renumbered_.size() < round.parts.size()) renumbered_.resize(round.parts.size());
  for (std::size_t p = 0; p < round.parts.size(); ++p) renumbered_[p].assign(round.parts[p].reply->rows, no_row);
  sources_.clear();
  const auto number = [&](std::uint32_t part, std::uint32_t row) {
    auto& renumbered = renumbered_[part][row];
    if (renumbered == no_row) {
      renumbered = static_cast<std::uint32_t>(sources_.size());
      sources_.push_back({part, row});
    }
    return renumbered;
  };
  const std::size_t stack = options_.stack;
  for (std::size_t i = 0; i < picks.size(); ++i) {
    const auto& from = round.parts[picks[i].part].table;
    for (std::size_t k = 0; k < stack; ++k) {
      out.table.state[i * stack + k] = number(picks[i].part, from.state[picks[i].item * stack + k]);
      out.table.next_state[i * stack + k] = number(picks[i].part, from.next_state[picks[i].item * stack + k]);
    }
  }
  out.rows = static_cast<std::uint32_t>(sources_.size());
}

// Each row once, straight from the messages, part by part; a part is checked right before, so that it is in the cache.
// False: one was not intact.
bool ReplayClient::copy_rows(Round& round, const RowMemory& memory, SampledBatch& out) {
  std::vector<std::byte*> places(row_bytes_.size());
  out.columns.resize(row_bytes_.size());
  for (std::size_t c = 0; c < row_bytes_.size(); ++c) {
    const auto bytes = sources_.size() * row_bytes_[c];
    const auto place = c == 0 && memory ? memory(bytes) : std::span<std::byte>();
    out.columns[c].resize(place.empty() ? bytes : 0);
    places[c] = place.empty() ? out.columns[c].data() : place.data();
    if (c == 0) out.elsewhere = place.empty() ? nullptr : place.data();
  }
  const auto by_part = [](const Pick& source, std::size_t part) { return source.part < part; };
  std::atomic<bool> intact = true;
  const auto copy_part = [&](std::size_t index) {
    const auto& columns = round.parts[index].columns;
    const auto first = std::lower_bound(sources_.begin(), sources_.end(), index, by_part);
    const auto last = std::lower_bound(first, sources_.end(), index + 1, by_part);
    for (std::size_t c = 0; c < columns.size(); ++c) {
      if (!round.checked && !columns[c].intact()) {
        intact = false;
        return;
      }
      const auto* from = columns[c].bytes().data();
      auto* to = places[c] + static_cast<std::size_t>(first - sources_.begin()) * row_bytes_[c];
      for (auto source = first; source != last; ++source, to += row_bytes_[c]) {
        std::memcpy(to, from + source->item * row_bytes_[c], row_bytes_[c]);
      }
    }
  };
  if (sources_.size() * row_bytes_[0] >= shared_bytes) {
    if (!helpers_) helpers_.emplace(options_.helpers);
    helpers_->run(round.parts.size(), copy_part);
  } else {
    for (std::size_t i = 0; i < round.parts.size(); ++i) copy_part(i);
  }
  round.checked = intact;
  return intact;
}

// Asks again for what came damaged. Precondition: nothing of the round has been taken.
void ReplayClient::drop_damaged(Round& round) {
  round.picks.clear();
  for (std::size_t i = round.parts.size(); i-- > 0;) {
    auto& part = round.parts[i];
    const auto intact = [](const wire::Frame& column) { return column.intact(); };
    if (!part.reply || std::all_of(part.columns.begin(), part.columns.end(), intact)) continue;
    part.reply.reset();
    part.columns.clear();
    if (const auto* shard = find(round.shares[part.share])) shard->socket->refuse("sample reply: checksum mismatch");
    ask_again_for(round, i);
  }
}

}  // namespace qanat::replay
