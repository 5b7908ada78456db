#include "actors/evaluation.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <numeric>
#include <system_error>
#include <thread>

#include "actors/environment.h"
#include "actors/exploration.h"
#include "core/error.h"
#include "core/stats.h"

namespace qanat::actors {
namespace {

constexpr std::int64_t most_slots = 100;
constexpr std::int64_t limit_of_the_endless = 10'000;

std::size_t slots_for(std::int64_t episodes) {
  if (episodes < 1) throw ConfigError(text("an evaluation of ", episodes, " episodes, wanted at least 1"));
  return static_cast<std::size_t>(std::min(episodes, most_slots));
}

// Fills in what the returns and lengths say.
EvaluationResult completed(EvaluationResult result) {
  RunningStats returns;
  for (const auto value : result.returns) returns.add(value);
  result.episodes = static_cast<std::int64_t>(result.returns.size());
  result.mean = returns.mean();
  if (result.episodes > 1) result.standard_error = returns.standard_error();
  return result;
}

std::int64_t limit_of(std::int64_t wanted, const envs::EnvSpec& spec) {
  if (wanted > 0) return wanted;
  return spec.max_episode_steps > 0 ? spec.max_episode_steps : limit_of_the_endless;
}

}  // namespace

double EvaluationResult::mean_length() const {
  if (lengths.empty()) return 0;
  return std::accumulate(lengths.begin(), lengths.end(), 0.0) / static_cast<double>(lengths.size());
}

SlotRange all_slots(const EvaluationOptions& options) { return {0, slots_for(options.episodes)}; }

EpisodePlayer::EpisodePlayer(EvaluationOptions options, SlotRange share)
    : options_(std::move(options)),
      share_(share),
      env_(envs::make(
          [&] {
            options_.environment.evaluation = true;
            return options_.environment;
          }(),
          share_.count)),
      network_(network_of(options_.network, env_->spec(), options_.stack)),
      normalization_(options_.normalization, network_.input),
      policy_(network_, options_.device, "fp32", 1, static_cast<std::int64_t>(env_->slots())),
      stack_(env_->slots(), static_cast<std::size_t>(options_.stack), env_->spec().observations[0].tensor.bytes()),
      max_steps_(limit_of(options_.max_steps, env_->spec())),
      slots_(env_->slots()),
      actions_(env_->slots(), 0) {}

EpisodePlayer::~EpisodePlayer() = default;

void EpisodePlayer::begin(const nn::WeightsView& weights, SeedPurpose purpose, std::uint64_t round) {
  normalization_.load(weights.statistics, "the weights to play with");
  policy_.set_parameters(weights.parameters, normalization_, 0);
  purpose_ = purpose;
  round_ = round;
  std::vector<std::uint64_t> seeds;
  running_.clear();
  const auto all = static_cast<std::int64_t>(slots_for(options_.episodes));
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const auto index = static_cast<std::int64_t>(share_.first + i);
    auto& slot = slots_[i];
    slot = Slot();
    slot.episodes = options_.episodes / all + (index < options_.episodes % all ? 1 : 0);
    slot.rng = Rng(environment_seed(purpose, options_.seed, round, index));
    seeds.push_back(environment_seed(purpose, options_.seed, round, index, 0));
    running_.push_back(static_cast<std::uint32_t>(i));
  }
  env_->reset(seeds);
  const auto row_bytes = env_->spec().observations[0].tensor.bytes();
  for (const auto slot : running_) stack_.push(slot, env_->observation(0).data() + slot * row_bytes, true);
}

void EpisodePlayer::step() {
  const auto values = policy_.values(stack_.stacks(running_), static_cast<std::int64_t>(running_.size()));
  const auto choices = static_cast<std::size_t>(network_.actions);
  const bool masked = env_->spec().has_action_mask;
  // Slots that are done are stepped along, as a vector environment must be, with an action that is allowed.
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    const auto* mask = masked ? env_->action_mask().data() + slot * choices : nullptr;
    actions_[slot] =
        masked ? static_cast<std::int32_t>(std::find(mask, mask + choices, 1) - mask) % network_.actions : 0;
  }
  for (std::size_t i = 0; i < running_.size(); ++i) {
    const auto slot = running_[i];
    const auto* mask = masked ? env_->action_mask().data() + slot * choices : nullptr;
    actions_[slot] = choose(values->q.subspan(i * choices, choices), mask, options_.epsilon, slots_[slot].rng).action;
  }
  const auto restarts = env_->restarts();
  env_->step(actions_);
  const auto row_bytes = env_->spec().observations[0].tensor.bytes();
  // The environment's process failed and all its episodes broke off: they say nothing of the policy.
  const bool broke_off = env_->restarts() != restarts;
  for (const auto slot : running_) {
    auto& it = slots_[slot];
    if (broke_off || !env_->stepped()[slot]) {  // this step only began an episode
      it.episode_return = 0;
      it.steps = 0;
      stack_.push(slot, env_->observation(0).data() + slot * row_bytes, true);
      continue;
    }
    it.episode_return += env_->rewards()[slot];
    ++it.steps;
    const bool ended = env_->terminated()[slot] || env_->truncated()[slot];
    const bool cut = !ended && it.steps >= max_steps_;
    if (ended || cut) {
      it.returns.push_back(it.episode_return);
      it.lengths.push_back(it.steps);
      it.episode_return = 0;
      it.steps = 0;
    }
    if (cut) {
      env_->reset_slot(slot,
                       environment_seed(purpose_, options_.seed, round_, static_cast<std::int64_t>(share_.first + slot),
                                        static_cast<std::int64_t>(it.returns.size())));
    }
    stack_.push(slot, env_->observation(0).data() + slot * row_bytes, ended || cut);
  }
  std::erase_if(running_, [&](std::uint32_t slot) {
    return static_cast<std::int64_t>(slots_[slot].returns.size()) == slots_[slot].episodes;
  });
}

EvaluationResult EpisodePlayer::result() const {
  EvaluationResult out;
  for (const auto& slot : slots_) {
    out.returns.insert(out.returns.end(), slot.returns.begin(), slot.returns.end());
    out.lengths.insert(out.lengths.end(), slot.lengths.begin(), slot.lengths.end());
  }
  out.environment = env_->protocol();
  return completed(std::move(out));
}

EvaluationResult evaluate(const EvaluationOptions& options, const nn::WeightsView& weights, SeedPurpose purpose) {
  const auto slots = slots_for(options.episodes);
  const std::size_t most = options.players > 0 ? options.players : std::thread::hardware_concurrency();
  const auto players = std::clamp<std::size_t>(most, 1, slots);
  std::atomic<bool> failed = false;
  const auto play = [&](SlotRange share) {
    try {
      EpisodePlayer player(options, share);
      player.begin(weights, purpose, 0);
      while (!player.done() && !failed) player.step();
      auto result = player.result();
      result.events = player.take_events();
      return result;
    } catch (...) {
      failed = true;
      throw;
    }
  };
  std::vector<std::future<EvaluationResult>> parts;
  try {
    for (std::size_t i = 0; i < players; ++i) {
      const auto first = slots * i / players;
      parts.push_back(std::async(std::launch::async, play, SlotRange{first, slots * (i + 1) / players - first}));
    }
  } catch (const std::system_error& error) {
    failed = true;  // who plays already stops
    throw SystemError(text("an evaluation by ", players, " players: cannot start a thread: ", error.what()));
  }
  EvaluationResult out;
  for (auto& part : parts) {
    auto result = part.get();
    out.returns.insert(out.returns.end(), result.returns.begin(), result.returns.end());
    out.lengths.insert(out.lengths.end(), result.lengths.begin(), result.lengths.end());
    out.environment = std::move(result.environment);
    out.events.insert(out.events.end(), result.events.begin(), result.events.end());
  }
  return completed(std::move(out));
}

}  // namespace qanat::actors
