#include "actors/actor.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "actors/environment.h"
#include "actors/exploration.h"
#include "actors/seeds.h"
#include "core/error.h"
#include "replay/schema.h"

namespace qanat::actors {
namespace {

using wire::RunState;

constexpr Seconds measure_every{1};
// Longer than a pause of 5 s that a shard must be allowed. The head's own limit may be shorter: it goes on without us.
constexpr Seconds drain_limit{10};
// Looking whether something came in costs a system call a socket, as much as several steps of a small environment:
// while the actor steps it looks this often.
constexpr Nanoseconds serve_every = std::chrono::microseconds(250);
// Keeps the exploration's random numbers apart from all other uses of the run's seed.
constexpr std::uint64_t exploration_tag = 0x6578706c6f7265;

}  // namespace

Actor::Actor(wire::Context& context, const Clock& clock, Logger& log, ActorOptions options)
    : clock_(clock),
      log_(log),
      options_(std::move(options)),
      groups_([&] {
        if (options_.actors.slots < 2 || options_.actors.slots % 2 != 0) {
          throw ConfigError(text("actors.slots is ", options_.actors.slots, ", wanted an even number"));
        }
        std::array<Group, 2> groups;
        const auto slots = static_cast<std::size_t>(options_.actors.slots / 2);
        for (std::size_t g = 0; g < groups.size(); ++g) {
          groups[g].first_slot = g * slots;
          auto config = options_.environment;
          config.first_index = envs::instance_index(options_.member.index >= 0 ? options_.member.index : getpid(),
                                                    options_.actors.slots, static_cast<std::int64_t>(g * slots));
          groups[g].env = envs::make(config, slots);
        }
        return groups;
      }()),
      schema_(schema_of(groups_[0].env->spec())),
      network_(network_of(options_.network, groups_[0].env->spec(), options_.stack)),
      normalization_(options_.agent.normalization, network_.input),
      layout_(nn::layout_hash(network_)),
      group_slots_(groups_[0].env->slots()),
      precision_(options_.device == "cpu" ? acting_precision(options_.actors.precision, network_) : "auto"),
      policy_(std::make_unique<LocalPolicy>(network_, options_.device, precision_, groups_.size(),
                                            static_cast<std::int64_t>(group_slots_))),
      member_(context, clock,
              [&] {
                options_.member.schema = {schema_};
                options_.member.chunk_steps = static_cast<std::uint64_t>(options_.actors.chunk_steps);
                return options_.member;
              }()),
      weights_(context, clock, text("actor-", options_.member.incarnation)),
      windows_(options_.agent, 2 * group_slots_) {
  WriterOptions writer;
  writer.incarnation = options_.member.incarnation;
  writer.slots = 2 * group_slots_;
  writer.chunk_steps = static_cast<std::size_t>(options_.actors.chunk_steps);
  writer.max_chunks_in_flight = static_cast<std::size_t>(options_.actors.max_chunks_in_flight);
  writer.priority_n = static_cast<std::uint32_t>(options_.agent.n_step);
  for (const auto& column : schema_.observations) writer.observations.push_back(column.tensor);
  writer.mask_actions = schema_.has_action_mask ? schema_.actions : 0;
  if (options_.agent.normalization.rewards) writer.return_discount = options_.agent.gamma;
  writer.resend_after = options_.resend_after;
  writer.most_part_bytes = options_.most_part_bytes;
  writer_ = std::make_unique<ExperienceWriter>(context, clock, std::move(writer));
  for (auto& group : groups_) {
    group.stack.emplace(group_slots_, static_cast<std::size_t>(options_.stack), schema_.observations[0].tensor.bytes());
    group.actions.resize(group_slots_);
    group.best_q.resize(group_slots_);
    group.taken_q.resize(group_slots_);
    group.all.resize(group_slots_);
    std::iota(group.all.begin(), group.all.end(), 0U);
  }
  columns_.resize(schema_.observations.size());
  epsilons_.resize(2 * group_slots_);
  last_.best_q.resize(group_slots_);
  // A hosted environment may take longer for a step than the head waits for a word of ours.
  for (auto& group : groups_) group.env->while_waiting([this] { member_.keep_alive(); });
}

Actor::~Actor() = default;

std::vector<wire::Socket*> Actor::sockets() {
  std::vector<wire::Socket*> out{&member_.socket()};
  for (auto* socket : weights_.sockets()) out.push_back(socket);
  for (auto* socket : writer_->sockets()) out.push_back(socket);
  return out;
}

void Actor::request_stop(const std::string& cause) {
  stopping_ = true;
  stop_cause_ = cause;
  if (!member_.joined()) finished_ = true;
}

bool Actor::step() {
  const auto begin = clock_.now();
  bool any = false;
  if (!stepped_ || begin - served_ >= serve_every) {
    served_ = begin;
    any = serve();
    if (finished_ || !started_) return any;
  }
  stepped_ = false;
  if (stopping_ || member_.state() >= RunState::draining) {
    drain();
  } else if (member_.state() == RunState::running && !quiescing_ && weights_.available()) {
    stepped_ = step_groups();
  }
  if (any || stepped_) times_.busy += clock_.now() - begin;
  measure();
  return any || stepped_;
}

bool Actor::serve() {
  bool any = member_.step();
  if (finished_) return any;
  if (member_.abandoned()) throw RunError("no head was heard for too long: the actor ends");
  if (!member_.joined()) return any;
  if (!started_) start();
  follow_directory();
  if (weights_.step(layout_)) {
    if (!acting_) {
      acting_ = true;
      log_.info("acts in ", precision_, " with the weights of update ", weights_.version().version, ", ",
                std::chrono::duration_cast<Milliseconds>(clock_.now() - started_at_).count(), " ms after joining");
    }
    use_weights();
    member_.set_metric("weights_version_mean", static_cast<double>(policy_->version()));
    any = true;
  }
  any |= writer_->step(member_.epoch(), restarted_);
  restart_windows();
  return any;
}

void Actor::use_weights() {
  const auto version = weights_.version().version;
  normalization_.load(weights_.statistics(), text("weights of update ", version));
  policy_->set_parameters(weights_.parameters(), normalization_, version);
  windows_.set_reward_scale(normalization_.reward_scale(options_.agent.reward_clip));
}

// ---- beginning ----------------------------------------------------------------------------------------------

void Actor::start() {
  started_ = true;
  times_.since = started_at_ = clock_.now();
  const auto& welcome = member_.welcome();
  if (!loaded_) rng_ = Rng(derive_seed(options_.seed, exploration_tag, welcome.index, welcome.start_count));
  for (auto& group : groups_) {
    if (!environments_loaded_) start_episodes(group);
  }
  const auto slots = static_cast<std::int64_t>(epsilons_.size());
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    epsilons_[static_cast<std::size_t>(slot)] = epsilon_of(options_.actors.exploration, welcome.index * slots + slot,
                                                           options_.actors.ladder_slots(), member_.env_steps());
  }
  log_.info("joined as actor ", welcome.index, ", start ", welcome.start_count, ": ", slots, " slots of ", schema_.id);
  log_protocol(log_, *groups_[0].env);
  if (schema_.observations.size() > 1) {
    log_.info("the network reads ", schema_.observations[0].tensor.describe(), "; the other columns are stored only");
  }
}

void Actor::start_episodes(Group& group) {
  const auto& welcome = member_.welcome();
  std::vector<std::uint64_t> seeds;
  for (std::size_t slot = 0; slot < group_slots_; ++slot) {
    seeds.push_back(environment_seed(SeedPurpose::training, options_.seed, welcome.index, welcome.start_count,
                                     group.first_slot + slot, steps_));
  }
  group.env->reset(seeds);
  const auto bytes = schema_.observations[0].tensor.bytes();
  for (std::size_t slot = 0; slot < group_slots_; ++slot) {
    group.stack->push(slot, group.env->observation(0).data() + slot * bytes, true);
  }
}

void Actor::follow_directory() {
  // Until the run goes, not all shards need be there: streams would end up on the few that came first.
  if (member_.state() == RunState::starting || member_.directory().version == directory_seen_) return;
  directory_seen_ = member_.directory().version;
  weights_.follow(member_);
  std::vector<ShardAddress> shards;
  for (const auto* shard : member_.alive(wire::Role::replay)) {
    const auto address = member_.address_of(*shard, "insert");
    if (!address.empty()) shards.push_back({shard->incarnation, address});
  }
  const auto dropped = writer_->dropped_steps();
  writer_->set_shards(shards, static_cast<std::size_t>(member_.welcome().index), restarted_);
  if (writer_->dropped_steps() > dropped) {
    log_.warn("a shard is gone with ", writer_->dropped_steps() - dropped, " env steps it had not acknowledged");
  }
}

void Actor::restart_windows() {
  for (const auto slot : restarted_) windows_.reset(slot);
  restarted_.clear();
}

// ---- stepping -----------------------------------------------------------------------------------------------

bool Actor::step_groups() {
  for (std::size_t k = 0; k < groups_.size(); ++k) {
    const auto index = (turn_ + k) % groups_.size();
    if (!writer_->can_step(groups_[index].first_slot, group_slots_)) continue;
    if (!step_group(index)) continue;
    if (blocked_since_) times_.blocked += clock_.now() - *blocked_since_;
    blocked_since_.reset();
    turn_ = (index + 1) % groups_.size();
    return true;
  }
  if (!blocked_since_) blocked_since_ = clock_.now();
  return false;
}

bool Actor::step_group(std::size_t index) {
  auto& group = groups_[index];
  if (!group.submitted) submit(index);
  const auto begin = clock_.now();
  const auto values = policy_->collect(index);
  if (!values) return false;
  times_.inference += uninterrupted(clock_.now() - begin);
  choose_actions(group, *values);
  const auto version = values->weights_version;
  for (std::size_t slot = 0; slot < group_slots_; ++slot) {
    if (group.env->resetting()[slot]) continue;  // no state to act in: this step only begins its episode
    writer_->begin_row(group.first_slot + slot, observation_of(group, slot, false));
  }
  const auto before = clock_.now();
  try {
    group.env->step(group.actions);
  } catch (...) {
    report_environments();  // what led to it
    member_.tell_now();
    throw;
  }
  times_.env += clock_.now() - before;
  value_last_observations(group);
  record(group, version);
  submit(index);
  if (++group.steps_in_chunk == static_cast<std::size_t>(options_.actors.chunk_steps)) {
    writer_->send(group.first_slot, group_slots_);
    group.steps_in_chunk = 0;
  }
  return true;
}

// A forward pass of all slots takes about as long every time. What took far longer was interrupted by another process.
Nanoseconds Actor::uninterrupted(Nanoseconds pass) {
  if (typical_pass_.count() == 0) typical_pass_ = pass;
  pass = std::min(pass, 2 * typical_pass_);
  typical_pass_ += (pass - typical_pass_) / 64;
  return pass;
}

void Actor::submit(std::size_t index) {
  auto& group = groups_[index];
  policy_->submit(index, group.stack->stacks(group.all), static_cast<std::int64_t>(group_slots_));
  group.submitted = true;
}

void Actor::update_epsilons() {
  if (options_.actors.exploration.kind != "linear") return;
  const auto now = epsilon_of(options_.actors.exploration, 0, 1, member_.env_steps());
  std::fill(epsilons_.begin(), epsilons_.end(), now);
}

void Actor::choose_actions(Group& group, const QValues& values) {
  update_epsilons();
  const auto actions = static_cast<std::size_t>(schema_.actions);
  for (std::size_t slot = 0; slot < group_slots_; ++slot) {
    const auto choice = choose(values.q.subspan(slot * actions, actions), mask_of(group, slot, false),
                               epsilons_[group.first_slot + slot], rng_);
    group.actions[slot] = choice.action;
    group.best_q[slot] = choice.best_q;
    group.taken_q[slot] = choice.taken_q;
  }
}

// Only episodes that were truncated go on in value, so one more forward pass for those slots alone.
void Actor::value_last_observations(Group& group) {
  last_.slots.clear();
  const auto bytes = schema_.observations[0].tensor.bytes();
  for (std::size_t slot = 0; slot < group_slots_; ++slot) {
    if (!group.env->truncated()[slot] || group.env->terminated()[slot]) continue;
    last_.slots.push_back(static_cast<std::uint32_t>(slot));
    group.stack->push(slot, group.env->final_observation(0).data() + slot * bytes, false);
  }
  if (last_.slots.empty()) return;
  const auto begin = clock_.now();
  const auto values = policy_->values(group.stack->stacks(last_.slots), static_cast<std::int64_t>(last_.slots.size()));
  times_.inference += clock_.now() - begin;
  const auto actions = static_cast<std::size_t>(schema_.actions);
  for (std::size_t i = 0; i < last_.slots.size(); ++i) {
    const auto slot = last_.slots[i];
    last_.best_q[slot] = std::numeric_limits<float>::quiet_NaN();  // items without a priority of their own
    if (!values) continue;
    const auto q = values->q.subspan(i * actions, actions);
    const auto best = nn::masked_argmax(q.data(), 1, mask_of(group, slot, true), schema_.actions);
    last_.best_q[slot] = q[static_cast<std::size_t>(best)];
  }
}

void Actor::record(Group& group, std::uint64_t weights_version) {
  const auto bytes = schema_.observations[0].tensor.bytes();
  const auto* observations = group.env->observation(0).data();
  for (std::size_t i = 0; i < group_slots_; ++i) {
    const auto slot = group.first_slot + i;
    if (!group.env->stepped()[i]) {
      group.stack->push(i, observations + i * bytes, true);
      continue;
    }
    ++steps_;
    const auto flags = static_cast<std::uint8_t>((group.env->terminated()[i] ? replay::flag_terminated : 0) |
                                                 (group.env->truncated()[i] ? replay::flag_truncated : 0));
    const auto reward = group.env->rewards()[i];
    const auto row = writer_->end_row(slot, group.actions[i], reward, flags, weights_version);
    if (const auto item = windows_.step(slot, row, group.best_q[i], group.taken_q[i], reward)) {
      writer_->add_priority(slot, *item);
    }
    if (flags != 0) record_end(group, i);
    group.stack->push(i, observations + i * bytes, flags != 0);
  }
}

void Actor::record_end(Group& group, std::size_t i) {
  const auto slot = group.first_slot + i;
  const auto row = writer_->add_last_observation(slot, observation_of(group, i, true));
  priced_.clear();
  windows_.end(slot, row, group.env->terminated()[i] != 0, last_.best_q[i], priced_);
  for (const auto& item : priced_) writer_->add_priority(slot, item);
  writer_->rebalance(slot);
  member_.add_episode(group.env->episode_returns()[i], group.env->episode_lengths()[i]);
}

Observation Actor::observation_of(const Group& group, std::size_t slot, bool last) {
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    const auto all = last ? group.env->final_observation(c) : group.env->observation(c);
    columns_[c] = all.data() + slot * (all.size() / group_slots_);
  }
  return {columns_, mask_of(group, slot, last)};
}

const std::uint8_t* Actor::mask_of(const Group& group, std::size_t slot, bool last) const {
  if (!schema_.has_action_mask) return nullptr;
  const auto all = last ? group.env->final_action_mask() : group.env->action_mask();
  return all.data() + slot * static_cast<std::size_t>(schema_.actions);
}

// ---- ending -------------------------------------------------------------------------------------------------

void Actor::drain() {
  const auto now = clock_.now();
  if (!flushed_) {
    flushed_ = true;
    drain_since_ = now;
    writer_->send(0, 2 * group_slots_);
  }
  const bool late = now - drain_since_ > drain_limit || member_.state() == RunState::ended;
  if (!late && !writer_->all_acked()) return;
  if (!writer_->all_acked()) log_.warn("leaving although not everything sent was acknowledged");
  report_environments();
  report_traffic();
  member_.leave(stop_cause_.empty() ? member_.stop_cause() : stop_cause_);
  finished_ = true;
}

void Actor::measure() {
  const auto now = clock_.now();
  const auto elapsed = now - times_.since;
  if (elapsed < measure_every) return;
  const bool blocked = blocked_since_ && member_.state() == RunState::running;
  member_.set_waiting(!weights_.available() ? "no weights of the learner's yet" : blocked ? writer_->waiting() : "");
  if (blocked_since_) {
    times_.blocked += now - *blocked_since_;
    blocked_since_ = now;
  }
  const auto share = [&](Nanoseconds part) { return seconds(part) / seconds(elapsed); };
  member_.set_metric("weights_version_mean", static_cast<double>(policy_->version()));
  member_.set_metric("epsilon_mean",
                     std::accumulate(epsilons_.begin(), epsilons_.end(), 0.0) / static_cast<double>(epsilons_.size()));
  member_.set_metric("insert_wait_share", share(times_.blocked));
  member_.set_metric("actor_env_share", share(times_.env));
  member_.set_metric("actor_inference_share", share(times_.inference));
  member_.set_metric("actor_idle_share", std::max(0.0, 1 - share(times_.busy)));
  member_.set_metric("actor_dropped_steps", static_cast<double>(writer_->dropped_steps()));
  member_.set_metric("actor_resends", static_cast<double>(writer_->resends()));
  report_environments();
  report_traffic();
  times_ = {};
  times_.since = now;
}

std::uint64_t Actor::env_restarts() const {
  std::uint64_t sum = 0;
  for (const auto& group : groups_) sum += group.env->restarts();
  return sum;
}

void Actor::report_environments() {
  for (auto& group : groups_) {
    for (const auto& line : group.env->take_events()) log_.warn(line);
  }
  member_.set_metric("env_restarts", static_cast<double>(env_restarts()));
}

void Actor::report_traffic() {
  auto traffic = member_.socket().traffic();
  traffic += weights_.traffic();
  traffic += writer_->traffic();
  member_.set_traffic(traffic);
}

}  // namespace qanat::actors
