#include "actors/environment.h"

#include "core/error.h"

namespace qanat::actors {

namespace {

void require_discrete(const envs::EnvSpec& spec) {
  if (spec.action.kind == envs::ActionSpace::Kind::discrete) return;
  const auto* seen = spec.action.kind == envs::ActionSpace::Kind::box ? "Box" : "MultiDiscrete";
  throw ConfigError(text("environment ", spec.id, ": its actions are ", seen, ", wanted Discrete"));
}

}  // namespace

wire::EnvironmentSchema schema_of(const envs::EnvSpec& spec) {
  require_discrete(spec);
  wire::EnvironmentSchema schema;
  schema.id = spec.id;
  for (const auto& column : spec.observations) schema.observations.push_back({column.tensor, column.low, column.high});
  schema.actions = spec.action.n;
  schema.has_action_mask = spec.has_action_mask;
  schema.max_episode_steps = spec.max_episode_steps;
  return schema;
}

nn::NetworkSpec network_of(const nn::NetworkConfig& config, const envs::EnvSpec& spec, std::int64_t stack) {
  require_discrete(spec);
  const auto& input = spec.observations.front();
  return nn::build_network(config, input.tensor, stack, input.high, spec.action.n);
}

void log_protocol(Logger& log, const envs::VectorEnv& env) {
  for (const auto& [name, value] : env.protocol()) log.info(env.spec().id, ": ", name, " = ", value);
}

}  // namespace qanat::actors
