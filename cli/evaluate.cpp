#include "cli/evaluate.h"

#include <cstdio>

#include "actors/environment.h"
#include "cli/roles.h"
#include "core/error.h"
#include "core/files.h"
#include "learner/checkpoint.h"

namespace qanat::cli {

namespace fs = std::filesystem;

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
    throw ConfigError(
        text("no weights in ", checkpoints.string(), ": the run has no evaluation and no checkpoint yet"));
  }
  const auto network = actors::network_of(config.network, environment, config.agent.stack);
  out.weights = learner::load_weights(weights, network);
  return out;
}

RunConfig config_of_run(const fs::path& run_dir) {
  const auto file = run_dir / "config.yaml";
  if (!fs::exists(file)) throw ConfigError(text("no run in ", run_dir.string(), ": it has no config.yaml"));
  return parse_run_config(read_text_file(file), file.string());
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
  options.seed = run_seed(config);
  // As many processes of environments as the run had actors fit on the machine, whatever one of them needs.
  if (!config.env.gymnasium.empty() || config.env.isolate)
    options.players = static_cast<std::size_t>(config.actors.count);
  return options;
}

EvaluatedRun evaluate_run(const fs::path& run_dir, const RunConfig& config, std::int64_t episodes, bool prefer_best) {
  const auto environment = envs::make(config.env, 1);
  const auto weights = load_run_weights(run_dir, config, environment->spec(), prefer_best);
  EvaluatedRun out{actors::evaluate(evaluation_options(config, episodes), weights.weights.view()), weights.which};
  for (const auto& event : out.evaluation.events) std::fprintf(stderr, "qanat: warning: %s\n", event.c_str());
  return out;
}

int evaluate_command(const std::string& run_dir, std::int64_t episodes, bool last) {
  const auto config = config_of_run(run_dir);
  const auto result = evaluate_run(run_dir, config, episodes > 0 ? episodes : config.evaluation.final_episodes, !last);
  std::printf("evaluation: mean %.2f, standard error %.2f over %lld episodes (%s weights)\n", result.evaluation.mean,
              result.evaluation.standard_error, static_cast<long long>(result.evaluation.episodes),
              result.weights.c_str());
  return 0;
}

}  // namespace qanat::cli
