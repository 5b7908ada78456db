#include "control/ledger.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace qanat::control {
namespace {

// A grant is at least this share of the window, or so many trained steps, or all that was asked for: many small ones
// would cost the members more messages than their work is worth, large ones are all drawn at once and then waited for.
constexpr double least_share = 1.0 / 16;
constexpr double least_steps = 2048;
constexpr double unlimited = 1e15;  // steps at once; far below 2^53, so exact in doubles

}  // namespace

// The learner stops short of the window's lower end by less than a batch.
std::string never_granted(const LedgerOptions& options, std::uint64_t steps) {
  const double sum = options.ratio * static_cast<double>(steps) + static_cast<double>(options.batch);
  if (options.ratio == 0 || sum <= options.window) return {};
  return text("a chunk of ", steps,
              " steps could wait for ever: replay.ratio * steps + learner.batch = ", options.ratio, " * ", steps, " + ",
              options.batch, " = ", sum, " trained steps, and the ratio's window is ", options.window);
}

Ledger::Ledger(LedgerOptions options) : options_(options) {
  if (!(options_.ratio >= 0) || std::isinf(options_.ratio)) {
    throw ConfigError(text("replay ratio: saw ", options_.ratio, ", wanted 0 or more"));
  }
  if (options_.min_size < 1) throw ConfigError("min_size: saw 0, wanted at least 1");
  const double narrowest = 2 * std::max(1.0, options_.ratio);
  if (options_.ratio > 0 && !(options_.window >= narrowest)) {
    throw ConfigError(
        text("replay ratio window: saw ", options_.window, ", wanted at least 2 * max(1, ratio) = ", narrowest));
  }
}

void Ledger::join(std::uint64_t member, Side side) {
  const auto [found, fresh] = members_.try_emplace(member);
  if (fresh) found->second.side = side;
  found->second.present = true;
}

void Ledger::leave(std::uint64_t member) {
  const auto found = members_.find(member);
  if (found == members_.end()) return;
  auto& entry = found->second;
  entry.present = false;
  entry.wanted = entry.granted = entry.used;
  entry.drawable = 0;
}

void Ledger::forget(std::uint64_t member) {
  const auto found = members_.find(member);
  if (found == members_.end()) return;
  (found->second.side == Side::insert ? gone_inserted_ : gone_drawn_) += found->second.used;
  members_.erase(found);
}

void Ledger::report(std::uint64_t member, std::uint64_t used, std::uint64_t wanted, std::uint64_t drawable,
                    std::uint64_t known_grant) {
  const auto found = members_.find(member);
  if (found == members_.end() || !found->second.present || used < found->second.used) return;
  auto& entry = found->second;
  entry.used = used;
  entry.wanted = std::max(wanted, used);
  entry.granted = std::max({entry.granted, used, known_grant});
  entry.drawable = drawable;
  if (!counting_ && this->drawable() >= options_.min_size) {
    counting_ = true;
    // What is inserted at this moment was free; a lease that is out counts when it is used.
    inserted_before_ = inserted_total();
  }
}

std::uint64_t Ledger::used(Side side) const {
  std::uint64_t sum = 0;
  for (const auto& [id, entry] : members_) sum += entry.side == side ? entry.used : 0;
  return sum;
}

std::uint64_t Ledger::leased(Side side) const {
  std::uint64_t sum = 0;
  for (const auto& [id, entry] : members_) sum += entry.side == side ? entry.granted - entry.used : 0;
  return sum;
}

double Ledger::room(Side side) const {
  if (released_) return unlimited;
  if (!counting_) return side == Side::insert ? unlimited : 0;
  if (options_.ratio == 0) return unlimited;
  if (side == Side::insert) {
    // With next to nothing to draw (shards that lost what they held) the learner cannot bring the balance down.
    if (drawable() < options_.min_size) return unlimited;
    return (options_.window / 2 - balance()) / options_.ratio - static_cast<double>(leased(side));
  }
  return options_.window / 2 + balance() - static_cast<double>(leased(side));
}

// What a shard has and does not use could keep the others from the stop, so until it is reached each may have a chunk,
// and nobody much more in the end: of the steps that are left, all may have a quarter.
std::uint64_t Ledger::before_stop(const Member& entry) const {
  if (options_.stop == 0 || released_ || entry.side == Side::draw) return std::numeric_limits<std::uint64_t>::max();
  const auto inserted = inserted_total();
  if (inserted >= options_.stop) return 0;
  std::uint64_t inserting = 0;
  for (const auto& [id, member] : members_) inserting += member.side == Side::insert && member.present ? 1 : 0;
  const auto most = std::max(options_.chunk, (options_.stop - inserted) / (4 * std::max<std::uint64_t>(1, inserting)));
  const auto unused = entry.granted - entry.used;
  return unused < most ? most - unused : 0;
}

std::vector<Ledger::Grant> Ledger::grants() {
  std::vector<Grant> out;
  for (const auto side : {Side::insert, Side::draw}) {
    auto& served = side == Side::insert ? served_insert_ : served_draw_;
    std::vector<std::uint64_t> asking;
    for (const auto& [id, entry] : members_) {
      if (entry.side == side && entry.wanted > entry.granted) asking.push_back(id);
    }
    // Who was served last comes last.
    std::rotate(asking.begin(), std::upper_bound(asking.begin(), asking.end(), served), asking.end());
    const double trained = std::min(options_.window * least_share, least_steps);
    const double least = side == Side::insert && options_.ratio > 0 ? trained / options_.ratio : trained;
    for (std::size_t i = 0; i < asking.size(); ++i) {
      auto& entry = members_.at(asking[i]);
      const auto ask = entry.wanted - entry.granted;
      const double wanted = std::min(static_cast<double>(ask), std::max(1.0, std::floor(least)));
      // A millionth of a step forgives the rounding of a ratio such as 0.1, which would shut an exact window.
      const double all = std::floor(room(side) + 1e-6);
      if (all < wanted) continue;
      const double share = std::floor(room(side) / static_cast<double>(asking.size() - i) + 1e-6);
      const auto least_or_share = static_cast<std::uint64_t>(std::min(std::max(share, wanted), unlimited));
      const auto granted = std::min({ask, least_or_share, before_stop(entry)});
      if (granted == 0) continue;
      entry.granted += granted;
      out.push_back({asking[i], entry.granted});
      served = asking[i];
    }
  }
  return out;
}

std::uint64_t Ledger::granted(std::uint64_t member) const {
  const auto found = members_.find(member);
  return found == members_.end() ? 0 : found->second.granted;
}

double Ledger::balance() const {
  if (!counting_) return 0;
  return options_.ratio * static_cast<double>(inserted_total() - inserted_before_) - static_cast<double>(drawn_total());
}

std::uint64_t Ledger::inserted_total() const { return gone_inserted_ + used(Side::insert); }
std::uint64_t Ledger::drawn_total() const { return gone_drawn_ + used(Side::draw); }

double Ledger::actual_ratio() const {
  const auto inserted = inserted_total() - inserted_before_;
  return counting_ && inserted > 0 ? static_cast<double>(drawn_total()) / static_cast<double>(inserted) : 0;
}

std::uint64_t Ledger::drawable() const {
  std::uint64_t sum = 0;
  for (const auto& [id, entry] : members_) sum += entry.side == Side::insert ? entry.drawable : 0;
  return sum;
}

std::string Ledger::waiting() const {
  bool inserts = false;
  bool draws = false;
  for (const auto& [id, entry] : members_) {
    if (entry.wanted > entry.granted) (entry.side == Side::insert ? inserts : draws) = true;
  }
  if (draws && !counting_)
    return text("draws wait: ", drawable(), " items are drawable, ", options_.min_size, " wanted");
  const auto sum = text("ratio ", options_.ratio, " * inserted ", inserted_total() - inserted_before_, " - drawn ",
                        drawn_total(), " = ", balance(), ", window +-", options_.window / 2);
  if (inserts && !draws) return "inserts are held, the learner is behind: " + sum;
  if (draws && !inserts) return "draws wait, the actors are behind: " + sum;
  return {};
}

void Ledger::save(ByteWriter& out) const {
  std::uint64_t inserted = gone_inserted_;
  std::uint64_t drawn = gone_drawn_;
  std::uint64_t present = 0;
  for (const auto& [id, entry] : members_) {
    present += entry.present;
    if (!entry.present) (entry.side == Side::insert ? inserted : drawn) += entry.used;
  }
  out.put(inserted);
  out.put(drawn);
  out.put(inserted_before_);
  out.put(counting_);
  out.put(present);
  for (const auto& [id, entry] : members_) {
    if (!entry.present) continue;
    out.put(id);
    out.put(entry.side == Side::draw);
    out.put(entry.used);
  }
}

void Ledger::load(ByteReader& in) {
  gone_inserted_ = in.get<std::uint64_t>("inserted");
  gone_drawn_ = in.get<std::uint64_t>("drawn");
  inserted_before_ = in.get<std::uint64_t>("inserted before counting");
  counting_ = in.get<bool>("counting");
  const std::uint64_t most_members = 1 << 20;
  for (auto count = in.get_count("ledger members", most_members, 17); count > 0; --count) {
    const auto id = in.get<std::uint64_t>("ledger member");
    Member entry;
    entry.side = in.get<bool>("ledger side") ? Side::draw : Side::insert;
    entry.used = entry.wanted = entry.granted = in.get<std::uint64_t>("used");
    entry.present = false;
    if (!members_.emplace(id, entry).second) throw InputError("ledger: a member stands there twice");
  }
  if (inserted_before_ > inserted_total()) throw InputError("ledger: more steps before counting than in all");
}

}  // namespace qanat::control
