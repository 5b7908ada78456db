#include "actors/recording.h"

#include <algorithm>
#include <utility>

#include "actors/environment.h"
#include "core/animation.h"
#include "core/error.h"
#include "envs/picture.h"

namespace qanat::actors {
namespace {

class Recorder {
 public:
  explicit Recorder(const RecordingOptions& options) : options_(options), film_(options.frames_per_second) {}

  [[nodiscard]] bool full() const { return film_.frames() >= static_cast<std::size_t>(options_.max_frames); }
  void show(const envs::VectorEnv& env) { add(envs::picture_of(env, 0)); }
  void show_last(const envs::VectorEnv& env) {
    if (const auto picture = envs::final_picture_of(env, 0)) add(*picture);
  }
  void ended(double episode_return, std::int64_t length) {
    result_.returns.push_back(episode_return);
    result_.lengths.push_back(length);
  }
  Recording finish(const envs::EnvSpec& spec) {
    result_.source = envs::picture_source(spec);
    result_.frames = film_.frames();
    result_.film = film_.finish();
    return std::move(result_);
  }

 private:
  void add(const Picture& picture) {
    if (!full()) film_.add(enlarged(picture, options_.longest_side));
  }

  const RecordingOptions& options_;
  Animation film_;
  Recording result_;
};

// Seeds of films: those of no training and of no evaluation of a run, which count from round 0.
constexpr std::uint64_t first_round = 1U << 30;

std::int32_t random_action(const envs::VectorEnv& env, Rng& rng) {
  const auto choices = static_cast<std::uint64_t>(env.spec().action.n);
  auto action = rng.below(choices);
  // Drawn anew until it is allowed: alike for all that are.
  const auto mask = env.action_mask();
  if (!mask.empty() && std::find(mask.begin(), mask.end(), 1) != mask.end()) {
    while (mask[action] != 1) action = rng.below(choices);
  }
  return static_cast<std::int32_t>(action);
}

Recording record_random(const RecordingOptions& options) {
  auto config = options.play.environment;
  config.evaluation = true;  // as a network's episodes are: whole, for their raw returns
  const auto env = envs::make(config, 1);
  static_cast<void>(schema_of(env->spec()));  // refuses actions that are not Discrete
  static_cast<void>(envs::picture_source(env->spec()));
  Recorder recorder(options);
  Rng rng(environment_seed(SeedPurpose::evaluation, options.play.seed, first_round, 1));
  for (std::int64_t episode = 0; episode < options.play.episodes && !recorder.full(); ++episode) {
    const std::uint64_t seed = environment_seed(SeedPurpose::evaluation, options.play.seed, first_round, 0, episode);
    env->reset(std::span(&seed, 1));
    for (bool over = false; !over && !recorder.full();) {
      recorder.show(*env);
      const std::int32_t action = random_action(*env, rng);
      env->step(std::span(&action, 1));
      over = env->terminated()[0] != 0 || env->truncated()[0] != 0;
    }
    if (env->terminated()[0] == 0 && env->truncated()[0] == 0) break;  // full in mid-episode
    recorder.show_last(*env);
    recorder.ended(env->episode_returns()[0], env->episode_lengths()[0]);
  }
  return recorder.finish(env->spec());
}

Recording record_network(const RecordingOptions& options, const nn::WeightsView& weights) {
  EvaluationOptions one = options.play;
  one.episodes = 1;
  EpisodePlayer player(one);
  const auto& env = player.environment();
  static_cast<void>(envs::picture_source(env.spec()));
  Recorder recorder(options);
  for (std::int64_t episode = 0; episode < options.play.episodes && !recorder.full(); ++episode) {
    player.begin(weights, SeedPurpose::evaluation, first_round + static_cast<std::uint64_t>(episode));
    while (!player.done() && !recorder.full()) {
      recorder.show(env);
      player.step();
    }
    if (!player.done()) break;
    if (env.terminated()[0] != 0 || env.truncated()[0] != 0) recorder.show_last(env);
    const auto result = player.result();
    recorder.ended(result.returns[0], result.lengths[0]);
  }
  return recorder.finish(env.spec());
}

}  // namespace

Recording record(const RecordingOptions& options, std::optional<nn::WeightsView> weights) {
  if (options.play.episodes < 1 || options.max_frames < 1) {
    throw ConfigError(text("a film of ", options.play.episodes, " episodes and at most ", options.max_frames,
                           " frames, wanted at least one of each"));
  }
  return weights ? record_network(options, *weights) : record_random(options);
}

}  // namespace qanat::actors
