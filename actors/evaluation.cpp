#include "actors/evaluation.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <numeric>
#include <system_error>
#include <thread>

#include "actors/environment.h"
#include "actors/exploration.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/stats.h"

namespace qanat::actors {
namespace {

constexpr std::size_t most_slots = 100;
constexpr std::int64_t limit_of_the_endless = 10'000;
constexpr Milliseconds watch_every{100};

std::size_t slots_for(const EvaluationOptions& options) {
  if (options.episodes < 1)
    throw ConfigError(text("an evaluation of ", options.episodes, " episodes, wanted at least 1"));
  const auto most = options.slots > 0 ? options.slots : most_slots;
  return std::min(most, static_cast<std::size_t>(options.episodes));
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

bool resets_single_slots(const envs::VectorEnv& env) {
  return std::none_of(env.protocol().begin(), env.protocol().end(), [](const auto& field) {
    return field.first == envs::single_slot_resets && field.second == "False";
  });
}

}  // namespace

double EvaluationResult::mean_length() const {
  if (lengths.empty()) return 0;
  return std::accumulate(lengths.begin(), lengths.end(), 0.0) / static_cast<double>(lengths.size());
}

Share all_of(const EvaluationOptions& options) { return {0, options.episodes, slots_for(options), 0}; }

EpisodePlayer::EpisodePlayer(EvaluationOptions options, Share share)
    : options_(std::move(options)),
      share_(share),
      env_(envs::make(
          [&] {
            options_.environment.evaluation = true;
            options_.environment.first_index = share_.first_slot;
            return options_.environment;
          }(),
          share_.slots)),
      network_(network_of(options_.network, env_->spec(), options_.stack)),
      normalization_(options_.normalization, network_.input),
      policy_(network_, options_.device, "fp32", 1, static_cast<std::int64_t>(env_->slots())),
      stack_(env_->slots(), static_cast<std::size_t>(options_.stack), env_->spec().observations[0].tensor.bytes()),
      max_steps_(limit_of(options_.max_steps, env_->spec())),
      resets_slots_(resets_single_slots(*env_)),
      slots_(env_->slots()),
      actions_(env_->slots(), 0) {}

EpisodePlayer::~EpisodePlayer() = default;

void EpisodePlayer::begin(const nn::WeightsView& weights, SeedPurpose purpose, std::uint64_t round) {
  normalization_.load(weights.statistics, "the weights to play with");
  policy_.set_parameters(weights.parameters, normalization_, 0);
  purpose_ = purpose;
  round_ = round;
  played_.assign(static_cast<std::size_t>(share_.episodes), Played());
  ended_ = ended_steps_ = steps_ = cut_ = next_ = 0;
  running_.clear();
  for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
    take(slots_[slot], next_++);
    running_.push_back(slot);
  }
  begin_again();
}

std::uint64_t EpisodePlayer::seed_of(std::int64_t episode) const {
  return environment_seed(purpose_, options_.seed, round_, share_.first + episode, 0);
}

void EpisodePlayer::take(Slot& slot, std::int64_t episode) {
  slot.episode = episode;
  slot.rng = Rng(environment_seed(purpose_, options_.seed, round_, share_.first + episode));
  slot.episode_return = 0;
  slot.steps = 0;
}

// All running slots begin their episodes, from the beginning.
void EpisodePlayer::begin_again() {
  std::vector<std::uint64_t> seeds;
  for (auto& slot : slots_) {
    steps_ -= played_[static_cast<std::size_t>(slot.episode)].length == 0 ? slot.steps : 0;
    take(slot, slot.episode);
    seeds.push_back(seed_of(slot.episode));
  }
  env_->reset(seeds);
  const auto row_bytes = env_->spec().observations[0].tensor.bytes();
  for (const auto slot : running_) stack_.push(slot, env_->observation(0).data() + slot * row_bytes, true);
}

void EpisodePlayer::choose_actions() {
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
}

void EpisodePlayer::count(const Slot& slot) {
  played_[static_cast<std::size_t>(slot.episode)] = {slot.episode_return, slot.steps};
  ++ended_;
  ended_steps_ += slot.steps;
}

void EpisodePlayer::step() {
  choose_actions();
  const auto restarts = env_->restarts();
  env_->step(actions_);
  // The environment's process failed and all its episodes broke off: they say nothing of the policy.
  if (env_->restarts() != restarts) return begin_again();
  const auto row_bytes = env_->spec().observations[0].tensor.bytes();
  over_.clear();
  for (const auto slot : running_) {
    auto& it = slots_[slot];
    const bool begins = !env_->stepped()[slot];  // this step only began an episode
    if (!begins) {
      it.episode_return += env_->rewards()[slot];
      ++it.steps;
      ++steps_;
    }
    const bool ended = env_->terminated()[slot] || env_->truncated()[slot];
    if (ended || it.steps >= max_steps_) {
      count(it);
      over_.push_back(slot);
    }
    stack_.push(slot, env_->observation(0).data() + slot * row_bytes, begins || ended);
  }
  if (!over_.empty()) follow_up();
}

// Slots whose episode is over take their next one, or rest.
void EpisodePlayer::follow_up() {
  std::vector<std::uint32_t> begin;
  std::vector<std::uint64_t> seeds;
  const auto stride = static_cast<std::int64_t>(slots_.size());
  for (const auto slot : over_) {
    auto& it = slots_[slot];
    const bool ended = env_->terminated()[slot] || env_->truncated()[slot];
    const auto next = resets_slots_ ? next_++ : it.episode + stride;
    if (next >= share_.episodes) {
      std::erase(running_, slot);
      continue;
    }
    take(it, next);
    // The class began an episode by itself; where ours was cut it did not, and will say that it cannot.
    if (!resets_slots_ && ended) continue;
    begin.push_back(slot);
    seeds.push_back(seed_of(next));
  }
  if (begin.empty()) return;
  const auto restarts = env_->restarts();
  try {
    env_->reset_slots(begin, seeds);
  } catch (const RunError&) {
    if (env_->restarts() == restarts) throw;
    return begin_again();  // its process failed: the other slots' episodes broke off too
  }
  const auto row_bytes = env_->spec().observations[0].tensor.bytes();
  for (const auto slot : begin) stack_.push(slot, env_->observation(0).data() + slot * row_bytes, true);
}

void EpisodePlayer::cut() {
  for (const auto slot : running_) {
    if (slots_[slot].steps == 0) continue;
    count(slots_[slot]);
    ++cut_;
  }
  running_.clear();
}

EvaluationResult EpisodePlayer::result() const {
  EvaluationResult out;
  for (const auto& episode : played_) {
    if (episode.length == 0) continue;
    out.returns.push_back(episode.episode_return);
    out.lengths.push_back(episode.length);
  }
  out.cut = cut_;
  out.left_out = share_.episodes - ended_;
  out.environment = env_->protocol();
  return completed(std::move(out));
}

namespace {

// What a player's thread tells of itself.
struct Told {
  std::atomic<std::int64_t> episodes{0}, ended_steps{0}, steps{0};
};

// Several players and what they have in common.
class Players {
 public:
  Players(const EvaluationOptions& options, const nn::WeightsView& weights)
      : options_(options),
        weights_(weights),
        slots_(slots_for(options)),
        count_(std::clamp<std::size_t>(options.players > 0 ? options.players : std::thread::hardware_concurrency(), 1,
                                       slots_)),
        told_(count_),
        began_(clock_.now()) {}

  EvaluationResult run(const EvaluationWatch& watch) {
    std::vector<std::future<EvaluationResult>> parts;
    try {
      for (std::size_t i = 0; i < count_; ++i)
        parts.push_back(std::async(std::launch::async, [this, i] { return play(i); }));
    } catch (const std::system_error& error) {
      failed_ = true;  // who plays already stops
      throw SystemError(text("an evaluation by ", count_, " players: cannot start a thread: ", error.what()));
    }
    EvaluationResult out;
    for (auto& part : parts) {
      while (part.wait_for(watch_every) != std::future_status::ready) {
        if (watch) watch(progress());
      }
      auto result = part.get();
      out.returns.insert(out.returns.end(), result.returns.begin(), result.returns.end());
      out.lengths.insert(out.lengths.end(), result.lengths.begin(), result.lengths.end());
      out.cut += result.cut;
      out.left_out += result.left_out;
      out.environment = std::move(result.environment);
      out.events.insert(out.events.end(), result.events.begin(), result.events.end());
    }
    if (out.returns.empty()) {
      throw RunError(text("the evaluation's ", options_.max_seconds, " s were over before an episode had a step: ",
                          "making and resetting environments took them; raise evaluation.final_max_seconds"));
    }
    return completed(std::move(out));
  }

 private:
  [[nodiscard]] Share share_of(std::size_t player) const {
    const auto episodes = static_cast<std::size_t>(options_.episodes);
    const auto part = [&](std::size_t whole, std::size_t i) { return whole * i / count_; };
    const auto first = part(episodes, player);
    const auto its = part(episodes, player + 1) - first;
    // Both are divided by themselves: a player may be due two slots and one episode.
    return {static_cast<std::int64_t>(first), static_cast<std::int64_t>(its),
            std::min(part(slots_, player + 1) - part(slots_, player), its),
            static_cast<std::int64_t>(part(slots_, player))};
  }

  [[nodiscard]] bool time_is_over() const {
    return options_.max_seconds > 0 && seconds(clock_.now() - began_) >= options_.max_seconds;
  }

  EvaluationResult play(std::size_t number) {
    try {
      EpisodePlayer player(options_, share_of(number));
      player.begin(weights_, SeedPurpose::final_evaluation, 0);
      auto& told = told_[number];
      std::int64_t not_begun = 0;
      playing_.compare_exchange_strong(not_begun, clock_.now().count());
      while (!player.done() && !failed_) {
        if (time_is_over()) {
          player.cut();
          break;
        }
        player.step();
        told.episodes.store(player.episodes_ended(), std::memory_order_relaxed);
        told.ended_steps.store(player.steps_of_ended(), std::memory_order_relaxed);
        told.steps.store(player.steps(), std::memory_order_relaxed);
      }
      auto result = player.result();
      result.events = player.take_events();
      return result;
    } catch (...) {
      failed_ = true;
      throw;
    }
  }

  [[nodiscard]] EvaluationProgress progress() const {
    EvaluationProgress out;
    for (const auto& told : told_) {
      out.episodes += told.episodes.load(std::memory_order_relaxed);
      out.ended_steps += told.ended_steps.load(std::memory_order_relaxed);
      out.steps += told.steps.load(std::memory_order_relaxed);
    }
    const auto now = clock_.now();
    out.seconds = seconds(now - began_);
    if (const auto began = playing_.load(); began != 0) out.playing = seconds(now - Nanoseconds(began));
    return out;
  }

  const EvaluationOptions& options_;
  const nn::WeightsView& weights_;
  std::size_t slots_, count_;
  std::vector<Told> told_;
  SteadyClock clock_;
  Nanoseconds began_;
  std::atomic<std::int64_t> playing_{0};  // when the first player took its first step
  std::atomic<bool> failed_{false};
};

}  // namespace

EvaluationResult evaluate(const EvaluationOptions& options, const nn::WeightsView& weights,
                          const EvaluationWatch& watch) {
  return Players(options, weights).run(watch);
}

}  // namespace qanat::actors
