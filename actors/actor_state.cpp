// Actor: saving and loading.
#include "actors/actor.h"
#include "core/error.h"

namespace qanat::actors {
namespace {

constexpr std::uint32_t magic = 0x54434151;  // "QACT"
constexpr std::uint32_t format = 2;          // 1: without statistics
constexpr std::uint64_t max_statistics_bytes = 64UL << 20;
constexpr std::uint64_t max_snapshot_bytes = 64UL << 20;

}  // namespace

void Actor::save(ByteWriter& out) const {
  const bool exact = groups_[0].env->spec().can_snapshot && started_;
  out.put(magic);
  out.put(format);
  out.put(exact);
  out.put(steps_);
  out.put<std::uint64_t>(turn_);
  out.put(rng_.state());
  out.put(weights_.available());
  out.put(weights_.version().epoch);
  out.put(weights_.version().version);
  out.put_vector(weights_.parameters());
  out.put<std::uint64_t>(weights_.statistics().size());
  out.put_raw(weights_.statistics());
  writer_->save(out);
  windows_.save(out);
  if (!exact) return;
  for (const auto& group : groups_) {
    out.put<std::uint64_t>(group.steps_in_chunk);
    group.stack->save(out);
    for (std::size_t slot = 0; slot < group_slots_; ++slot) {
      const auto snapshot = group.env->snapshot(slot);
      out.put<std::uint64_t>(snapshot.size());
      out.put_raw(snapshot);
    }
  }
}

void Actor::load(ByteReader& in) {
  if (in.get<std::uint32_t>("magic") != magic) in.fail("magic", "not an actor's state");
  const auto seen = in.get<std::uint32_t>("format");
  if (seen != format && seen != 1) in.fail("format", text("saw ", seen, ", wanted ", format));
  const bool exact = in.get<bool>("exact");
  steps_ = in.get<std::uint64_t>("steps");
  turn_ = in.get<std::uint64_t>("turn") % groups_.size();
  rng_.set_state(in.get<Rng::State>("random numbers"));
  const bool available = in.get<bool>("weights there");
  const auto epoch = in.get<std::uint64_t>("weights epoch");
  const auto version = in.get<std::uint64_t>("weights version");
  const auto parameters = in.get_vector<float>("weights", nn::parameter_count(network_));
  const auto statistic_bytes = seen == 1 ? 0 : in.get_count("statistics", max_statistics_bytes, 1);
  const auto statistics = in.get_raw("statistics", statistic_bytes);
  if (available) {
    weights_.adopt({epoch, version}, parameters, statistics);
    use_weights();
  }
  writer_->load(in);
  windows_.load(in);
  loaded_ = true;
  environments_loaded_ = exact;
  if (!exact) {
    writer_->end_streams();
    log_.warn("environment ", schema_.id, " was saved without its state: episodes begin anew");
    return;
  }
  const std::vector<std::uint64_t> unused(group_slots_, 0);
  for (auto& group : groups_) {
    group.steps_in_chunk = in.get<std::uint64_t>("steps in chunk");
    group.stack->load(in);
    group.env->reset(unused);  // restore() wants started slots
    for (std::size_t slot = 0; slot < group_slots_; ++slot) {
      const auto count = in.get_count("environment", max_snapshot_bytes, 1);
      group.env->restore(slot, in.get_raw("environment", count));
    }
  }
}

}  // namespace qanat::actors
