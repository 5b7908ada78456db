// The columns that a run's shards keep, from what its environment looks like.
#pragma once

#include "replay/schema.h"
#include "wire/messages.h"

namespace qanat::replay {

// Observations as the environment gives them, the action i32, and the action mask (u8 [actions]) when there is one.
[[nodiscard]] Schema schema_of(const wire::EnvironmentSchema& environment);

}  // namespace qanat::replay
