#include "cli/evaluate.h"

#include <cstdio>

#include "actors/environment.h"
#include "cli/roles.h"
#include "core/error.h"
#include "core/files.h"
#include "learner/checkpoint.h"

namespace qanat::cli {

namespace fs = std::filesystem;

EvaluatedRun evaluate_run(const fs::path& run_dir, const RunConfig& config, std::int64_t episodes, bool prefer_best) {
  const auto checkpoints = run_dir / "checkpoints";
  const auto best = prefer_best ? learner::read_best(checkpoints) : std::nullopt;
  EvaluatedRun out;
  fs::path weights;
  if (best) {
    weights = checkpoints / "best" / "weights.bin";
    out.weights = text("best, update ", best->updates);
  } else if (const auto newest = learner::newest_checkpoint(checkpoints)) {
    weights = *newest / "weights.bin";
    out.weights = text("last, update ", learner::read_manifest(*newest).updates);
  } else {
    throw ConfigError(
        text("no weights in ", checkpoints.string(), ": the run has no evaluation and no checkpoint yet"));
  }
  const auto environment = envs::make(config.env, 1);
  const auto network = actors::network_of(config.network, environment->spec(), config.agent.stack);
  const auto parameters = learner::load_weights(weights, network);
  actors::EvaluationOptions request;
  request.environment = config.env;
  request.network = config.network;
  request.stack = config.agent.stack;
  request.episodes = episodes;
  request.epsilon = config.evaluation.epsilon;
  request.max_steps = config.evaluation.max_steps;
  request.seed = run_seed(config);
  out.evaluation = actors::evaluate(request, parameters);
  return out;
}

int evaluate_command(const std::string& run_dir, std::int64_t episodes, bool last) {
  const fs::path path = run_dir;
  if (!fs::exists(path / "config.yaml")) throw ConfigError(text("no run in ", run_dir, ": it has no config.yaml"));
  const auto config = parse_run_config(read_text_file(path / "config.yaml"), (path / "config.yaml").string());
  const auto result = evaluate_run(path, config, episodes > 0 ? episodes : config.evaluation.final_episodes, !last);
  std::printf("evaluation: mean %.2f, standard error %.2f over %lld episodes (%s weights)\n", result.evaluation.mean,
              result.evaluation.standard_error, static_cast<long long>(result.evaluation.episodes),
              result.weights.c_str());
  return 0;
}

}  // namespace qanat::cli
