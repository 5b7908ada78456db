#include "cli/evaluate.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "actors/environment.h"
#include "cli/progress.h"
#include "cli/roles.h"
#include "core/error.h"
#include "core/files.h"
#include "envs/vector_env.h"
#include "learner/checkpoint.h"

namespace qanat::cli {

namespace fs = std::filesystem;

namespace {

// What is over sooner needs no progress.
constexpr Milliseconds quiet_at_first{2000};

// What a run without weights has come to, from its status.json.
std::string how_far(const fs::path& run_dir) {
  const auto file = run_dir / "status.json";
  if (!fs::exists(file)) return "; it has not begun to run";
  const auto status = nlohmann::json::parse(read_text_file(file), nullptr, false);
  if (!status.is_object()) return "";
  const auto cause = status.value("stop_cause", std::string());
  return text("; after ", status.value("env_steps", 0), " env steps and ", status.value("updates", 0), " updates it ",
              cause.empty() ? text("is ", status.value("state", std::string("unknown"))) : text("was ended by ", cause),
              ", ", status.value("wall_seconds", 0.0), " s after its first env step");
}

}  // namespace

RunWeights load_run_weights(const fs::path& run_dir, const RunConfig& config, const envs::EnvSpec& environment,
                            bool prefer_best) {
  const auto checkpoints = run_dir / "checkpoints";
  const auto best = prefer_best ? learner::read_best(checkpoints) : std::nullopt;
  RunWeights out;
  fs::path weights;
  if (best) {
    weights = checkpoints / "best" / "weights.bin";
    out.which = text("best, update ", best->updates);
  } else if (const auto newest = learner::newest_checkpoint(checkpoints)) {
    weights = *newest / "weights.bin";
    out.which = text("last, update ", learner::read_manifest(*newest).updates);
  } else {
    throw ConfigError(text("no weights in ", checkpoints.string(), ": the run has no evaluation and no checkpoint yet",
                           how_far(run_dir)));
  }
  const auto network = actors::network_of(config.network, environment, config.agent.stack);
  out.weights = learner::load_weights(weights, network);
  return out;
}

RunConfig config_of_run(const fs::path& run_dir, const std::vector<std::string>& overrides) {
  const auto file = run_dir / "config.yaml";
  if (!fs::exists(file)) throw ConfigError(text("no run in ", run_dir.string(), ": it has no config.yaml"));
  return load_run_config(file.string(), overrides);
}

actors::EvaluationOptions evaluation_options(const RunConfig& config, std::int64_t episodes) {
  actors::EvaluationOptions options;
  options.environment = config.env;
  options.network = config.network;
  options.stack = config.agent.stack;
  options.normalization = config.agent.normalization();
  options.episodes = episodes;
  options.epsilon = config.evaluation.epsilon;
  options.max_steps = config.evaluation.max_steps;
  options.max_seconds = config.evaluation.final_max_seconds;
  options.seed = run_seed(config);
  // As many environments, and processes of them, as the run's actors had fit on the machine, whatever one needs. More
  // than a hundred together would not be any faster.
  options.slots = static_cast<std::size_t>(std::min<std::int64_t>(config.actors.count * config.actors.slots, 100));
  if (!config.env.gymnasium.empty() || config.env.isolate)
    options.players = static_cast<std::size_t>(config.actors.count);
  return options;
}

std::string progress_text(const actors::EvaluationProgress& progress, std::int64_t episodes, double max_seconds) {
  const double bound = max_seconds > 0 ? std::max(0.0, max_seconds - progress.seconds) : -1;
  if (!progress.playing) {
    return text("evaluating: making environments for ", minutes_text(progress.seconds),
                bound < 0 ? "" : text(" | left at most ", minutes_text(bound)));
  }
  std::string out =
      text("evaluating: ", progress.episodes, " of ", episodes, " episodes, ", progress.steps, " steps | ");
  if (progress.episodes == 0 || progress.steps == 0)
    return out + (bound < 0 ? "left ?" : text("left at most ", minutes_text(bound)));
  // As if the others were as long as those that have ended. Where they are longer already, as many episodes a second as
  // so far.
  const auto share = [](std::int64_t part, std::int64_t whole) {
    return static_cast<double>(part) / static_cast<double>(whole);
  };
  const double whole = share(progress.ended_steps, progress.episodes) * static_cast<double>(episodes);
  const double steps = static_cast<double>(progress.steps);
  const double left = *progress.playing * (whole > steps ? (whole - steps) / steps
                                                         : share(episodes - progress.episodes, progress.episodes));
  return out + "left " + minutes_text(bound < 0 ? left : std::min(left, bound));
}

EvaluatedRun evaluate_run(const fs::path& run_dir, const RunConfig& config, const envs::EnvSpec& environment,
                          std::int64_t episodes, bool prefer_best) {
  const auto weights = load_run_weights(run_dir, config, environment, prefer_best);
  const auto options = evaluation_options(config, episodes);
  EvaluatedRun out;
  out.weights = weights.which;
  {
    const SteadyClock clock;
    ProgressLine progress(clock, quiet_at_first);
    out.evaluation = actors::evaluate(options, weights.weights.view(), [&](const actors::EvaluationProgress& now) {
      if (progress.due()) progress.show(progress_text(now, episodes, options.max_seconds));
    });
  }
  const auto& result = out.evaluation;
  for (const auto& event : result.events) std::fprintf(stderr, "qanat: warning: %s\n", event.c_str());
  if (result.cut + result.left_out > 0) {
    std::fprintf(stderr,
                 "qanat: warning: the evaluation was ended after %g s (evaluation.final_max_seconds): %lld of its %lld "
                 "episodes count with their return so far, %lld more were not begun\n",
                 options.max_seconds, static_cast<long long>(result.cut), static_cast<long long>(result.episodes),
                 static_cast<long long>(result.left_out));
  }
  return out;
}

int evaluate_command(const EvaluateOptions& options) {
  const auto config = config_of_run(options.run_dir, options.overrides);
  const auto environment = [&] {
    try {
      return envs::make(config.env, 1)->spec();
    } catch (const ConfigError& error) {
      throw ConfigError(text(error.what(), "; where its files lie elsewhere by now, say so by --set: ",
                             "env.plugin=PATH, env.python=PATH, env.python_path=PATH"));
    }
  }();
  const auto result =
      evaluate_run(options.run_dir, config, environment,
                   options.episodes > 0 ? options.episodes : config.evaluation.final_episodes, !options.last);
  std::printf("evaluation: mean %.2f, standard error %.2f over %lld episodes (%s weights)\n", result.evaluation.mean,
              result.evaluation.standard_error, static_cast<long long>(result.evaluation.episodes),
              result.weights.c_str());
  return 0;
}

}  // namespace qanat::cli
