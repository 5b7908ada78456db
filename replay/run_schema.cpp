#include "replay/run_schema.h"

namespace qanat::replay {

Schema schema_of(const wire::EnvironmentSchema& environment, bool with_discounted_return) {
  Schema schema;
  for (const auto& observation : environment.observations) schema.observations.push_back(observation.tensor);
  schema.action = {"action", DType::i32, {}};
  if (environment.has_action_mask) schema.extras.push_back({"action_mask", DType::u8, {environment.actions}});
  if (with_discounted_return) schema.extras.push_back({"discounted_return", DType::f32, {}});
  return schema;
}

}  // namespace qanat::replay
