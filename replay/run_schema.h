// The columns that a run's shards keep, from what its environment looks like.
#pragma once

#include "replay/schema.h"
#include "wire/messages.h"

namespace qanat::replay {

// Observations as the environment gives them, the action i32, and as extras the action mask (u8 [actions]) when there
// is one, then on demand the discounted return of the episode up to the row's own reward (f32 scalar, see
// nn/normalization.h), which means nothing in a last observation's row.
[[nodiscard]] Schema schema_of(const wire::EnvironmentSchema& environment, bool with_discounted_return);

}  // namespace qanat::replay
